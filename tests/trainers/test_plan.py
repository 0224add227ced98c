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
from tfllm.trainers.feed import Kind, standing_for_all
from tfllm.trainers.plan import advice, described, plan, planned
from tfllm.trainers.step_graph import (
    Cost,
    Planned,
    StepGraph,
    costs,
    peak_bytes,
    step_graphs,
)

DEVICE = Device(
    name="one",
    flops={"float32": 100.0, "bfloat16": 200.0},
    memory_bytes=10_000,
    memory_bytes_s=50.0,
    interconnect_bytes_s=25.0,
    source="made up",
)
STEP = StepGraph(
    flops=900, weights=110, trained=100, activation_bytes=1000, costs=[Cost(400, 100), Cost(0, 300)]
)
STEPS = [Planned(1.0, 128, STEP)]
RECIPE = Recipe(name="r", global_batch=8, steps=1000)


def test_memory_is_weights_gradients_moments_and_activations():
    found = planned(STEPS, RECIPE, DEVICE, 1)
    assert found.memory == {
        "weights": 440, "gradients": 400, "optimizer": 800, "ema": 0, "activations": 1000
    }  # fmt: skip
    assert found.total_bytes == 2640
    assert found.fits
    averaged = planned(STEPS, dataclasses.replace(RECIPE, ema=0.9, microbatches=2), DEVICE, 1)
    assert (averaged.memory["ema"], averaged.memory["gradients"]) == (400, 800)


def test_time_is_each_operations_longer_of_arithmetic_and_bytes():
    found = planned(STEPS, RECIPE, DEVICE, 1)
    # 400 / 100 against 100 / 50, and 300 / 50; 7 passes over 400 bytes.
    assert found.seconds == {"compute": 4 + 6, "optimizer": 7 * 400 / 50, "communication": 0}
    assert found.step_s == 66
    assert found.tokens_per_second == pytest.approx(128 / 66)
    assert found.mfu == pytest.approx(900 / 100 / 66)
    assert found.days == pytest.approx(1000 * 66 / 86400)
    half = planned(STEPS, dataclasses.replace(RECIPE, precision="bfloat16"), DEVICE, 1)
    assert half.seconds["compute"] == 2 + 6


def test_a_ring_sends_twice_the_gradient_but_for_a_share():
    found = planned(STEPS, RECIPE, DEVICE, 4)
    assert found.communication_bytes == 2 * 3 / 4 * 400
    assert found.seconds["communication"] == 600 / 25
    assert found.total_bytes == 2640


def test_replicas_on_one_cpu_share_its_speed_and_its_memory():
    found = planned(STEPS, RECIPE, dataclasses.replace(DEVICE, is_shared=True), 2)
    assert found.total_bytes == 2 * 2640
    assert found.seconds["compute"] == 2 * 10


def test_each_process_of_a_cpu_has_a_runtime():
    def planned_on(replicas, **settings):
        device = dataclasses.replace(DEVICE, runtime_bytes=5000, **settings)
        found = planned(STEPS, RECIPE, device, replicas)
        assert f"{found.runtime_bytes / 2**20:.1f} MiB" in described(
            found, RECIPE, device, replicas
        )
        return found.runtime_bytes, found.total_bytes, found.fits

    assert planned_on(1) == (5000, 2640 + 5000, True)
    processes = {"is_shared": True}
    assert planned_on(2, **processes) == (2 * 5000, 2 * (2640 + 5000), False)
    in_one = {"is_shared": True, "interconnect_bytes_s": None}
    assert planned_on(2, **in_one) == (5000, 2 * 2640 + 5000, False)


def test_what_is_slow_by_the_element_takes_as_long_as_that():
    step = STEP._replace(costs=[Cost(0, 300, "Erfc", 20), Cost(0, 300, "Exp", 20)])
    device = dataclasses.replace(DEVICE, elements_s={"Erfc": 2.0})
    found = planned([Planned(1.0, 1, step)], RECIPE, device, 1)
    assert found.seconds["compute"] == 20 / 2 + 300 / 50


