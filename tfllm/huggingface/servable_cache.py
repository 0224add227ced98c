"""KerasHub's cached attention as operations that the stock server runs, row by row position."""

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import keras
import tensorflow as tf

_ONE_AT_A_TIME = threading.RLock()
_softmax = tf.nn.softmax


@contextmanager
def cache_written_by(write: Callable) -> Iterator[None]:
    """While it is open, KerasHub's layers write their caches with `write`.

    Keras's own `ops.slice_update` is XLA's DynamicUpdateSlice even in a graph without XLA: Python's
    TensorFlow compiles it when it comes to it, the stock server refuses. And oneDNN's softmax,
    which the stock server has switched on, takes 5 dimensions, where Gemma has 5 before the rows
    are mapped. Both are looked up when a layer is called, so they are replaced by functions with
    the same results, for as long as a graph is traced.

    Args:
        write: In place of `keras.ops.slice_update`.
    """
    with _ONE_AT_A_TIME:
        kept = keras.ops.slice_update, tf.nn.softmax
        keras.ops.slice_update, tf.nn.softmax = write, _softmax_of_matrix
        try:
            yield
        finally:
            keras.ops.slice_update, tf.nn.softmax = kept


def whole(inputs, start_indices, updates):  # noqa: ARG001 - as `slice_update`
    """`slice_update` where the updates are as long as the inputs: the first pass over prompts."""
    return updates


def one_position(inputs, start_indices, updates) -> tf.Tensor:
    """`slice_update` of one position.

    Args:
        inputs: float[b, s, h, d].
        start_indices: (0, position, 0, 0), numbers or int32 scalars.
        updates: float[b, 1, h, d].

    Returns:
        float[b, s, h, d].
    """
    here = tf.range(tf.shape(inputs)[1]) == start_indices[1]
    return tf.where(here[:, None, None], updates, inputs)


def _softmax_of_matrix(logits, axis=None, name=None):
    if axis not in (None, -1):
        return _softmax(logits, axis, name)
    logits = tf.convert_to_tensor(logits)
    shape = tf.shape(logits)
    flat = _softmax(tf.reshape(logits, [-1, shape[-1]]), name=name)
    flat = tf.reshape(flat, shape)
    flat.set_shape(logits.shape)
    return flat
