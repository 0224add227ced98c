"""Which tokens would say again what a text says already."""

from typing import NamedTuple

import tensorflow as tf


class Text(NamedTuple):
    """What a row says so far.

    Attributes:
        token_ids: int32[b, n], from the left.
        count: int32[b], how many of them there are.
    """

    token_ids: tf.Tensor
    count: tf.Tensor


def joined(prompt, lengths, new_ids, count) -> Text:
    """Prompts with what was written behind them.

    Args:
        prompt: int32[b, t].
        lengths: int32[b], tokens of each.
        new_ids: int32[b, n].
        count: int32 scalar or int32[b], how many of them there are.
    """
    width = tf.shape(prompt)[1]
    place = tf.range(width + tf.shape(new_ids)[1])[None]
    behind = tf.where(place < lengths[:, None], place, place - lengths[:, None] + width)
    both = tf.concat([prompt, new_ids], 1)
    behind = tf.minimum(behind, tf.shape(both)[1] - 1)
    return Text(tf.gather(both, behind, batch_dims=1), lengths + count)


def repeating(text: Text, size: int, vocabulary_size: int) -> tf.Tensor:
    """Tokens that would complete n-grams which are in the text.

    Args:
        text: Of each row.
        size: n, at least 1.
        vocabulary_size: v.

    Returns:
        bool[b, v].

    Source:
        `NoRepeatNGramLogitsProcessor` of Hugging Face `transformers`; Paulus et al. 2017, section
        2.5, https://arxiv.org/abs/1705.04304
    """
    token_ids, count = text
    room = tf.pad(token_ids, [[0, 0], [0, size]])  # so that there is a window in any text
    windows = tf.shape(room)[1] - size + 1
    begin = count - (size - 1)
    # What the next token would be the end of; too short a text has no window before it.
    last = tf.gather(room, tf.maximum(begin, 0)[:, None] + tf.range(size - 1), batch_dims=1)
    same = tf.range(windows)[None] < begin[:, None]
    for i in range(size - 1):
        same &= room[:, i : i + windows] == last[:, i, None]
    rows = tf.repeat(tf.range(tf.shape(room)[0])[:, None], windows, 1)
    place = tf.stack([rows, room[:, size - 1 :]], -1)
    found = tf.scatter_nd(
        place, tf.cast(same, tf.int32), tf.stack([tf.shape(room)[0], vocabulary_size])
    )
    return found > 0
