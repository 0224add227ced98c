"""Dropout that is a pure function of the training step.

Keras keeps a random state that no checkpoint restores and that replicas share, so a resumed run
and a run on two devices drop other units than the run they should equal. Here the n-th draw of
step s is seeded by (seed, s, n), and a replica draws the rows that it has in the global batch.
"""

import contextlib
import math
import threading
from collections.abc import Iterator

import keras
import tensorflow as tf

_scope = threading.local()  # MirroredStrategy traces each replica in a thread of its own

_PHILOX = 1  # the algorithm's number in StatelessRandomUniformV2
_WORDS_PER_COUNT = 4  # one Philox counter yields four 32-bit numbers


class _Step:
    def __init__(self, step, seed: int, rows):
        self.seed = tf.stack([tf.cast(step, tf.int64), tf.constant(seed, tf.int64)])
        self.rows = rows
        self.num_draws = 0

    def rows_before(self, rows):
        """int64 scalar, of the global batch: those before the `rows` that are drawn for."""
        if self.rows is None:
            return tf.cast(_replica(), tf.int64) * rows
        first, number = (tf.cast(number, tf.int64) for number in self.rows)
        return first * (rows // tf.maximum(number, 1))  # a pair of texts is two rows of one


def _replica():
    return tf.distribute.get_replica_context().replica_id_in_sync_group


@contextlib.contextmanager
def step_scope(step: tf.Tensor, seed: int = 0, rows: tuple | None = None) -> Iterator[None]:
    """Within it, every `Dropout` is seeded by the step and by its place in the order of draws.

    Args:
        step: int scalar, the optimizer's step.
        seed: The run's seed.
        rows: Two int scalars, which rows of the global batch are computed: the first and how many.
            None means an equal share of it per replica.
    """
    outer = getattr(_scope, "current", None)
    _scope.current = _Step(step, seed, rows)
    try:
        yield
    finally:
        _scope.current = outer


def _uniform_by_global_row(shape: tf.Tensor, row_size, current: _Step) -> tf.Tensor:
    """float32[rows, row_size] in [0, 1): this replica's rows of the global batch's draw."""
    rows = tf.cast(shape[0], tf.int64)
    # Whole counters per row, so that a replica can begin at the counter of its first row.
    padded = -(-tf.cast(row_size, tf.int64) // _WORDS_PER_COUNT) * _WORDS_PER_COUNT
    seed = tf.random.experimental.stateless_fold_in(
        current.seed, tf.constant(current.num_draws, tf.int64)
    )
    current.num_draws += 1
    drawn = tf.raw_ops.StatelessRandomGetKeyCounter(seed=seed)
    skipped = tf.cast(current.rows_before(rows) * padded // _WORDS_PER_COUNT, tf.uint64)
    numbers = tf.raw_ops.StatelessRandomUniformV2(
        shape=tf.stack([rows, padded]),
        key=drawn.key,
        counter=drawn.counter + tf.stack([skipped, tf.zeros_like(skipped)]),
        alg=_PHILOX,
        dtype=tf.float32,
    )
    return numbers[:, : tf.cast(row_size, tf.int64)]


def uniform_of_step(shape) -> tf.Tensor:
    """Numbers that belong to the step and to the row's place in the global batch.

    Args:
        shape: int32[2], rows and numbers of each.

    Returns:
        float32[*shape] in [0, 1): within `step_scope` its next draw, else other ones each time.
    """
    current = getattr(_scope, "current", None)
    if current is None:
        return tf.random.uniform(shape)
    return _uniform_by_global_row(shape, shape[1], current)


@keras.saving.register_keras_serializable("tfllm")
class Dropout(keras.layers.Layer):
    """Dropout seeded by the step inside `step_scope`, by Keras's generator outside of it.

    Args:
        rate: Fraction of the units set to zero in training, in [0, 1).

    Call arguments:
        x: float[b, ...].

    Returns:
        float[b, ...], the kept units scaled by 1 / (1 - rate).

    Raises:
        ValueError: `rate` is outside [0, 1).

    Source:
        Srivastava et al. 2014, https://jmlr.org/papers/v15/srivastava14a.html
    """

    def __init__(self, rate, **kwargs):
        super().__init__(**kwargs)
        if not 0 <= rate < 1:
            raise ValueError(f"rate must be at least 0 and below 1. Received: rate={rate}")
        self.rate = rate
        self.seed_generator = keras.random.SeedGenerator() if rate else None

    def call(self, x, training=None):
        if not training or self.rate == 0:
            return x
        current = getattr(_scope, "current", None)
        if current is None:
            return keras.random.dropout(x, self.rate, seed=self.seed_generator)
        shape = tf.shape(x)
        known = all(x.shape[1:])
        row_size = math.prod(x.shape[1:]) if known else tf.reduce_prod(shape[1:])
        kept = _uniform_by_global_row(shape, row_size, current) >= self.rate
        scale = tf.cast(tf.reshape(kept, shape), x.dtype) / tf.cast(1 - self.rate, x.dtype)
        return x * scale

    def compute_output_shape(self, input_shape):
        return input_shape

    def get_config(self):
        return {**super().get_config(), "rate": self.rate}
