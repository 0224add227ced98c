"""A run that is killed or asked to stop goes on and ends with the weights of one that was not."""

import contextlib
import dataclasses
import functools
import json
import os
import signal
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor

import keras
import numpy as np
import pytest
import tensorflow as tf

LSTM = {"family": "lstm", "model": {"num_layers": 2, "hidden_dim": 16, "dropout": 0.1}}

# Trains by the recipe of the first argument and kills itself at the event of Python of the second,
# one whose arguments end with the third.
KILLED_RUN = """
import os, signal, sys

def kill(event, arguments):
    if event == sys.argv[2] and any(str(a).endswith(sys.argv[3]) for a in arguments):
        os.kill(os.getpid(), signal.SIGKILL)

from tfllm.trainers import fit, load_recipe

sys.addaudithook(kill)
fit(load_recipe(sys.argv[1]), run="killed/run", tensorboard="killed/logs")
"""
# Moments of the run, in their order, and the checkpoints that are then there.
MOMENTS = [
    ("os.mkdir", ".writing-step-00000004", []),
    ("open", ".writing-step-00000004/checkpoint.index", [".writing-step-00000004"]),
    ("os.rename", "checkpoints/step-00000004", [".writing-step-00000004"]),
    ("shutil.rmtree", "checkpoints/step-00000004", ["step-00000004", "step-00000008"]),
]


class Crash(Exception):
    pass


def crash():
    raise Crash


def last_state(run):
    """{key: tensor} of the newest checkpoint: weights, moments and step."""
    newest = max((run / "run" / "checkpoints").glob("step-*"))
    reader = tf.train.load_checkpoint(str(newest / "checkpoint"))
    names = [name for name in reader.get_variable_to_shape_map() if name[0] != "_"]
    return {name: reader.get_tensor(name) for name in names}


def assert_equal_to_the_bit(run, other):
    ours, theirs = last_state(run), last_state(other)
    assert ours.keys() == theirs.keys()
    assert max(state.size for state in ours.values()) > 1000
    for name, state in ours.items():
        np.testing.assert_array_equal(state, theirs[name], err_msg=name)


@pytest.mark.slow
def test_a_run_killed_by_sigkill_while_it_saves_ends_with_the_weights_of_one_that_was_not(
    tiny, train, tmp_path
):
    recipe = dataclasses.replace(
        tiny, steps=10, microbatches=2, ema=0.9, precision="bfloat16", keep_checkpoints=1
    )
    (tmp_path / "recipe.json").write_text(json.dumps(dataclasses.asdict(recipe)))
    for event, path, there in MOMENTS:
        killed = subprocess.run(
            [sys.executable, "-c", KILLED_RUN, "recipe.json", event, path],
            cwd=tmp_path,
            capture_output=True,
            text=True,
            check=False,
        )
        assert killed.returncode == -signal.SIGKILL, killed.stderr
        checkpoints = tmp_path / "killed/run/checkpoints"
        assert sorted(found.name for found in checkpoints.glob("*")) == there

    _, resumed = train(recipe, "killed")
    _, uninterrupted = train(recipe, "whole")
    assert resumed == uninterrupted[8:]
    assert_equal_to_the_bit(tmp_path / "killed", tmp_path / "whole")


@pytest.mark.slow
def test_an_lstm_that_goes_on_ends_with_the_weights_of_one_that_ran_through(tiny, train, tmp_path):
    recipe = dataclasses.replace(tiny, **LSTM)
    with pytest.raises(Crash):
        train(recipe, "killed", callbacks=[At(7, after=crash)])
    _, resumed = train(recipe, "killed")
    _, uninterrupted = train(recipe, "whole")
    assert resumed == uninterrupted[4:]
    assert_equal_to_the_bit(tmp_path / "killed", tmp_path / "whole")


def test_a_run_goes_on_with_another_number_of_replicas(tiny, train, finished):
    losses = []
    for strategy, step in (("one", 3), ("mirrored", 2), ("one", 0)):
        with pytest.raises(SystemExit) if step else contextlib.nullcontext():
            train(tiny, strategy=strategy, callbacks=[Keep(losses), At(step, during=ask_to_stop)])
    np.testing.assert_allclose(losses, finished[2], rtol=2e-6)


