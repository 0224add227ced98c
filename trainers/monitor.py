"""A run's numbers: measured at each step, in TensorBoard, on the terminal and in the run's folder.

Keras reads the loss of each step from the device before it calls the callbacks, so looking at it
costs nothing more. Norms are computed on the device, and only now and then.
"""

import contextlib
import re
import time
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

import keras
import tensorflow as tf

from tfllm.trainers import run_folder
from tfllm.trainers.event_file import EventFile
from tfllm.trainers.feed import Feed, Size
from tfllm.trainers.laps import Laps, Waiting, per_step
from tfllm.trainers.recipe import Recipe
from tfllm.trainers.terminal import Terminal
from tfllm.trainers.validation import Validation

LOG_EVERY = 10  # steps between two points in TensorBoard; the loss is their mean
NORMS_EVERY = 50  # of each layer
PROGRESS_EVERY_S = 10.0

# The layer that a weight belongs to, in its path: block_3, lstm/forward_0, token_embedding.
_GROUP = re.compile(r"(?:[^/]+/)?[^/]*_\d+(?=/)|[^/]+")


def steps_done(model: keras.Model) -> int:
    """The optimizer steps that a model has made, over all the processes of its run."""
    return int(model.optimizer.iterations.numpy())


class Compute(NamedTuple):
    """What a step computes, and what there is to compute it.

    Attributes:
        flops: Of a step of each kind, see `model_flops` and `Feed.kinds`; None if not known.
        peak_flops: Operations per second of all devices of the run at most; None if not known.
    """

    flops: list[int] | None
    peak_flops: float | None

    def utilisation(self, kinds: Iterable[int], seconds: float) -> dict[str, float]:
        """{"mfu": share of the peak that the model's own operations are}, if that is known.

        Args:
            kinds: Of steps.
            seconds: That these took together.
        """
        if not self.flops or not self.peak_flops:
            return {}
        return {"mfu": sum(self.flops[kind] for kind in kinds) / seconds / self.peak_flops}


