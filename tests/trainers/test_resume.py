"""A run that is killed or asked to stop goes on and ends with the weights of one that was not."""

import dataclasses
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

# Trains by the recipe of the first argument and kills itself after the step of the second.
KILLED_RUN = """
import os, signal, sys
import keras
from tfllm.trainers import fit, load_recipe

class Kill(keras.callbacks.Callback):
    def on_train_batch_end(self, batch, logs=None):
        if self.model.optimizer.iterations.numpy() == int(sys.argv[2]):
            os.kill(os.getpid(), signal.SIGKILL)

fit(load_recipe(sys.argv[1]), run=sys.argv[3], tensorboard=sys.argv[4], callbacks=[Kill()])
"""


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


@pytest.mark.parametrize("changes", [{}, LSTM], ids=["gpt", "lstm"])
def test_a_run_killed_by_sigkill_ends_with_the_weights_of_one_that_was_not(
    tiny, train, tmp_path, changes
):
    recipe = dataclasses.replace(tiny, steps=10, **changes)
    (tmp_path / "recipe.json").write_text(json.dumps(dataclasses.asdict(recipe)))
    killed = subprocess.run(
        [sys.executable, "-c", KILLED_RUN, "recipe.json", "7", "killed/run", "killed/logs"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert killed.returncode == -signal.SIGKILL, killed.stderr
    assert [path.name for path in (tmp_path / "killed/run/checkpoints").iterdir()] == [
        "step-00000004"
    ]

    _, resumed = train(recipe, "killed")
    _, uninterrupted = train(recipe, "whole")
    assert resumed == uninterrupted[4:]
    assert_equal_to_the_bit(tmp_path / "killed", tmp_path / "whole")


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


def ask_to_stop():
    os.kill(os.getpid(), signal.SIGTERM)


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


def test_a_run_goes_on_from_the_checkpoint_before_a_damaged_one(tiny, train, finished, tmp_path):
    with pytest.raises(SystemExit):
        train(tiny, callbacks=[At(7, during=ask_to_stop)])
    (tmp_path / "run/checkpoints/step-00000007/checkpoint.index").write_bytes(b"")
    _, resumed = train(tiny)
    assert len(resumed) == 4
    assert_equal_to_the_bit(tmp_path, finished[0])


class Crash(Exception):
    pass


def crash():
    raise Crash


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
