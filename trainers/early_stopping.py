"""The weights that validated best, and when to stop looking for better ones."""

import functools
import json
import math
from pathlib import Path

import keras

from tfllm.errors import Failure
from tfllm.trainers.checkpoints import UNWRITABLE, Checkpoints
from tfllm.trainers.run_folder import write_json
from tfllm.trainers.saying import reason
from tfllm.trainers.writing import Writer

_LOSSES = "validations.json"


class BestWeights:
    """The weights of the validation with the lowest loss, kept beside a run's checkpoints.

    All that it knows comes into its folder: the loss of each validation, and the weights of the
    best one. The same writer writes the run's checkpoints, so a checkpoint is never there before
    the validations up to its step. A run that goes on from a checkpoint asks what was best up to
    that step: so weights stay as long as they are the best ones of any checkpoint that is kept.

    Args:
        folder: Where they are; made when there are some.
        model: The run's model. What its weights are when `record` is called, is what is kept.
        checkpoints: Of the run.
        patience: Validations in a row without a new lowest loss, after which a run is over.
        writer: Writes them, and the run's checkpoints.
    """

    def __init__(
        self,
        folder: Path,
        model: keras.Model,
        checkpoints: Checkpoints,
        patience: int,
        writer: Writer,
    ):
        self.folder = folder
        self.patience = patience
        self._checkpoints = checkpoints
        self._weights = Checkpoints(folder, model, keep=0, optimizer=False)
        self._writer = writer
        self._losses = _read(folder / _LOSSES)

    def record(self, step: int, loss: float) -> None:
        """Takes in a validation, and the weights if it is the best one so far.

        Args:
            step: The optimizer steps done. What is known of later ones is forgotten: they belong to
                a process that was killed, and come again.
            loss: Lower is better.

        Raises:
            Failure: if those of an earlier one could not be written. A run that went on would lose
                the best weights.
        """
        self._losses = _until(step - 1, self._losses) | {step: loss}
        write = self._weights.snapshot(step) if _best(self._losses) == step else None
        self._writer.add(functools.partial(self._record, step, self._losses, write))

    def _record(self, step, losses, write_weights):
        try:
            if write_weights:
                write_weights()
            # The weights first: a kill between the two leaves some that nobody asks for.
            write_json(self.folder / _LOSSES, {str(at): value for at, value in losses.items()})
        except UNWRITABLE as error:
            raise Failure(
                f"The best weights of step {step:,} cannot be written to {self.folder} "
                f"({reason(error)}). Make room on that disk; the same call goes on from the newest "
                "checkpoint."
            ) from error
        wanted = {_best(_until(at, losses)) for at in (step, *self._checkpoints.steps())}
        for other in set(self._weights.steps()) - wanted:
            self._weights.delete(other)

    def step(self, until: int) -> int | None:
        """The step of the best validation up to a step; None if there was none."""
        return _best(_until(until, self._losses))

    def is_over(self, until: int) -> bool:
        """Whether the last `patience` validations up to a step were no better than one before."""
        losses = _until(until, self._losses)
        best = _best(losses)
        return best is not None and sum(step > best for step in losses) >= self.patience

    def restore(self, until: int) -> int:
        """Gives the model the best weights up to a step; without a validation it keeps its own.

        Returns:
            Their step.

        Raises:
            Failure: if they cannot be read.
        """
        step = self.step(until)
        if step is None:
            return until
        self._weights.read(step)
        return step


def _read(path: Path) -> dict[int, float]:
    if not path.exists():
        return {}
    return {int(at): loss for at, loss in json.loads(path.read_text(encoding="utf-8")).items()}


def _until(until: int, losses: dict[int, float]) -> dict[int, float]:
    return {step: loss for step, loss in losses.items() if step <= until}


def _best(losses: dict[int, float]) -> int | None:
    """The first step of the lowest loss; what is no number is higher than any."""
    return min(
        losses,
        key=lambda step: (math.isnan(losses[step]), losses[step], step),
        default=None,
    )
