"""A recipe on paper: the arithmetic by hand, the memory of a graph, what to change."""

import dataclasses
import json

import pytest
import tensorflow as tf

from tfllm import cli
from tfllm.data import Records
from tfllm.errors import UserError
from tfllm.trainers import Recipe
from tfllm.trainers.devices import DEVICES, Device, device_named
from tfllm.trainers.plan import advice, described, plan, planned
from tfllm.trainers.step_graph import StepGraph, peak_bytes, step_graph

DEVICE = Device(
    name="one",
    flops={"float32": 100.0, "bfloat16": 200.0},
    memory_bytes=10_000,
    memory_bytes_s=50.0,
    interconnect_bytes_s=25.0,
    source="made up",
)
STEP = StepGraph(
    flops=900, weights=110, trained=100, activation_bytes=1000, costs=[(400, 100), (0, 300)]
)
RECIPE = Recipe(name="r", global_batch=8, steps=1000)


def test_memory_is_weights_gradients_moments_and_activations():
    found = planned(STEP, RECIPE, 16, DEVICE, 1)
    assert found.memory == {
        "weights": 440, "gradients": 400, "optimizer": 800, "ema": 0, "activations": 1000
    }  # fmt: skip
    assert found.total_bytes == 2640
    assert found.fits
    averaged = planned(STEP, dataclasses.replace(RECIPE, ema=0.9, microbatches=2), 16, DEVICE, 1)
    assert (averaged.memory["ema"], averaged.memory["gradients"]) == (400, 800)


def test_time_is_each_operations_longer_of_arithmetic_and_bytes():
    found = planned(STEP, RECIPE, 16, DEVICE, 1)
    # 400 / 100 against 100 / 50, and 300 / 50; 7 passes over 400 bytes.
    assert found.seconds == {"compute": 4 + 6, "optimizer": 7 * 400 / 50, "communication": 0}
    assert found.step_s == 66
    assert found.tokens_per_second == pytest.approx(8 * 16 / 66)
    assert found.mfu == pytest.approx(900 / 100 / 66)
    assert found.days == pytest.approx(1000 * 66 / 86400)
    half = planned(STEP, dataclasses.replace(RECIPE, precision="bfloat16"), 16, DEVICE, 1)
    assert half.seconds["compute"] == 2 + 6


def test_a_ring_sends_twice_the_gradient_but_for_a_share():
    found = planned(STEP, RECIPE, 16, DEVICE, 4)
    assert found.communication_bytes == 2 * 3 / 4 * 400
    assert found.seconds["communication"] == 600 / 25
    assert found.total_bytes == 2640


def test_replicas_on_one_cpu_share_its_speed_and_its_memory():
    found = planned(STEP, RECIPE, 16, dataclasses.replace(DEVICE, is_shared=True), 2)
    assert found.total_bytes == 2 * 2640
    assert found.seconds["compute"] == 2 * 10


def test_a_tenth_of_the_memory_stays_free():
    def fits(size):
        return planned(STEP, RECIPE, 16, dataclasses.replace(DEVICE, memory_bytes=size), 1).fits

    assert not fits(2900)
    assert fits(2934)


def operations(function, *shapes):
    with tf.Graph().as_default() as graph:
        inputs = [tf.compat.v1.placeholder(tf.float32, shape) for shape in shapes]
        function(*inputs)
        return graph.get_operations()[len(inputs) :]


@pytest.mark.parametrize(
    ("function", "floats"),
    [
        (lambda x: tf.exp(tf.exp(x)), 20),  # the second is made while the first is there
        (lambda x: tf.tanh(tf.exp(x)), 10),  # written over it
        (lambda x: tf.reshape(tf.exp(x), [10]), 10),
        (lambda x: tf.tanh(y := tf.exp(x)) + tf.exp(y), 30),  # y is read once more
        (lambda x: (tf.exp(x), tf.exp(x)), 10),  # the first is read by nobody
    ],
    ids=["two", "over", "reshaped", "kept", "unread"],
)
def test_the_most_bytes_at_once_are_those_of_tensors_that_are_still_read(function, floats):
    assert peak_bytes(operations(function, (2, 5))) == 4 * floats


def test_the_step_of_a_small_gpt_has_its_weights_and_operations(tiny):
    step = step_graph(tiny, Records(tiny.data))
    assert step.trained == 11_824  # as the run says
    width, words, length = 16, 500, 32
    weights = 12 * width**2 + width * words
    attention = 2 * length * width
    assert step.flops == 3 * 2 * 4 * length * (weights + attention)
    backward = sum(flops for flops, _ in step.costs)
    assert backward == step.flops
    logits = 4 * length * words * 4
    assert 2 * logits <= step.activation_bytes < 20 * logits


def test_microbatches_and_replicas_share_the_rows(tiny):
    records = Records(tiny.data)
    whole, parted = (
        step_graph(tiny, records),
        step_graph(tiny.with_settings(["microbatches=4"]), records),
    )
    assert parted.flops == whole.flops
    assert parted.activation_bytes < 0.5 * whole.activation_bytes
    assert step_graph(tiny, records, 2).flops == whole.flops / 2


def test_what_does_not_fit_comes_with_changes_that_do(tiny):
    records = Records(tiny.data)
    needed = plan(tiny, records, DEVICES["h100"]).total_bytes
    small = dataclasses.replace(DEVICES["h100"], memory_bytes=int(needed * 0.8))
    found = plan(tiny, records, small)
    assert not found.fits
    assert "does NOT fit" in described(found, tiny, small, 1)
    changes = advice(tiny, records, small)
    assert changes[0] == {"microbatches": 2}
    assert {"replicas": 2} in changes
    assert {"global_batch": 2} in changes
    nothing = dataclasses.replace(small, memory_bytes=1000)
    assert advice(tiny, records, nothing) == []  # not even the weights do


def test_a_batch_that_replicas_cannot_share_is_refused(tiny):
    with pytest.raises(UserError, match="multiple of 3 replicas times 1 microbatches: got 4"):
        plan(tiny, Records(tiny.data), DEVICES["v5e"], 3)


def test_an_unknown_device_is_refused_with_those_that_are_known():
    with pytest.raises(UserError, match="cpu, v4, v5e, v5p, a100, h100: got 'v9'"):
        device_named("v9")


def test_the_command_says_it_to_people_and_programs(tiny, tmp_path, capsys):
    (tmp_path / "r.json").write_text(json.dumps(dataclasses.asdict(tiny)))
    assert cli.main(["plan", str(tmp_path / "r.json"), "--device", "v5e", "--replicas", "2"]) == 0
    out, err = capsys.readouterr()
    assert json.loads(out)["fits"] is True
    assert "on 2 x TPU v5e" in err
    assert cli.main(["plan", "gpt_10m"]) == 2
    assert "No data" in capsys.readouterr().err