class At(keras.callbacks.Callback):
    """Does something while a step runs, or when it is done."""

    def __init__(self, step, *, during=None, after=None):
        super().__init__()
        self.step, self.during, self.after = step, during, after

    def on_train_batch_begin(self, batch, **_):
        if batch + 1 == self.step and self.during:
            self.during()

    def on_train_batch_end(self, batch, **_):
        if batch + 1 == self.step and self.after:
            self.after()


class Keep(keras.callbacks.Callback):
    """Adds each step's loss to a list."""

    def __init__(self, losses):
        super().__init__()
        self.losses = losses

    def on_train_batch_end(self, _, logs=None):
        self.losses.append(logs["loss"])


def ask_to_stop(number=signal.SIGTERM):
    os.kill(os.getpid(), number)


def test_sigterm_finishes_the_step_saves_it_and_exits_with_143(
    tiny, train, finished, tmp_path, capsys
):
    with pytest.raises(SystemExit) as stopped:
        train(tiny, callbacks=[At(3, during=ask_to_stop)])
    assert stopped.value.code == 143
    assert "Stopped after step 3" in capsys.readouterr().err
    assert not (tmp_path / "run" / "preset").exists()
    assert signal.getsignal(signal.SIGTERM) == signal.SIG_DFL

    _, resumed = train(tiny)
    assert len(resumed) == 5
    assert "Goes on after step 3" in capsys.readouterr().err
    assert_equal_to_the_bit(tmp_path, finished[0])


def test_another_sigterm_while_it_saves_changes_nothing(tiny, train):
    again = [At(2, during=ask_to_stop), At(2, during=ask_to_stop), At(2, after=ask_to_stop)]
    with pytest.raises(SystemExit) as stopped:
        train(tiny, callbacks=again)
    assert stopped.value.code == 143
    _, resumed = train(tiny)
    assert len(resumed) == 6


def test_ctrl_c_saves_too_and_a_second_one_ends_at_once(tiny, train):
    interrupt = functools.partial(ask_to_stop, signal.SIGINT)
    before = signal.getsignal(signal.SIGINT)
    with pytest.raises(SystemExit) as stopped:
        train(tiny, callbacks=[At(2, during=interrupt)])
    assert stopped.value.code == 130
    with pytest.raises(KeyboardInterrupt):
        train(tiny, callbacks=[At(1, during=interrupt), At(1, during=interrupt)])
    assert signal.getsignal(signal.SIGINT) == before
    _, resumed = train(tiny)
    assert len(resumed) == 6


def test_a_run_goes_on_from_the_checkpoint_before_a_damaged_one(tiny, train, finished, tmp_path):
    with pytest.raises(SystemExit):
        train(tiny, callbacks=[At(7, during=ask_to_stop)])
    (tmp_path / "run/checkpoints/step-00000007/checkpoint.index").write_bytes(b"")
    _, resumed = train(tiny)
    assert len(resumed) == 4
    assert_equal_to_the_bit(tmp_path, finished[0])


def test_a_run_that_ended_between_its_last_step_and_the_preset_only_writes_the_preset(
    tiny, train, finished
):
    with pytest.raises(Crash):
        train(tiny, callbacks=[At(8, after=crash)])
    result, resumed = train(tiny)
    assert resumed == []
    assert result.validation_loss == finished[1].validation_loss


def test_a_callback_of_the_user_may_end_a_run_early(tiny, train):
    stop = At(3, after=lambda: setattr(stop.model, "stop_training", True))
    result, losses = train(tiny, callbacks=[stop])
    assert result.steps == len(losses) == 3


def test_outside_the_main_thread_a_run_leaves_sigterm_alone(tiny, train):
    with ThreadPoolExecutor() as pool:
        result, _ = pool.submit(train, tiny.with_settings(["steps=1", "validate_every=5"])).result()
    assert result.steps == 1
