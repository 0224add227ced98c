"""Which slot a text gets, and of which slot's text it is the continuation."""

from typing import NamedTuple

import tensorflow as tf

_WORTH_REUSING = 16  # tokens: fewer are read again as fast as they are copied


class Choice(NamedTuple):
    """A slot for each text.

    Attributes:
        slot: int32[b], -1 where there is none.
        source: int32[b], the slot whose memory the text begins with; `slot` if it is that one.
        reused: int32[b], of how many tokens.
    """

    slot: tf.Tensor
    source: tf.Tensor
    reused: tf.Tensor


def common_prefix(texts, lengths, slot_texts, slot_lengths) -> tf.Tensor:
    """int32[b, s], how many tokens texts have in common from the first on.

    Args:
        texts: int32[b, t].
        lengths: int32[b], of each.
        slot_texts: int32[s, t].
        slot_lengths: int32[s].
    """
    same = tf.cast(tf.equal(texts[:, None], slot_texts[None]), tf.int32)
    common = tf.reduce_sum(tf.math.cumprod(same, -1), -1)
    return tf.minimum(common, tf.minimum(lengths[:, None], slot_lengths[None]))


def choose_slots(wanted, is_free, used_at, common, slot_lengths) -> Choice:
    """Gives free slots to texts, one after the other.

    A text takes over the slot whose text it continues if that is free; else it gets the free slot
    that was used longest ago, and what it shares with another is copied.

    Args:
        wanted: bool[b], the texts that need a slot.
        is_free: bool[s].
        used_at: float64[s], when each was used last.
        common: int32[b, s], tokens of each slot that a text may begin with.
        slot_lengths: int32[s], tokens that each slot remembers.
    """

    def choose(i, free, untouched, choice: Choice):
        # What an earlier text of the same call will overwrite is no source.
        shared = tf.where(untouched & (common[i] >= _WORTH_REUSING), common[i], 0)
        source = tf.argmax(shared, output_type=tf.int32)
        most = shared[source]
        oldest = tf.argmin(tf.where(free, used_at, tf.float64.max), output_type=tf.int32)
        continues = free[source] & (most > 0) & (2 * most >= slot_lengths[source])
        slot = tf.where(continues, source, oldest)
        slot = tf.where(wanted[i] & tf.reduce_any(free), slot, -1)
        taken = tf.equal(tf.range(tf.size(free)), slot)
        here = tf.range(tf.size(wanted)) == i
        one = Choice(slot, tf.where(most > 0, source, slot), most)
        choice = Choice(*(tf.where(here, new, old) for new, old in zip(one, choice, strict=True)))
        return i + 1, free & ~taken, untouched & ~taken, choice

    wanted = tf.ensure_shape(wanted, [None])  # TensorFlow loses it
    none = tf.zeros_like(wanted, tf.int32)
    loop = (
        tf.constant(0),
        is_free,
        tf.ones_like(is_free),
        Choice(none - 1, none, none),
    )
    *_, choice = tf.while_loop(lambda i, *_: i < tf.size(wanted), choose, loop)
    return choice
