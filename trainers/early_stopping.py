"""The weights that validated best, and when to stop looking for better ones."""

import json
import math
from pathlib import Path

import keras

from tfllm.trainers.checkpoints import Checkpoints
from tfllm.trainers.run_folder import write_json

_LOSSES = "validations.json"


class BestWeights:
    """The weights of the validation with the lowest loss, kept beside a run's checkpoints.

    All that it knows is in its folder: the loss of each validation, and the weights of the best
    one. A run that goes on from a checkpoint asks what was best up to that step: so weights stay as
    long as they are the best ones of any checkpoint that is kept.

    Args:
        folder: Where they are; made when there are some.
        model: The run's model. What its weights are when `record` is called, is what is kept.
        checkpoints: Of the run.
        patience: Validations in a row without a new lowest loss, after which a run is over.
    """

    def __init__(self, folder: Path, model: keras.Model, checkpoints: Checkpoints, patience: int):
        self.folder = folder
        self.patience = patience
        self._checkpoints = checkpoints
        self._weights = Checkpoints(folder, model, keep=0, optimizer=False)

    def record(self, step: int, loss: float) -> None:
        """Takes in a validation, and the weights if it is the best one so far.

        Args:
            step: The optimizer steps done. What is known of later ones is forgotten: they belong to
                a process that was killed, and come again.
            loss: Lower is better.
        """
        losses = self._losses(step - 1) | {step: loss}
        if _best(losses) == step:
            self._weights.write(step)
        # The weights first: a kill between the two leaves some that nobody asks for.
        write_json(self.folder / _LOSSES, {str(at): value for at, value in losses.items()})
        wanted = {self.step(at) for at in (step, *self._checkpoints.steps())}
        for other in set(self._weights.steps()) - wanted:
            self._weights.delete(other)

    def step(self, until: int) -> int | None:
        """The step of the best validation up to a step; None if there was none."""
        return _best(self._losses(until))

    def is_over(self, until: int) -> bool:
        """Whether the last `patience` validations up to a step were no better than one before."""
        losses = self._losses(until)
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

    def _losses(self, until: int) -> dict[int, float]:
        path = self.folder / _LOSSES
        if not path.exists():
            return {}
        losses = json.loads(path.read_text(encoding="utf-8"))
        return {int(step): loss for step, loss in losses.items() if int(step) <= until}


def _best(losses: dict[int, float]) -> int | None:
    """The first step of the lowest loss; what is no number is higher than any."""
    return min(
        losses,
        key=lambda step: (math.isnan(losses[step]), losses[step], step),
        default=None,
    )
