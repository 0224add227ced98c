"""How much of a text that is being written may be shown already."""

import tensorflow as tf

from tfllm.decoding import StopStrings

_LONGEST_CHARACTER = 4  # bytes in UTF-8


def shown_so_far(raw, stops: StopStrings) -> tf.Tensor:
    """The beginning of a text that stays as it is, whatever comes.

    What may become a stop string is held back, and a character that is not whole.

    Args:
        raw: string[b], the bytes of the tokens so far.
        stops: Of each row; none is in the text whole.

    Returns:
        string[b].
    """
    begun = stops.begun(raw)
    raw = tf.strings.substr(raw, tf.zeros_like(begun), tf.strings.length(raw) - begun)
    cut = _unfinished(raw)
    return tf.strings.substr(raw, tf.zeros_like(cut), tf.strings.length(raw) - cut)


def _unfinished(raw):
    """int32[b], bytes at the end that may be the beginning of a character."""
    count = _LONGEST_CHARACTER - 1
    length = tf.strings.length(raw)
    size = tf.minimum(length, count)
    end = tf.strings.substr(raw, length - size, size)
    # From the left, zeros behind what there is.
    end = tf.cast(tf.io.decode_raw(end, tf.uint8, fixed_length=count), tf.int32)
    none = tf.zeros_like(length)
    held = none
    for back in range(count, 0, -1):  # the shortest that fits is looked at last
        place = size - back
        lead = tf.gather(end, tf.maximum(place, 0), batch_dims=1)
        follows = tf.reduce_all(
            ((end >= 0x80) & (end < 0xC0)) | (tf.range(count) <= place[:, None])
            | (tf.range(count) >= size[:, None]),
            -1,
        )  # fmt: skip
        needs = tf.where(lead >= 0xF0, 4, tf.where(lead >= 0xE0, 3, 2))
        begins = (place >= 0) & (lead >= 0xC0) & (needs > back) & follows
        held = tf.where(begins, back, held)
    return held


def new_part(before, after) -> tf.Tensor:
    """string[b], what the second has behind the first."""
    length = tf.strings.length(before)
    return tf.strings.substr(after, length, tf.maximum(tf.strings.length(after) - length, 0))
