"""`fit`: what it writes, what it says, and that two replicas equal one device."""

import dataclasses
import io
import math
import re
import shutil
import subprocess
import sys

import keras
import numpy as np
import pytest
import tensorflow as tf
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tensorboard.util.tensor_util import make_ndarray

from tfllm.data import Records, prepare
from tfllm.errors import Failure, UserError
from tfllm.models import CausalLM
from tfllm.trainers import Recipe, fit, run_folder
from tfllm.trainers.schedules import WarmupCosine

LSTM = {"family": "lstm", "model": {"num_layers": 2, "hidden_dim": 16, "dropout": 0.1}}


def logged(folder):
    """{name: {step: value}} of one folder of TensorBoard's."""
    events = EventAccumulator(str(folder)).Reload()
    return {
        name: {event.step: make_ndarray(event.tensor_proto) for event in events.Tensors(name)}
        for name in events.Tags()["tensors"]
    }


def test_the_preset_is_the_model_that_was_validated(tiny, finished):
    _, result, _ = finished
    model = CausalLM.from_preset(result.preset)
    model.compile()
    batches = Records(tiny.data).batches("validation", 4, shuffle=False)
    loss = model.evaluate(batches, verbose=0, return_dict=True)["loss"]
    assert loss == pytest.approx(result.validation_loss, rel=1e-6)


def test_bits_per_byte_is_the_summed_loss_of_the_split_over_its_bytes(tiny, finished):
    _, result, _ = finished
    records = Records(tiny.data)
    nats = result.validation_loss * records.num_targets("validation")
    expected = nats / math.log(2) / records.num_bytes("validation")
    assert result.bits_per_byte == pytest.approx(expected, rel=1e-6)


@pytest.mark.parametrize("changes", [{}, LSTM], ids=["gpt", "lstm"])
def test_two_replicas_equal_one_device_with_dropout(tiny, train, changes):
    recipe = dataclasses.replace(tiny, steps=10, validate_every=10, sample_prompts=(), **changes)
    result_one, one = train(recipe, "one", strategy="one")
    result_two, two = train(recipe, "two", strategy="mirrored")
    assert len(one) == 10
    np.testing.assert_allclose(two, one, rtol=2e-6)
    assert result_two.validation_loss == pytest.approx(result_one.validation_loss, rel=2e-6)


def test_tensorboard_has_the_mean_loss_of_the_steps_between_two_points(tiny, train):
    result, losses = train(dataclasses.replace(tiny, steps=25, validate_every=25))
    steps = logged(f"{result.tensorboard}/train")
    assert list(steps["loss"]) == [10, 20, 25]
    for first, last in [(0, 10), (10, 20), (20, 25)]:
        assert steps["loss"][last] == pytest.approx(np.mean(losses[first:last]), rel=1e-6)
    assert steps["perplexity"][20] == pytest.approx(math.exp(steps["loss"][20]), rel=1e-5)
    schedule = WarmupCosine(1e-2, warmup_steps=2, steps=25, final_fraction=0.1)
    assert steps["learning_rate"][10] == pytest.approx(float(schedule(9)), rel=1e-6)
    assert min(steps["gradient_norm"].values()) > 0
    assert min(steps["tokens_per_second"].values()) > 0


def test_tensorboard_has_validations_and_what_the_model_writes(finished):
    _, result, _ = finished
    steps = logged(f"{result.tensorboard}/validation")
    assert list(steps["loss"]) == list(steps["bits_per_byte"]) == [4, 8]
    assert steps["loss"][8] < steps["loss"][4]
    capped, whole = steps["loss"][8], result.validation_loss
    assert capped != whole  # two batches of the split
    sample = steps["samples"][8][0].decode()
    assert sample.startswith("    The <b>")  # indented: Markdown that is shown as it is
    assert len(sample) > len("    The <b>")


def test_the_start_says_in_numbers_what_will_happen(tiny, train, capsys):
    train(tiny.with_settings(["steps=1"]), strategy="mirrored")
    said = capsys.readouterr().err
    assert "tiny: 11,824 weights, float32, on 2 x CPU." in said
    assert "1 steps of 4 rows x 32 = 128 tokens: 128 tokens" in said
    assert "a checkpoint every 4 steps" in said


class Terminal(io.StringIO):
    def isatty(self):
        return True


def test_a_terminal_shows_progress_with_loss_and_speed(tiny, train, monkeypatch):
    monkeypatch.setattr(sys, "stderr", Terminal())
    train(tiny.with_settings(["steps=2", "validate_every=9", "sample_prompts=[]"]))
    shown = sys.stderr.getvalue().rsplit("\r", 1)[1]
    assert re.search(r"tiny: 100%.* 2/2 .*loss=\d\.\d+, tokens_s=[\d,]+", shown)


def test_the_run_folder_has_the_recipe_it_was_trained_by(tiny, finished):
    assert Recipe.from_json((finished[0] / "run" / "recipe.json").read_text()) == tiny


def test_a_finished_run_is_not_trained_again(tiny, finished, again, tmp_path, capsys):
    result, losses = again(tiny)
    assert losses == []
    assert result.preset == str(tmp_path / "run" / "preset")
    assert result.validation_loss == finished[1].validation_loss
    assert "is finished: nothing to do" in capsys.readouterr().err


