"""Random weights, and none where a checkpoint brings them.

Drawing numbers that are read over at once takes seconds, and at the largest table three times the
table's memory.
"""

import contextlib
import contextvars
from collections.abc import Iterator

import keras

_given = contextvars.ContextVar("weights_are_given", default=False)


@contextlib.contextmanager
def given_weights() -> Iterator[None]:
    """Models that are made in the block begin with zeros: what they shall have is read later."""
    token = _given.set(True)
    try:
        yield
    finally:
        _given.reset(token)


@keras.saving.register_keras_serializable("tfllm")
class Normal(keras.initializers.RandomNormal):
    """Normally distributed numbers.

    Args:
        stddev: Their standard deviation.
        **kwargs: Of `keras.initializers.RandomNormal`.
    """

    def __init__(self, stddev=0.02, **kwargs):
        super().__init__(stddev=stddev, **kwargs)

    def __call__(self, shape, dtype=None):
        if _given.get():
            return keras.ops.zeros(shape, dtype)
        return super().__call__(shape, dtype)


@keras.saving.register_keras_serializable("tfllm")
class TruncatedNormal(keras.initializers.TruncatedNormal):
    """Normally distributed numbers, none further from 0 than two standard deviations.

    Args:
        stddev: Their standard deviation before they are cut.
        **kwargs: Of `keras.initializers.TruncatedNormal`.
    """

    def __init__(self, stddev=0.02, **kwargs):
        super().__init__(stddev=stddev, **kwargs)

    def __call__(self, shape, dtype=None):
        if _given.get():
            return keras.ops.zeros(shape, dtype)
        return super().__call__(shape, dtype)
