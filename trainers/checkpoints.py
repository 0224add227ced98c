"""Checkpoints of a run: whole or not there, so that a run killed at any moment can go on."""

import shutil
import sys
from pathlib import Path

import keras
import tensorflow as tf

from tfllm.aside import install
from tfllm.errors import Failure

_FOLDER = "step-{:08d}"
# What TensorFlow raises for a wrong checksum, a missing file, a wrong shape, a file that is too
# short, and a variable that is in the file or in the model only.
_UNREADABLE = (tf.errors.OpError, ValueError, IndexError, AssertionError)
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
        keep: How many of the newest ones stay when another is saved.
        optimizer: Whether they hold the optimizer's state too; without it they hold the weights.
    """

    def __init__(self, folder: Path, model: keras.Model, keep: int, *, optimizer: bool = True):
        self.folder = folder
        self.keep = keep
        # The state by position: the names of Keras layers depend on what else the process made.
        state = {"model": [variable.value for variable in model.variables]}
        if optimizer:
            state["optimizer"] = [variable.value for variable in model.optimizer.variables]
        self._checkpoint = tf.train.Checkpoint(**state)

    def steps(self) -> list[int]:
        """The steps of the complete checkpoints, oldest first."""
        return sorted(int(path.name.removeprefix("step-")) for path in self.folder.glob("step-*"))

    def save(self, step: int) -> None:
        """Writes the checkpoint of a step, then deletes the ones that are too old."""
        self.write(step)
        for old in self.steps()[: -self.keep]:
            self.delete(old)

    def write(self, step: int) -> None:
        """Writes the checkpoint of a step; one of that step that is there is replaced."""
        writing = self.folder / (_WRITING + _FOLDER.format(step))
        shutil.rmtree(writing, ignore_errors=True)
        writing.mkdir(parents=True)
        self._checkpoint.write(str(writing / "checkpoint"))
        self.delete(step)
        install(writing, self._path(step))

    def delete(self, step: int) -> None:
        """Deletes the checkpoint of a step, if there is one."""
        if self._path(step).exists():
            shutil.rmtree(self._path(step))

    def read(self, step: int) -> None:
        """Restores the checkpoint of a step.

        Raises:
            Failure: if it cannot be read.
        """
        reason = self._read(step)
        if reason:
            raise Failure(f"The checkpoint {self._path(step)} cannot be read: {reason}")

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
            reason = self._read(step)
            if reason:
                print(f"The checkpoint {self._path(step)} is skipped: {reason}", file=sys.stderr)
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
            self._checkpoint.read(str(self._path(step) / "checkpoint")).assert_consumed()
        except _UNREADABLE as error:
            return str(error).splitlines()[0][:200]
        return ""

    def _set_aside(self, damaged: list[Path]) -> None:
        # Else it would count among those to keep, and its step will come again.
        for path in damaged:
            aside = self.folder / (_DAMAGED + path.name)
            shutil.rmtree(aside, ignore_errors=True)
            path.rename(aside)
