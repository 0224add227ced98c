"""Random numbers per row, as a pure function of the row's seed and of the step."""

import tensorflow as tf


def _shifted_right(x, bits):
    # int64 shifts keep the sign; masking makes it a logical shift.
    return tf.bitwise.bitwise_and(tf.bitwise.right_shift(x, bits), (1 << (64 - bits)) - 1)


def _mixed(x):
    """The output function of SplitMix64; products wrap around in 64 bits."""
    x = tf.bitwise.bitwise_xor(x, _shifted_right(x, 30)) * -0x40A7B892E31B1A47
    x = tf.bitwise.bitwise_xor(x, _shifted_right(x, 27)) * -0x6B2FB644ECCEEE15
    return tf.bitwise.bitwise_xor(x, _shifted_right(x, 31))


def uniform(seed, step) -> tf.Tensor:
    """One number per row.

    TensorFlow's stateless generators take one seed for a whole tensor, so a row's number would
    depend on its place in the batch.

    Args:
        seed: int64[b].
        step: int32 scalar or int32[b], the index of the draw.

    Returns:
        float32[b] in [0, 1), multiples of 2 ** -24.

    Source:
        Steele et al. 2014, "Fast splittable pseudorandom number generators" (SplitMix64)
    """
    golden = -0x61C8864680B583EB  # 2 ** 64 / golden ratio, as int64
    state = _mixed(seed + golden) + (tf.cast(step, tf.int64) + 1) * golden
    return tf.cast(_shifted_right(_mixed(state), 40), tf.float32) * 2.0**-24
