"""A disk that is full for a while, or to the end: the run goes on, and loses nothing it had."""

import contextlib

import keras
import numpy as np
import pytest
import tensorflow as tf
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from tfllm.errors import Failure
from tfllm.trainers.event_file import EventFile


class Full(keras.callbacks.Callback):
    """From the end of one step to the end of another, no file can be written."""

    def __init__(self, begin, end, files_of_at_most):
        super().__init__()
        self.begin, self.end = begin, end
        self.files_of_at_most = files_of_at_most
        self.stack = contextlib.ExitStack()

    def on_train_batch_end(self, *_, **__):
        step = int(self.model.optimizer.iterations.numpy())
        if step == self.begin:
            self.stack.enter_context(self.files_of_at_most(0))
        if step == self.end:
            self.stack.close()


@pytest.fixture
def recipe(tiny):
    return tiny.with_settings(["checkpoint_every=2", "validate_every=2", "sample_prompts=[]"])


def checkpoints(folder):
    return sorted(path.name for path in (folder / "run" / "checkpoints").iterdir())


def test_a_run_goes_on_without_room_and_saves_when_there_is_some(
    recipe, train, finished, tmp_path, files_of_at_most, capsys
):
    _, losses = train(recipe, callbacks=[Full(3, 7, files_of_at_most)])
    assert losses == finished[2]
    assert checkpoints(tmp_path) == ["step-00000002", "step-00000008"]
    said = capsys.readouterr().err
    for step in (4, 6):
        assert f"The checkpoint of step {step} was not written to " in said
    assert "File too large); that of step 2 is there. Make room on that disk: the run goes" in said
    assert said.count("TensorBoard's files in ") == 1  # of the validations; there are ten steps


def test_without_room_at_the_end_the_run_fails_and_goes_on_from_what_it_had(
    recipe, train, finished, tmp_path, files_of_at_most
):
    full = Full(5, None, files_of_at_most)
    with full.stack, pytest.raises(Failure, match=r"step 8 was not written .*that of step 4 is"):
        train(recipe, callbacks=[full])
    assert checkpoints(tmp_path) == ["step-00000002", "step-00000004"]
    assert not (tmp_path / "run" / "preset").exists()
    _, rest = train(recipe)
    assert rest == finished[2][4:]


def test_best_weights_that_cannot_be_written_end_the_run_before_a_checkpoint_forgets_them(
    recipe, train, tmp_path, files_of_at_most
):
    patient = recipe.with_settings(["patience=9", "steps=20"])
    full = Full(5, None, files_of_at_most)
    with full.stack, pytest.raises(Failure, match=r"weights of step \d+ .*cannot be written"):
        train(patient, callbacks=[full])
    assert checkpoints(tmp_path) == ["step-00000002", "step-00000004"]
    assert train(patient)[0].steps == 20


def points(folder):
    events = EventAccumulator(str(folder), size_guidance={"tensors": 0}).Reload()
    return [event.step for event in events.Tensors("loss")]


def test_tensorboard_reads_what_comes_after_a_full_disk(tmp_path, files_of_at_most, capsys):
    events = EventFile(tmp_path)

    def write(step):
        with events.at(step):
            tf.summary.scalar("loss", np.float32(step))

    write(1)
    with files_of_at_most((next(tmp_path.iterdir())).stat().st_size + 20):
        for step in range(2, 6):
            write(step)
    for step in range(6, 40):
        write(step)
    assert points(tmp_path) == [1, *range(13, 40)]  # ten points after the one that failed
    assert capsys.readouterr().err.count("cannot be written (") == 1
