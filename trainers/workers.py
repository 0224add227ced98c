"""What the processes of a run agree on: one is the chief, the others work beside it.

Every worker runs the same program, each on its part of every batch. What only one of them knows, a
signal or a checkpoint, has to become known to all before the same step, or they wait for each other
for ever. So everything here is called by all workers, at the same place of the program.
"""

import contextlib
import json
import tempfile
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import keras
import tensorflow as tf

from tfllm.errors import Failure
from tfllm.models.distributed_fit import has_several_workers

# What TensorFlow raises in the others when a worker is gone, by where they were.
_LOST = (
    tf.errors.AbortedError,
    tf.errors.CancelledError,
    tf.errors.DeadlineExceededError,
    tf.errors.InternalError,
    tf.errors.UnavailableError,
)


class Workers:
    """The worker processes of a strategy: several of `multiworker`, one of any other.

    Args:
        strategy: Of the run.

    Attributes:
        strategy: Of the run.
        is_chief: Whether this one writes the run's folder.
    """

    def __init__(self, strategy: tf.distribute.Strategy):
        self.strategy = strategy
        self._are_several = has_several_workers(strategy)
        self.is_chief = not self._are_several or strategy.extended.should_checkpoint

    def any(self, *flags: bool) -> tuple[bool, ...]:
        """Whether each flag is set on one worker or more."""
        if not self._are_several:
            return flags
        numbers = self._sums(tf.constant(flags, tf.int64), tf.constant(False))
        return tuple(bool(number) for number in numbers)

    def chiefs(self, value: Any) -> Any:
        """The chief's value, of what JSON can write. What the others give is not looked at."""
        if not self._are_several:
            return value
        content = list(json.dumps(value).encode()) if self.is_chief else []
        chief_only = tf.constant(True)
        (length,) = self._sums(tf.constant([len(content)], tf.int64), chief_only)
        content += [0] * (int(length) - len(content))
        return json.loads(
            bytes(self._sums(tf.constant(content, tf.int64), chief_only).numpy().tolist())
        )

    def take_state(self, variables: Iterable[keras.Variable]) -> None:
        """Gives every variable the chief's value."""
        if not self._are_several:
            return
        for variable in variables:
            here = tf.constant(variable.numpy())
            same = here.dtype if here.dtype.is_floating else tf.int64
            theirs = self._sums(tf.cast(here, same), tf.constant(True))
            variable.assign(tf.cast(theirs, here.dtype))

    @contextlib.contextmanager
    def folders(self, *folders: Path) -> Iterator[tuple[Path, ...]]:
        """Where this worker writes: the chief there, another one in a folder that will be removed.

        All of them save, because saving a variable may take all of them.
        """
        if self.is_chief:
            yield folders
            return
        with tempfile.TemporaryDirectory(prefix="tfllm-worker-") as own:
            yield tuple(Path(own, str(i), folder.name) for i, folder in enumerate(folders))

    @contextlib.contextmanager
    def loss_told(self) -> Iterator[None]:
        """Turns what TensorFlow raises when another worker is gone into words.

        Raises:
            Failure: saying what to do.
        """
        try:
            yield
        except _LOST as error:
            if not self._are_several:
                raise
            said = [line for line in str(error).splitlines() if "Collective ops" in line]
            reason = (said or [str(error)])[0].rpartition("}} ")[2][:200]
            raise Failure(
                f"Another worker of this run is gone ({reason}). Start all workers again: they go "
                "on from the newest checkpoint."
            ) from error

    @tf.function(autograph=False, reduce_retracing=True)
    def _sums(self, numbers, chief_only):
        """The sum over the first replicas of the workers, or of the chief alone."""

        def summed(numbers):
            context = tf.distribute.get_replica_context()
            counts = ~chief_only | (context.replica_id_in_sync_group == 0)
            mine = tf.where(counts, numbers, tf.zeros_like(numbers))
            return context.all_reduce(tf.distribute.ReduceOp.SUM, mine)

        results = self.strategy.run(summed, args=(numbers,))
        return self.strategy.experimental_local_results(results)[0]
