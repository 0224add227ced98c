"""States that each text carries for itself, where a row has several texts (beams)."""

import tensorflow as tf

from tfllm.decoding import NewTokens


def branches(states, rows=None):
    """What the n texts of each row carry.

    Args:
        states: A nest of tensors [b * n, ...].
        rows: b, an int32 scalar; None: each row has one text.

    Returns:
        The nest, of [b, n, ...].
    """

    def apart(x):
        shape = tf.shape(x)
        first = [shape[0], 1] if rows is None else [rows, -1]
        together = tf.reshape(x, tf.concat([first, shape[1:]], 0))
        # One text is several after the first step, and `set_shape` forgets nothing.
        anything = tf.TensorShape([None, None]).concatenate(x.shape[1:])
        return tf.compat.v1.placeholder_with_default(together, anything)

    return tf.nest.map_structure(apart, states)


def of_parents(states, new: NewTokens):
    """What the texts carry that new tokens go on from.

    Args:
        states: A nest of tensors [b, p, ...], of the last step's p texts.
        new: n tokens in each row.

    Returns:
        The nest, of [b * n, ...].
    """

    def taken(x):
        if new.parent is None:
            flat = tf.reshape(x, tf.concat([[-1], tf.shape(x)[2:]], 0))
        else:
            rows, texts = tf.unstack(tf.shape(x)[:2])
            place = tf.reshape(tf.range(rows)[:, None] * texts + new.parent, [-1])
            flat = tf.gather(tf.reshape(x, tf.concat([[-1], tf.shape(x)[2:]], 0)), place)
        flat.set_shape(tf.TensorShape([None]).concatenate(x.shape[2:]))
        return flat

    return tf.nest.map_structure(taken, states)
