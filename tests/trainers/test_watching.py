"""What a run shows: its numbers in TensorBoard, a line for people, and what is asked for."""

import json
import math
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tensorboard.plugins.hparams import plugin_data_pb2
from tensorboard.util.tensor_util import make_ndarray

from tfllm.data import Records
from tfllm.errors import UserError
from tfllm.models import GPTBackbone, GPTCausalLM
from tfllm.trainers import Watch, fit, laps, terminal
from tfllm.trainers.attention_entropy import AttentionEntropy
from tfllm.trainers.laps import Laps, Waiting, per_step
from tfllm.trainers.monitor import Compute, group_of
from tfllm.trainers.watch import steps_of


def events_of(folder):
    return EventAccumulator(str(folder)).Reload()


def logged(folder):
    """{name: {step: value}} of one folder of TensorBoard's."""
    events = events_of(folder)
    return {
        name: {event.step: make_ndarray(event.tensor_proto) for event in events.Tensors(name)}
        for name in events.Tags()["tensors"]
    }


@pytest.fixture(scope="module")
def watched(tmp_path_factory, tiny):
    """The result of a run that is looked at in every way."""
    folder = tmp_path_factory.mktemp("watched")
    watch = Watch(profile=(3, 4), histograms=True, attention_entropy=True)
    return fit(tiny, run=folder / "run", tensorboard=folder / "logs", watch=watch)


def test_the_time_of_a_step_is_split_and_its_utilisation_shown(watched, tiny):
    steps = logged(f"{watched.tensorboard}/train")
    assert {name for name in steps if name.startswith("seconds/")} == {
        f"seconds/{name}" for name in ("input", "compute", "validation", "checkpoint")
    }
    assert steps["seconds/compute"][8] > 0
    efficiency = Records(tiny.data).meta["splits"]["train"]["packing_efficiency"]
    tokens_s = steps["tokens_per_second"][8]
    step_s = efficiency * 4 * 32 / tokens_s
    parts = steps["seconds/compute"][8] + steps["seconds/input"][8]
    assert parts == pytest.approx(step_s, rel=1e-5)
    assert tokens_s > 0
    assert steps["mfu"][8] > 0


def test_the_norms_of_the_layers_add_up_to_that_of_the_whole_gradient(watched):
    steps = logged(f"{watched.tensorboard}/train")
    groups = {n.partition("/")[2] for n in steps if n.startswith("gradient_norm/")}
    assert groups == {"token_embedding", "position_embedding", "block_0", "final_norm"}
    squares = [steps[f"gradient_norm/{group}"][8] ** 2 for group in groups]
    assert math.sqrt(sum(squares)) == pytest.approx(steps["gradient_norm"][8], rel=1e-5)
    assert all(steps[f"update_norm/{group}"][8] > 0 for group in groups)


@pytest.mark.parametrize(
    ("path", "group"),
    [
        ("block_11/attention/query/kernel", "block_11"),
        ("encoder_block_0/attention_norm/scale", "encoder_block_0"),
        ("lstm/forward_0/kernel", "lstm/forward_0"),
        ("lstm/norm_0/gamma", "lstm/norm_0"),
        ("token_embedding/embeddings", "token_embedding"),
        ("decoder/attention/query/kernel", "decoder"),
    ],
)
def test_a_weight_is_counted_with_its_layer(path, group):
    assert group_of(path) == group


def test_utilisation_is_the_share_of_the_peak():
    steps = [0, 1, 1]
    assert Compute([600, 300], 1000.0).utilisation(steps, 4.0) == {"mfu": pytest.approx(0.3)}
    assert Compute(None, 1000.0).utilisation(steps, 4.0) == {}
    assert Compute([600, 300], None).utilisation(steps, 4.0) == {}


def test_validations_have_histograms_and_entropies(watched):
    steps = logged(f"{watched.tensorboard}/validation")
    assert steps["block_0/attention/query/kernel"][8][:, 2].sum() == 16 * 16  # counts of buckets
    # Rows of 32 tokens: at most the mean of log2(1), …, log2(32).
    assert 0 < steps["attention_entropy/block_0"][8] <= np.log2(np.arange(1, 33)).mean()


def test_nothing_is_looked_at_unless_it_is_asked_for(finished):
    folder = finished[1].tensorboard
    names = logged(f"{folder}/validation")
    assert not [name for name in names if "entropy" in name or "kernel" in name]
    assert not list((finished[0] / "logs").rglob("*.xplane.pb"))


def test_the_profile_is_where_tensorboard_looks_for_it(watched):
    assert len(list(Path(watched.tensorboard).glob("plugins/profile/*/*.xplane.pb"))) == 1


