"""Keys and values of the tokens so far, and which of them new tokens look at."""

from typing import NamedTuple

import tensorflow as tf

MASKED = -1e9  # a score that softmax turns into 0 in float32


class KVCache(NamedTuple):
    """Keys and values of one attention layer.

    Head-major, so that each head reads one contiguous block per row.

    Attributes:
        k: float[b, h, s, d].
        v: float[b, h, s, d].
    """

    k: tf.Tensor
    v: tf.Tensor


class Window(NamedTuple):
    """Where new tokens go in the caches, and what they see there: made once for all layers.

    Attributes:
        rows: b, an int32 scalar.
        length: n, new tokens of each row, an int32 scalar.
        place: int32[b * h * n], as of `places`.
        scores: float32[b, 1 or h, n, s], added to the scores of the new tokens and s entries, all
            that the caches have.
    """

    rows: tf.Tensor
    length: tf.Tensor
    place: tf.Tensor
    scores: tf.Tensor

    @classmethod
    def of(cls, start, visible, num_heads: int, bias=None) -> "Window":
        """A window on what may be seen.

        Args:
            start: int32[b], the entry of each row's first new token; the others follow.
            visible: bool[b, n, s].
            num_heads: h.
            bias: float[b or 1, h, n, s], added to the scores (relative positions); or None.
        """
        rows, length, entries = tf.unstack(tf.shape(visible))
        scores = unseen(visible)
        return cls(
            rows,
            length,
            places(start, length, num_heads, entries),
            scores if bias is None else scores + bias,
        )


def unseen(visible) -> tf.Tensor:
    """float32[b, 1, n, s] of bool[b, n, s], what keeps a score out of a softmax where it is False.

    One sum instead of a choice for each layer.
    """
    return tf.where(visible, 0.0, MASKED)[:, None]


def empty_cache(rows, num_heads: int, head_dim: int, dtype) -> KVCache:
    """A cache without entries.

    Args:
        rows: b, an int32 scalar.
        num_heads: h.
        head_dim: d.
        dtype: Of what is kept.

    Returns:
        `KVCache` of [b, h, 0, d].
    """
    nothing = _zeros(rows, num_heads, 0, head_dim, dtype)
    return KVCache(nothing, nothing)


def grow(cache: KVCache, entries) -> KVCache:
    """The cache with room for so many entries in each row, zeros behind what there was.

    Args:
        cache: float[b, h, s, d] twice.
        entries: int32 scalar, at least s.

    Returns:
        `KVCache` of [b, h, entries, d]; each of the two owns its memory.
    """

    def longer(x):
        rows, _, filled, _ = tf.unstack(tf.shape(x))
        room = _zeros(rows, x.shape[1], entries - filled, x.shape[3], x.dtype)
        grown = tf.concat([x, room], 2)
        grown.set_shape(x.shape[:2].concatenate([None, x.shape[3]]))
        return grown

    return KVCache(longer(cache.k), longer(cache.v))


def places(start, new, num_heads: int, entries) -> tf.Tensor:
    """Where new entries stand in caches [b, h, s, d] taken as [b * h * s, d].

    Args:
        start: int32[b], where each row's new entries begin; start + n must not pass s.
        new: n, an int32 scalar.
        num_heads: h.
        entries: s, an int32 scalar.

    Returns:
        int32[b * h * n].
    """
    rows = tf.shape(start)[0]
    block = tf.range(rows)[:, None, None] * num_heads + tf.range(num_heads)[None, :, None]
    entry = start[:, None, None] + tf.range(new)[None, None, :]
    return tf.reshape(block * entries + entry, [-1])


def write(cache: KVCache, k: tf.Tensor, v: tf.Tensor, place: tf.Tensor) -> KVCache:
    """Writes new entries into the cache, in place: the old `cache` must not be used again.

    A copy would cost the whole cache at each token (133 ms against 21 ms a step at batch 8 and
    1,024 positions of GPT-2 small).

    Args:
        cache: float[b, h, s, d] twice, each with memory of its own.
        k: float[b, h, n, d], new keys.
        v: float[b, h, n, d], new values.
        place: int32[b * h * n], as of `places`.

    Returns:
        The `KVCache` to go on with.
    """

    shape = tf.shape(cache.k)
    return KVCache(put(cache.k, k, place, shape), put(cache.v, v, place, shape))


def put(old: tf.Tensor, fresh: tf.Tensor, place: tf.Tensor, shape: tf.Tensor) -> tf.Tensor:
    """`write` of keys or values alone, into what has int32[4] as its shape."""
    head_dim = old.shape[3]
    fresh = tf.reshape(tf.cast(fresh, old.dtype), [-1, head_dim])
    flat = tf.raw_ops.InplaceUpdate(x=tf.reshape(old, [-1, head_dim]), i=place, v=fresh)
    written = tf.reshape(flat, shape)
    written.set_shape(old.shape)
    return written


def _zeros(rows, num_heads, entries, head_dim, dtype):
    # tf.zeros would be folded into one constant that all caches share, and `write` works in place.
    zeros = tf.raw_ops.Empty(
        shape=tf.stack([rows, num_heads, entries, head_dim]), dtype=tf.as_dtype(dtype), init=True
    )
    zeros.set_shape([None, num_heads, None, head_dim])
    return zeros
