"""Places of a row that are kept, moved together to its beginning."""

import tensorflow as tf

from tfllm.tokenizers import Tokenizer


def kept_with_end(values, keep, length: int, tokenizer: Tokenizer):
    """Leaves out places of rows and puts an end behind the others.

    Args:
        values: int32[b, n].
        keep: bool[b, n].
        length: t; a row may keep t - 1 at most.
        tokenizer: With the id of the end and of what stands behind it.

    Returns:
        int32[b, t], the kept values in their order; int32[b, t], 1 where one is, else 0.
    """
    values = tf.pad(values, [[0, 0], [0, 1]], constant_values=tokenizer.eos_id)
    keep = tf.pad(keep, [[0, 0], [0, 1]], constant_values=True)
    rows, size = values.shape
    place = tf.where(keep, tf.cumsum(tf.cast(keep, tf.int32), -1) - 1, length)
    row = tf.broadcast_to(tf.range(rows)[:, None], [rows, size])
    # What is left out falls into a column of its own, which is cut off.
    full = tf.fill([rows, length + 1], tokenizer.padding_id)
    full = tf.tensor_scatter_nd_update(full, tf.stack([row, place], -1), values)
    count = tf.reduce_sum(tf.cast(keep, tf.int32), -1)
    return full[:, :length], tf.sequence_mask(count, length, tf.int32)
