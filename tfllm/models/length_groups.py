"""Rows of like length are computed together, so that short ones do not pay for the longest."""

from collections.abc import Callable, Sequence

import tensorflow as tf

from tfllm.models.encoder_inputs import padded_width

# So many tokens, with padding, are computed at once: fewer read the weights too often, more have
# longer padding and leave the cache of the processor.
_TOKENS = 512
# Another group costs about as much as so many tokens more in this one.
_TOKENS_OF_A_GROUP = 32


def in_length_groups(
    lengths: tf.Tensor,
    most: int,
    compute: Callable[[tf.Tensor, tf.Tensor], Sequence[tf.Tensor]],
    outputs: Sequence[tf.TensorSpec],
) -> list[tf.Tensor]:
    """Computes outputs of rows in groups of rows of like length, in the graph.

    The longest rows come first. A group has as many rows as fit into 512 tokens at its first row's
    width, at least one; rows that would be padding for the most part wait for a later group. All
    groups run through one traced body, so that packed weights exist once.

    Args:
        lengths: int32[b], tokens of each row.
        most: Tokens of a row at most.
        compute: Takes int32[n], the numbers of a group's rows, and an int32 scalar, the width that
            they are padded to. It returns the outputs of these rows, each [n, ...].
        outputs: Shape of one row, and dtype, of each output.

    Returns:
        The outputs [b, ...], in the order of the rows.
    """
    order = tf.argsort(lengths, direction="DESCENDING", stable=True)
    longest_first = tf.gather(lengths, order)
    rows = tf.size(lengths)

    def group(begin, *columns):
        width = padded_width(longest_first[begin : begin + 1], most)
        shortest = width - tf.maximum(width // 2, _TOKENS_OF_A_GROUP)
        alike = tf.reduce_sum(tf.cast(longest_first >= shortest, tf.int32))
        end = tf.minimum(begin + tf.maximum(_TOKENS // width, 1), alike)
        found = compute(order[begin:end], width)
        return end, *(tf.concat(pair, 0) for pair in zip(columns, found, strict=True))

    _, *columns = tf.while_loop(
        lambda begin, *_: begin < rows,
        group,
        (tf.constant(0), *(tf.zeros([0, *spec.shape], spec.dtype) for spec in outputs)),
        shape_invariants=(
            tf.TensorShape([]),
            *(tf.TensorShape([None, *spec.shape]) for spec in outputs),
        ),
        # Memory for one group, whatever the number of rows.
        parallel_iterations=1,
    )
    back = tf.math.invert_permutation(order)
    return [tf.gather(column, back) for column in columns]