HOLDER = """
import fcntl, os, sys
fcntl.flock(os.open(sys.argv[1], os.O_RDONLY), fcntl.LOCK_EX)
print("held", flush=True)
sys.stdin.read()
"""


def test_a_run_that_another_process_has_is_left_alone_until_that_one_ends(tiny, again, tmp_path):
    writing = tmp_path / "run" / "checkpoints" / ".writing-step-00000009"
    writing.mkdir()
    holder = subprocess.Popen(
        [sys.executable, "-c", HOLDER, tmp_path / "run"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )
    assert holder.stdout.readline() == b"held\n"

    with pytest.raises(UserError, match=r"Another process trains in .*run: wait for it to end"):
        again(tiny)
    assert writing.exists()

    holder.kill()
    holder.communicate()
    shutil.rmtree(tmp_path / "run" / "preset")
    assert again(tiny)[0].steps == 8
    assert not writing.exists()


class OpenAgain(keras.callbacks.Callback):
    """Opens the run that is in training a second time, which is another holder to the system."""

    def __init__(self, run, recipe):
        super().__init__()
        self.open = run_folder.open_run(run, recipe, {})
        self.refused = False

    def on_train_end(self, *_):
        with pytest.raises(UserError, match="Another process trains in"), self.open:
            pass
        self.refused = True


def test_a_run_is_held_while_it_trains_and_let_go_at_the_end(tiny, train, tmp_path):
    second = OpenAgain(tmp_path / "run", tiny)
    train(tiny, callbacks=[second])
    assert second.refused
    assert train(tiny)[1] == []


def test_what_a_kill_left_of_a_preset_is_cleared_away(tiny, again, tmp_path):
    (tmp_path / "run" / ".preset-a1b2").mkdir()
    again(tiny)
    assert not list((tmp_path / "run").glob(".preset-*"))


def test_a_folder_below_a_file_is_refused(tiny, tmp_path):
    (tmp_path / "file").write_text("")
    for arguments in ({"run": "file/run"}, {"run": "run", "tensorboard": "file/logs"}):
        folders = {name: tmp_path / folder for name, folder in arguments.items()}
        with pytest.raises(UserError, match=r"Cannot make the folder .*file/\w+ \(Not a directory"):
            fit(tiny, **folders)


def test_a_run_goes_on_with_other_intervals_and_after_its_data_moved(tiny, again, tmp_path):
    shutil.copytree(tiny.data, tmp_path / "moved")
    changed = tiny.with_settings(["validate_every=3", "keep_checkpoints=5", "name=b"])
    assert again(changed, data=tmp_path / "moved")[0].steps == 8


@pytest.mark.parametrize(
    ("settings", "arguments", "words"),
    [
        (["global_batch=5"], {"strategy": "mirrored"}, "multiple of the 2 replicas: got 5"),
        (["data="], {}, "No data: give the folder that `tfllm prepare` wrote"),
        (["data=/nowhere"], {}, "/nowhere has no prepared data"),
        (
            ["model.num_layer=2"],
            {},
            "no 'num_layer' in the model of a recipe of the family gpt; did",
        ),
        (["model.dtype='float16'"], {}, "no 'dtype' in the model of a recipe"),
        (["family=lstm"], {}, "no 'num_heads' in the model of a recipe of the family lstm"),
        (["model={'num_layers': 1}"], {}, "cannot be made: .*missing .*'num_heads'"),
        (["model.num_heads=3"], {}, "cannot be made: .*3"),
        (["model.num_heads=0"], {}, "cannot be made: "),
    ],
)
def test_what_does_not_fit_together_is_refused_before_training(
    tiny, train, tmp_path, settings, arguments, words
):
    with pytest.raises(UserError, match=words):
        train(tiny.with_settings(settings), **arguments)
    assert not (tmp_path / "run" / "checkpoints").exists()


def test_without_held_out_text_a_run_says_so_and_measures_nothing(tiny, train, tmp_path, capsys):
    (tmp_path / "text.txt").write_text("One document only. " * 200)
    prepare(
        tmp_path / "text.txt", tmp_path / "data", vocabulary_size=300, sequence_length=32,
        validation_fraction=0.0,
    )  # fmt: skip
    result, losses = train(tiny, data=tmp_path / "data")
    assert len(losses) == tiny.steps
    assert result.validation_loss is result.bits_per_byte is None
    assert "No text is held out" in capsys.readouterr().err


def test_a_loss_that_is_no_number_stops_the_run_and_names_the_step(tiny, train, tmp_path):
    exploding = tiny.with_settings(
        ["optimizer.peak_learning_rate=1e38", "optimizer.warmup_steps=0", "checkpoint_every=1"]
    )
    with pytest.raises(Failure, match=r"is (nan|inf) at step [2-8]; the [1-7] steps"):
        train(exploding)
    for checkpoint in (tmp_path / "run" / "checkpoints").iterdir():
        reader = tf.train.load_checkpoint(str(checkpoint / "checkpoint"))
        for name in reader.get_variable_to_shape_map():
            if name.startswith("model"):
                assert np.isfinite(reader.get_tensor(name)).all()
