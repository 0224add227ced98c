"""Where the time of a run goes: a stopwatch with laps, and how long a step waits for its batch."""

import collections
import time
from collections.abc import Iterator

import keras
import tensorflow as tf


class Laps:
    """A stopwatch whose every second belongs to the lap that it was in.

    Attributes:
        seconds: By the name of a lap, since they were taken last.
    """

    def __init__(self):
        self.seconds: collections.defaultdict[str, float] = collections.defaultdict(float)
        self._began = time.perf_counter()

    def lap(self, name: str) -> None:
        """Ends a lap, and begins the next one."""
        now = time.perf_counter()
        self.seconds[name] += now - self._began
        self._began = now

    def take(self) -> dict[str, float]:
        """The seconds so far, which are counted from 0 again."""
        taken = dict(self.seconds)
        self.seconds.clear()
        return taken


class Lap(keras.callbacks.Callback):
    """Behind a callback in the list of `fit`: what that one took at the end of a step."""

    def __init__(self, laps: Laps, name: str):
        super().__init__()
        self.laps = laps
        self.name = name

    def on_train_batch_end(self, *_, **__):
        self.laps.lap(self.name)


class Waiting:
    """Measures how long each next batch is waited for.

    On one device that is what the input adds to a step. Under a strategy the devices fetch the
    next batch while they compute, and it may be more than what the step waits.

    Attributes:
        seconds: Waited so far.
    """

    def __init__(self):
        self.seconds = 0.0

    def measured(self, batches: tf.data.Dataset) -> tf.data.Dataset:
        """The same batches, with a look at the clock before and behind each."""
        clock = tf.data.Dataset.counter().map(lambda _: tf.timestamp())

        @tf.autograph.experimental.do_not_convert
        def note(asked, batch, came):
            with tf.control_dependencies([tf.numpy_function(self._add, [came - asked], [])]):
                return tf.nest.map_structure(
                    lambda tensor: None if tensor is None else tf.identity(tensor), batch
                )

        # TensorFlow asks the parts of a zip one after the other. A prefetch that it would put
        # behind them waits for batches that nobody asked for yet.
        options = tf.data.Options()
        options.experimental_optimization.inject_prefetch = False
        return tf.data.Dataset.zip(clock, batches, clock).map(note).with_options(options)

    def _add(self, seconds) -> None:
        self.seconds += float(seconds)

    def take(self) -> float:
        """The seconds so far, which are counted from 0 again."""
        taken, self.seconds = self.seconds, 0.0
        return taken


def per_step(laps: dict[str, float], waited: float, steps: int) -> Iterator[tuple[str, float]]:
    """Seconds of an average step, by what they went into.

    Args:
        laps: Of `Laps`; `step` is the whole of the steps, with the input.
        waited: Of them for batches.
        steps: How many.
    """
    yield "input", min(waited, laps["step"]) / steps
    yield "compute", max(0.0, laps["step"] - waited) / steps
    for name in ("validation", "checkpoint"):
        if name in laps:
            yield name, laps[name] / steps