def test_replicas_in_one_process_add_up_in_its_memory():
    device = dataclasses.replace(DEVICE, is_shared=True, interconnect_bytes_s=None)
    found = planned(STEPS, RECIPE, device, 2)
    assert found.seconds["communication"] == (2 + 1) * 400 / 50  # two are read, the sum is written
    assert planned(STEPS, RECIPE, device, 1).seconds["communication"] == 0


def test_processes_on_one_machine_share_what_it_sends():
    found = planned(STEPS, RECIPE, dataclasses.replace(DEVICE, is_shared=True), 2)
    assert found.seconds["communication"] == 400 / (25 / 2)


def test_buckets_have_the_memory_of_the_largest_and_the_time_of_the_mean():
    wide = STEP._replace(activation_bytes=3000, flops=300, costs=[Cost(0, 100)])
    rare = STEP._replace(activation_bytes=9000)
    steps = [Planned(0.25, 100, STEP), Planned(0.75, 40, wide), Planned(0.0, 1, rare)]
    found = planned(steps, RECIPE, DEVICE, 1)
    assert found.memory["activations"] == 9000
    assert found.seconds["compute"] == 0.25 * 10 + 0.75 * 2
    assert found.tokens_per_second == pytest.approx((25 + 30) / found.step_s)
    assert found.mfu == pytest.approx((0.25 * 900 + 0.75 * 300) / 100 / found.step_s)


def test_a_tenth_of_the_memory_stays_free():
    def fits(size):
        return planned(STEPS, RECIPE, dataclasses.replace(DEVICE, memory_bytes=size), 1).fits

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


def test_a_list_that_a_loop_fills_is_alive_beside_what_it_is_made_into():
    def collected(x):
        array = tf.TensorArray(tf.float32, 7, element_shape=[2, 5])
        _, array = tf.while_loop(
            lambda i, _: i < 7,
            lambda i, array: (i + 1, array.write(i, x)),
            (0, array),
            maximum_iterations=7,
        )
        return array.stack()

    assert peak_bytes(operations(collected, (2, 5))) == 4 * 2 * 7 * 10


def test_the_step_of_a_small_gpt_has_its_weights_and_operations(tiny):
    ((_, _, step),) = step_graphs(tiny, Records(tiny.data))
    assert step.trained == 11_824  # as the run says
    width, words, length = 16, 500, 32
    weights = 12 * width**2 + width * words
    attention = 2 * length * width
    assert step.flops == 3 * 2 * 4 * length * (weights + attention)
    assert sum(cost.flops for cost in step.costs) == step.flops
    logits = 4 * length * words * 4
    assert 2 * logits <= step.activation_bytes < 20 * logits


def test_a_loop_costs_as_often_as_it_runs_and_what_xla_compiles_is_one_operation():
    cluster = tf.function(lambda x: tf.exp(tf.exp(x)), jit_compile=True)

    def loop(x):
        return tf.while_loop(lambda *_: True, lambda x: tf.exp(x), [x], maximum_iterations=3)

    size = 4 * 10
    in_cluster = list(costs(operations(cluster, (2, 5))))
    assert in_cluster == [Cost(0, 2 * size)]  # of which no part has a kind
    moved = [cost.moved for cost in costs(operations(loop, (2, 5)))]
    assert moved.count(2 * size) == 3
    assert peak_bytes(operations(cluster, (2, 5))) == size


def test_what_only_a_part_is_read_of_costs_that_part():
    table = operations(lambda x: tf.gather(x, [1, 2]), (1000, 5))
    assert sum(cost.moved for cost in costs(table)) == 2 * 2 * 5 * 4
    assert list(costs(operations(tf.shape, (1000, 5)))) == []


def test_on_a_cpu_clusters_are_compiled_where_the_step_compiles_them(tiny):
    def held(rows, on_cpu):
        recipe = dataclasses.replace(tiny, global_batch=rows)
        ((_, _, step),) = step_graphs(recipe, Records(tiny.data), on_cpu=on_cpu)
        return step.activation_bytes, sum(cost.moved for cost in step.costs)

    assert held(16, True) == held(16, False)  # 512 positions are not worth it
    assert held(64, True) < held(64, False)


