"""Checkpoints of a run: whole or not there, so that a run killed at any moment can go on."""

import functools
import shutil
from collections.abc import Callable
from pathlib import Path

import keras
import tensorflow as tf

from tfllm.aside import install
from tfllm.errors import Failure
from tfllm.trainers.saying import reason, say

_FOLDER = "step-{:08d}"
# What TensorFlow raises for a wrong checksum, a missing file, a wrong shape, a file that is too
# short, and a variable that is in the file or in the model only.
_UNREADABLE = (tf.errors.OpError, ValueError, IndexError, AssertionError)
# What a disk that is full, a quota, or a disk that fails raise while a checkpoint is written.
UNWRITABLE = (OSError, tf.errors.OpError)
# Prefixes of folders that are not complete, and of those that cannot be read.
_WRITING = ".writing-"
_DAMAGED = "damaged-"


class Checkpoints:
    """The checkpoints of one run: weights, optimizer state and step.

    A checkpoint is written into a hidden folder, synced to the disk, and renamed to
    `step-00000200`: a folder of that name is complete. TensorFlow keeps a checksum of every
    tensor, so a folder that was damaged later is noticed when it is read. One process at a time
    may have them: `open_run` sees to it.

    Nothing else needs to be saved: the data and the dropout of a step are functions of the step.

    Args:
        folder: Where the checkpoints are; made when the first one is saved.
        model: A built model, compiled with a built optimizer.
        keep: How many of the newest ones stay when another is saved; 0 = all.
        optimizer: Whether they hold the optimizer's state too; without it they hold the weights.
    """

    def __init__(self, folder: Path, model: keras.Model, keep: int, *, optimizer: bool = True):
        self.folder = folder
        self.keep = keep
        # The state by position: the names of Keras layers depend on what else the process made.
        self._state = {"model": [variable.value for variable in model.variables]}
        if optimizer:
            self._state["optimizer"] = [variable.value for variable in model.optimizer.variables]

    def steps(self) -> list[int]:
        """The steps of the complete checkpoints, oldest first."""
        return sorted(int(path.name.removeprefix("step-")) for path in self.folder.glob("step-*"))

    def save(self, step: int) -> None:
        """Writes the checkpoint of a step; one of that step that is there is replaced.

        Then deletes the ones that are too old.

        Raises:
            OSError, tf.errors.OpError: as on a full disk (`UNWRITABLE`). The older ones stay.
        """
        self.snapshot(step)()

    def snapshot(self, step: int) -> Callable[[], None]:
        """Copies the state of the model as it is now.

        Returns:
            What `save` does, with that state: to be called once, from any thread, while the model
            is trained on. Its copy is in the memory of the host until then.
        """
        # On a CPU a variable shares its memory with what was read of it, and is copied when it is
        # next assigned: so the wait is in the step that follows.
        with tf.device("CPU:0"):
            state = {part: [tf.identity(v) for v in held] for part, held in self._state.items()}
        return functools.partial(self._save, step, state)

    def _save(self, step, state):
        writing = self.folder / (_WRITING + _FOLDER.format(step))
        shutil.rmtree(writing, ignore_errors=True)
        writing.mkdir(parents=True)
        try:
            with tf.device("CPU:0"):
                copies = {part: [tf.Variable(v) for v in held] for part, held in state.items()}
            tf.train.Checkpoint(**copies).write(str(writing / "checkpoint"))
            self.delete(step)
            install(writing, self._path(step))
        finally:  # what is half written would take room that the next one needs
            shutil.rmtree(writing, ignore_errors=True)
        if self.keep:
            for old in self.steps()[: -self.keep]:
                self.delete(old)

    def delete(self, step: int) -> None:
        """Deletes the checkpoint of a step, if there is one."""
        if self._path(step).exists():
            shutil.rmtree(self._path(step))

    def read(self, step: int) -> None:
        """Restores the checkpoint of a step.

        Raises:
            Failure: if it cannot be read.
        """
        if why := self._read(step):
            raise Failure(f"The checkpoint {self._path(step)} cannot be read: {why}")

    def restore(self) -> int:
        """Restores the newest checkpoint that can be read; newer ones are set aside.

        Returns:
            Its step, or 0 if there is none and the model starts from its first weights.

        Raises:
            Failure: if there are checkpoints and none can be read.
        """
        for stray in self.folder.glob(_WRITING + "*"):
            shutil.rmtree(stray)
        damaged = []
        for step in reversed(self.steps()):
            if why := self._read(step):
                say(f"The checkpoint {self._path(step)} is skipped: {why}")
                damaged.append(self._path(step))
            else:
                self._set_aside(damaged)
                return step
        if damaged:
            raise Failure(
                f"None of the checkpoints in {self.folder} can be read. "
                "To begin again, delete that folder."
            )
        return 0

    def _path(self, step: int) -> Path:
        return self.folder / _FOLDER.format(step)

    def _read(self, step: int) -> str:
        """Restores the checkpoint of a step. Returns why it could not, or ""."""
        try:
            checkpoint = tf.train.Checkpoint(**self._state)
            checkpoint.read(str(self._path(step) / "checkpoint")).assert_consumed()
        except _UNREADABLE as error:
            return reason(error)
        return ""

    def _set_aside(self, damaged: list[Path]) -> None:
        # Else it would count among those to keep, and its step will come again.
        for path in damaged:
            aside = self.folder / (_DAMAGED + path.name)
            shutil.rmtree(aside, ignore_errors=True)
            path.rename(aside)