def test_the_recipe_and_what_it_came_to_are_in_the_table_of_hyperparameters(watched, tiny):
    content = events_of(watched.tensorboard).PluginTagToContent("hparams")
    data = plugin_data_pb2.HParamsPluginData.FromString(
        content["_hparams_/session_start_info"]
    ).session_start_info.hparams
    assert data["optimizer.peak_learning_rate"].number_value == pytest.approx(1e-2)
    assert data["model.num_heads"].number_value == 2
    assert data["precision"].string_value == "float32"
    final = logged(watched.tensorboard)["final/loss"]
    assert final[tiny.steps] == pytest.approx(watched.validation_loss)


def test_the_run_folder_has_the_newest_numbers(watched):
    progress = json.loads(Path(watched.run, "progress.json").read_text())
    assert progress["step"] == progress["validation_step"] == 8
    assert progress["validation"]["perplexity"] > 1
    assert progress["tokens_per_second"] > 0


@pytest.mark.parametrize("heads", [1, 2])
def test_attention_that_does_not_choose_has_the_entropy_of_all_it_may_see(heads):
    backbone = GPTBackbone(
        vocabulary_size=9, num_layers=2, num_heads=heads, hidden_dim=4, max_sequence_length=8
    )
    model = GPTCausalLM(backbone, None)
    for block in backbone.blocks:
        block.attention.query._kernel.assign(np.zeros((4, 4)))
    inputs = {
        "token_ids": [[1, 2, 3, 4, 0]],
        "segment_ids": [[1, 1, 1, 1, 0]],  # the last one is padding and does not count
        "positions": [[0, 1, 2, 3, 0]],
    }
    batches = tf.data.Dataset.from_tensors(tf.nest.map_structure(tf.constant, (inputs, 0, 0)))
    entropy = AttentionEntropy(model, batches)
    assert entropy.layers == ["block_0", "block_1"]
    expected = np.log2([1, 2, 3, 4]).mean()
    np.testing.assert_allclose(entropy.measure(), [expected] * 2, rtol=1e-6)


def test_each_second_belongs_to_the_lap_it_was_in(monkeypatch):
    clock = iter([10.0, 11.0, 14.0, 14.5, 20.0])
    monkeypatch.setattr(laps.time, "perf_counter", lambda: next(clock))
    watch = Laps()
    watch.lap("between")
    watch.lap("step")
    watch.lap("checkpoint")
    watch.lap("step")
    assert watch.take() == {"between": 1.0, "step": 8.5, "checkpoint": 0.5}
    assert watch.take() == {}


def test_a_step_without_its_waiting_is_computing():
    split = dict(per_step({"step": 8.0, "checkpoint": 2.0, "between": 1.0}, waited=2.0, steps=4))
    assert split == {"input": 0.5, "compute": 1.5, "checkpoint": 0.5}


def test_measured_batches_are_the_same_and_their_waiting_is_noted():
    batches = tf.data.Dataset.range(3).map(lambda i: ({"a": i}, i + 1, None))
    waiting = Waiting()
    measured = list(waiting.measured(batches).as_numpy_iterator())
    assert measured == [({"a": i}, i + 1, None) for i in range(3)]
    assert waiting.take() > 0
    assert waiting.take() == 0


def test_without_a_terminal_there_is_a_line_now_and_then(monkeypatch, capsys):
    clock = iter([0.0, 10.0, 31.0, 40.0])
    monkeypatch.setattr(terminal.time, "monotonic", lambda: next(clock))
    shown = terminal.Terminal("run", steps=1000, done=100)
    for step in (101, 102, 103):
        shown.step(step, 2.5, 1234.5)
    shown.close()
    # 2 steps in 31 s, 898 to go: 13,919 s.
    assert capsys.readouterr().err.splitlines() == [
        "step 102 of 1,000: loss 2.500, 1,234 tokens/s, 3:51:59 left"
    ]


@pytest.mark.parametrize("text", ["20", "a:b", "20:25:30", "-1:3"])
def test_steps_to_profile_are_written_as_first_and_last(text):
    with pytest.raises(UserError, match=r"look like 20:25: got"):
        steps_of(text)


@pytest.mark.parametrize("steps", [(0, 3), (5, 4)])
def test_steps_to_profile_are_in_order(steps):
    with pytest.raises(UserError, match="counted from 1"):
        Watch(profile=steps)


def test_a_profile_that_a_run_ends_in_is_written(tiny, train, tmp_path):
    train(
        tiny.with_settings(["steps=2", "sample_prompts=[]"]), watch=Watch(profile=steps_of("2:9"))
    )
    assert list(tmp_path.glob("logs/plugins/profile/*/*.xplane.pb"))