@pytest.mark.parametrize(
    ("task", "family", "budget"), [("seq2seq_lm", "marian", 600), ("text_classifier", "bert", 150)]
)
def test_a_budget_is_planned_for_its_buckets(data, task, family, budget):
    recipe = Recipe(
        name="buckets",
        task=task,
        family=family,
        model={"num_layers": 1, "num_heads": 2, "hidden_dim": 16, "intermediate_dim": 24},
        batch_tokens=budget,
        length_buckets=3,
    )
    steps = step_graphs(recipe, Records(data[task]))
    assert sum(one.share for one in steps) == pytest.approx(1)
    assert 0 < max(one.tokens for one in steps) <= budget
    assert len({one.step.flops for one in steps}) == len(steps) > 1
    found = plan(recipe, Records(data[task]), DEVICES["v5e"])
    assert found.memory["activations"] == max(one.step.activation_bytes for one in steps)
    assert plan(recipe, Records(data[task]), DEVICES["v5e"], 2).memory["activations"] < (
        0.7 * found.memory["activations"]
    )


def test_a_budget_that_does_not_fit_comes_with_a_smaller_one(data):
    recipe = Recipe(
        name="buckets",
        task="seq2seq_lm",
        model={"num_layers": 1, "num_heads": 2, "hidden_dim": 16, "intermediate_dim": 24},
        batch_tokens=1200,
        length_buckets=2,
    )
    records = Records(data["seq2seq_lm"])
    needed = plan(recipe, records, DEVICES["h100"]).total_bytes
    small = dataclasses.replace(DEVICES["h100"], memory_bytes=int(needed * 0.9))
    changes = advice(recipe, records, small)
    assert changes[0] == {"microbatches": 2}
    (smaller,) = [change["batch_tokens"] for change in changes if "batch_tokens" in change]
    assert smaller == 1024
    assert plan(dataclasses.replace(recipe, batch_tokens=smaller), records, small).fits


def test_four_shapes_stand_for_many():
    kinds = [Kind(share, 0, None) for share in (1, 2, 1, 1, 3, 1, 1, 1)]
    assert standing_for_all(kinds) == [1, 1, 2, 2, 4, 4, 6, 6]
    assert standing_for_all(kinds[:3]) == [0, 1, 2]


def test_texts_of_any_length_are_refused_with_what_to_do(data):
    recipe = Recipe(
        name="texts",
        task="text_classifier",
        model={"num_layers": 1, "num_heads": 2, "hidden_dim": 16, "intermediate_dim": 24},
    )
    with pytest.raises(UserError, match="texts of any length: give the recipe batch_tokens"):
        step_graphs(recipe, Records(data["text_classifier"]))


def test_microbatches_and_replicas_share_the_rows(tiny):
    records = Records(tiny.data)

    def step_of(*settings, replicas=1):
        ((_, _, step),) = step_graphs(tiny.with_settings(settings), records, replicas)
        return step

    whole, parted = step_of(), step_of("microbatches=4")
    assert parted.flops == whole.flops
    assert parted.activation_bytes < 0.5 * whole.activation_bytes
    assert step_of(replicas=2).flops == whole.flops / 2


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
    with pytest.raises(UserError, match="cpu, cpu_workers, v4, v5e, v5p, a100, h100: got 'v9'"):
        device_named("v9")


def test_the_command_says_it_to_people_and_programs(tiny, tmp_path, capsys):
    (tmp_path / "r.json").write_text(json.dumps(dataclasses.asdict(tiny)))
    assert cli.main(["plan", str(tmp_path / "r.json"), "--device", "v5e", "--replicas", "2"]) == 0
    out, err = capsys.readouterr()
    assert json.loads(out)["fits"] is True
    assert "on 2 x TPU v5e" in err
    assert cli.main(["plan", "gpt_10m"]) == 2
    assert "No data" in capsys.readouterr().err