class Monitor(keras.callbacks.Callback):
    """Measures each step; shows it, and writes scalars for TensorBoard and `progress.json`.

    Args:
        recipe: The run's recipe.
        validation: What says more of a loss.
        feed: What the steps are made of.
        schedule: The learning rate as a function of the steps already done.
        folder: Where TensorBoard's files go.
        run: The run's folder.
        compute: For the utilisation.
        laps: Where the other callbacks' time is.
        waiting: Measures the input.

    Attributes:
        tokens_per_second: Trained on per second, padding left out (see `Size.counted`), over all
            replicas, without the first step (which compiles), validation and checkpoints.
        terminal: Where lines for people go, once the training has begun.
    """

    def __init__(  # noqa: PLR0913
        self,
        recipe: Recipe,
        validation: Validation,
        feed: Feed,
        schedule,
        folder: Path,
        run: Path,
        compute: Compute,
        laps: Laps,
        waiting: Waiting,
    ):
        super().__init__()
        self.recipe = recipe
        self.validation = validation
        self.schedule = schedule
        self.run = run
        self.compute = compute
        self.laps = laps
        self.waiting = waiting
        self.feed = feed
        self.tokens_per_second = 0.0
        self._events = EventFile(folder / "train")
        self._losses: list[float] = []  # since the last point
        self._sizes: list[Size] = []  # of these steps
        self._timed_tokens = 0.0
        self._timed_s = 0.0
        self._timed_since = 0  # steps of the laps
        self._progress: dict = {}
        self._wrote_progress = time.monotonic()
        self._norms = tf.function(self._norms_of_groups, autograph=False)

    def on_train_begin(self, *_):
        self.terminal = Terminal(self.recipe.name, self.recipe.steps, steps_done(self.model))

    def on_train_batch_begin(self, *_, **__):
        # Keras reports the mean of the epoch so far: emptied, it is the step's own loss.
        self.model.reset_metrics()
        self.laps.lap("between")
        self._step_began = time.perf_counter()

    def on_train_batch_end(self, batch, logs=None):
        self.laps.lap("step")
        step = steps_done(self.model)
        size = self.feed.size(step - 1)
        self._sizes.append(size)
        if batch > 0:
            self._timed_s += time.perf_counter() - self._step_began
            self._timed_tokens += size.counted()
            self._timed_since += 1
            self.tokens_per_second = self._timed_tokens / self._timed_s
        else:
            self.laps.take()
            self.waiting.take()
        self._losses.append(logs["loss"])
        self.terminal.step(step, logs["loss"], self.tokens_per_second)
        if step % LOG_EVERY == 0 or step == self.recipe.steps:
            self._log(step)

    def _log(self, step):
        mean_loss = sum(self._losses) / len(self._losses)
        self._losses.clear()
        scalars = self.validation.describe({"loss": mean_loss}, "train") | {
            "learning_rate": float(self.schedule(step - 1)),
            "gradient_norm": float(self.model.optimizer.gradient_norm.numpy()),
        }
        if self._timed_since:
            laps = self.laps.take()
            timed = self._sizes[-self._timed_since :]
            scalars["tokens_per_second"] = sum(s.counted() for s in timed) / laps["step"]
            scalars |= self.compute.utilisation((size.kind for size in timed), laps["step"])
            seconds = per_step(laps, self.waiting.take(), self._timed_since)
            scalars |= {f"seconds/{name}": value for name, value in seconds}
            self._timed_since = 0
        filled = [size.tokens for size in self._sizes if size.tokens is not None]
        if filled:
            scalars["packing_efficiency"] = sum(filled) / sum(s.positions for s in self._sizes)
        self._sizes.clear()
        self._progress |= scalars | {"step": step}
        if step % NORMS_EVERY == 0 or step == self.recipe.steps:
            scalars = scalars | self._norms_by_name()
        with self._events.at(step):
            for name, value in scalars.items():
                tf.summary.scalar(name, value)
        if time.monotonic() - self._wrote_progress > PROGRESS_EVERY_S:
            self.write_progress()

    def _norms_by_name(self):
        norms = dict(zip(("gradient", "update"), self._norms().numpy(), strict=True))
        return {
            f"{kind}_norm/{group}": norm
            for kind, of_groups in norms.items()
            for group, norm in zip(self._groups(), of_groups, strict=True)
        }

    def _groups(self):
        return list(dict.fromkeys(group_of(v.path) for v in self.model.trainable_variables))

    def _norms_of_groups(self):
        """float32[2, groups], of the gradient and of the update."""
        groups, optimizer = self._groups(), self.model.optimizer
        place = [groups.index(group_of(v.path)) for v in self.model.trainable_variables]
        norms = tf.stack([optimizer.gradient_norms.value, optimizer.update_norms()], axis=1)
        squares = tf.math.unsorted_segment_sum(norms**2, place, len(groups))
        return tf.transpose(tf.sqrt(squares))

    def validated(self, step: int, reached: dict[str, float]) -> None:
        """Shows a validation, and keeps it in the run's folder."""
        self.terminal.validated(step, reached)
        self._progress |= {"validation": reached, "validation_step": step}
        self.write_progress()

    def write_progress(self) -> None:
        """Writes the newest numbers to the run's folder, for `tfllm runs`.

        On a full disk the older ones stay; the checkpoints speak of it.
        """
        with contextlib.suppress(OSError):
            run_folder.write_json(self.run / run_folder.PROGRESS, self._progress)
        self._wrote_progress = time.monotonic()

    def on_train_end(self, *_):
        self.terminal.close()
        self.write_progress()


def group_of(path: str) -> str:
    """The layer of the model that a weight is counted with, of its path."""
    found = _GROUP.match(path)
    assert found, path
    return found[0]
