"""Keys and values of the positions so far."""

from typing import NamedTuple

import tensorflow as tf


class KVCache(NamedTuple):
    """Keys and values of one attention layer.

    Head-major, so that each head reads one contiguous block per row.

    Attributes:
        k: float[b, h, s, d].
        v: float[b, h, s, d].
    """

    k: tf.Tensor
    v: tf.Tensor


def empty_cache(rows, num_heads: int, length, head_dim: int, dtype) -> KVCache:
    """Zeros for `length` positions.

    Args:
        rows: b, an int32 scalar.
        num_heads: h.
        length: s, an int32 scalar.
        head_dim: d.
        dtype: Of the layer's computation.

    Returns:
        `KVCache` of [b, h, s, d]; each of the two owns its memory.
    """

    # tf.zeros would be folded into one constant that all caches share, and `write` works in place.
    def own_memory():
        zeros = tf.raw_ops.Empty(
            shape=tf.stack([rows, num_heads, length, head_dim]),
            dtype=tf.as_dtype(dtype),
            init=True,
        )
        zeros.set_shape([None, num_heads, None, head_dim])
        return zeros

    return KVCache(own_memory(), own_memory())


def write(cache: KVCache, k: tf.Tensor, v: tf.Tensor, start: tf.Tensor) -> KVCache:
    """Writes new positions into the cache, in place: the old `cache` must not be used again.

    A copy would cost the whole cache at each token (133 ms against 21 ms a step at batch 8 and
    1,024 positions of GPT-2 small).

    Args:
        cache: float[b, h, s, d] twice.
        k: float[b, h, t, d], new keys.
        v: float[b, h, t, d], new values.
        start: int32[b], where each row's new positions begin; start + t must not pass s.

    Returns:
        The `KVCache` to go on with.
    """
    rows, num_heads, new, head_dim = tf.unstack(tf.shape(k))
    length = tf.shape(cache.k)[2]
    position = start[:, None, None] + tf.range(new)[None, None, :]
    block = tf.range(rows)[:, None, None] * num_heads + tf.range(num_heads)[None, :, None]
    place = tf.reshape(block * length + position, [-1])

    def put(old, fresh):
        flat = tf.raw_ops.InplaceUpdate(
            x=tf.reshape(old, [-1, head_dim]), i=place, v=tf.reshape(fresh, [-1, head_dim])
        )
        written = tf.reshape(flat, tf.shape(old))
        written.set_shape(old.shape)
        return written

    return KVCache(put(cache.k, k), put(cache.v, v))
