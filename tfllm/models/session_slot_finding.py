"""Which slot each row of a request is about."""

from __future__ import annotations

from typing import NamedTuple

import tensorflow as tf

from tfllm.decoding.slot_choice import choose_slots, common_prefix
from tfllm.decoding.slot_memory import SlotMemory
from tfllm.models.session_asked import Asked
from tfllm.models.session_slots import Slots
from tfllm.models.text_functions import first_error

NOT_YOURS = "the slot is not of this lease: it was released, or another text has it after a pause"
NO_SLOT = "no slot is free"


class Places(NamedTuple):
    """Slots for the texts of a request.

    Attributes:
        slot: int32[b]; of a row that is refused the spare one.
        source: int32[b], whose memory the text begins with.
        reused: int32[b], of how many tokens.
        error: string[b].
    """

    slot: tf.Tensor
    source: tf.Tensor
    reused: tf.Tensor
    error: tf.Tensor


def place_texts(slots: Slots, memory: SlotMemory, lease, asked: Asked, now, timeout_s) -> Places:
    """Finds the slots that texts have already, and gives the others free ones.

    Args:
        slots: As they are, the last one the spare one.
        memory: Of the slots.
        lease: string[b].
        asked: The texts.
        now: float64, seconds.
        timeout_s: Slots not used for so long are free.
    """
    tokens, lengths, count = asked.tokens, asked.num_prompt_tokens, asked.count
    spare = tf.shape(slots.lease)[0] - 1
    texts = Slots(*(field[:-1] for field in slots))
    # What two rows ask for at once, the first one gets.
    error = first_error(
        [(asked.error != "", asked.error), (_is_repeated(lease), "another row has this lease")]
    )
    fine = error == ""
    mine = tf.equal(lease[:, None], texts.lease) & fine[:, None]  # [b, s]
    has = tf.reduce_any(mine, -1)
    held = tf.argmax(mine, -1, output_type=tf.int32)
    total = lengths + count
    common = common_prefix(tokens, total - 1, texts.tokens, texts.num_read)
    whole = common_prefix(tokens, total, texts.tokens, texts.num_prompt_tokens + texts.count)
    same = (
        (tf.gather(whole, held, batch_dims=1) == total)
        & (tf.gather(texts.num_prompt_tokens, held) == lengths)
        & (tf.gather(texts.count, held) == count)
    )
    is_free = (texts.lease == "") | (now - texts.used_at > timeout_s)
    is_free &= ~tf.reduce_any(mine, 0)
    # Behind another source nothing is of use.
    source, sources = asked.num_source_tokens[:, None], texts.num_source_tokens
    reusable = memory.reusable(common - source, texts.num_read - sources)
    reusable = tf.where(tf.equal(source, sources) & (common >= source), source + reusable, 0)
    choice = choose_slots(fine & ~has, is_free, texts.used_at, reusable, texts.num_read)
    error = first_error(
        [
            (~fine, error),
            (has & ~same, "the lease has another text"),
            (~has & (choice.slot < 0), NO_SLOT),
        ]
    )
    fine = error == ""
    kept = tf.minimum(tf.gather(texts.num_read, held), tf.maximum(total - 1, 0))

    def of(held, chosen, spare):
        return tf.where(fine, tf.where(has, held, chosen), spare)

    return Places(
        of(held, choice.slot, spare),
        of(held, choice.source, spare),
        of(kept, choice.reused, 0),
        error,
    )


def own_slots(slots: Slots, slot, lease) -> tuple[tf.Tensor, tf.Tensor]:
    """The slots of rows that have them.

    Args:
        slots: As they are, the last one the spare one.
        slot: int32[b].
        lease: string[b].

    Returns:
        int32[b], the slot or the spare one; bool[b], whether the row has it.
    """
    spare = tf.shape(slots.lease)[0] - 1
    is_one = (slot >= 0) & (slot < spare)
    place = tf.where(is_one, slot, spare)
    own = is_one & (lease != "") & (tf.gather(slots.lease, place) == lease)
    own &= ~_is_repeated(tf.where(own, place, -1 - tf.range(tf.size(place))))
    return tf.where(own, place, spare), own


def _is_repeated(x):
    """bool[b], whether an earlier row is the same."""
    size = tf.size(x)
    earlier = tf.range(size)[None] < tf.range(size)[:, None]
    return tf.reduce_any(tf.equal(x[:, None], x[None]) & earlier, -1)
