"""Texts out of serialized tf.Examples, none of which can fail the others."""

import tensorflow as tf

_FEATURES = {name: tf.io.FixedLenFeature([], tf.string, "") for name in ("text", "text_pair")}


def example_texts(serialized):
    """The features `text` and `text_pair` of each example; "" where there is none.

    Args:
        serialized: string[b].

    Returns:
        text and text_pair, each string[b]; and bool[b], False where it is no tf.Example or one of
        the two holds anything else than one string.
    """
    rows = tf.size(serialized)

    def parse(row, example):
        found = tf.io.parse_single_example(example, _FEATURES)
        return row, found["text"], found["text_pair"]

    def put(columns, found):
        row, *values = found
        return tuple(
            tf.tensor_scatter_nd_update(column, row[None, None], value[None])
            for column, value in zip(columns, [*values, tf.constant(True)], strict=True)
        )

    # The parsing operations fail a whole batch for one example; a dataset can leave it out.
    parsed = tf.data.Dataset.from_tensor_slices((tf.range(rows), serialized)).map(parse)
    nothing = (tf.fill([rows], ""), tf.fill([rows], ""), tf.fill([rows], False))
    return parsed.ignore_errors().reduce(nothing, put)
