"""Prompts that are read into slots, or some tokens of them."""

from __future__ import annotations

from typing import TYPE_CHECKING

import tensorflow as tf

from tfllm.decoding.decodable import NewTokens, rounded_up
from tfllm.decoding.slot_memory import SlotMemory
from tfllm.models.session_slot_finding import Places

if TYPE_CHECKING:
    from tfllm.models.causal_text_generator import CausalTextGenerator


def read_prompts(
    text: CausalTextGenerator, memory: SlotMemory, values, place: Places, tokens, reads
) -> list[tf.Operation]:
    """Has the model read more of some texts, and writes what it remembers then.

    Args:
        text: Of the model.
        memory: Of the slots.
        values: Of its variables.
        place: Where the texts are.
        tokens: int32[b, t], of the texts.
        reads: int32[b], how many tokens of each behind those that are reused.

    Returns:
        What to wait for.
    """
    start = place.reused
    longest = tf.reduce_max(tf.concat([reads, [0]], 0))
    width = tf.maximum(rounded_up(longest, memory.read_at_once), 1)
    entries = rounded_up(tf.reduce_max(tf.concat([start, [0]], 0)) + width)
    before = memory.read(values, place.source, start, entries)

    def read():
        places = tf.range(entries)
        positions = start[:, None] + tf.range(width)
        within = tf.minimum(positions, tf.shape(tokens)[1] - 1)
        new = NewTokens(
            tf.gather(tokens, within, batch_dims=1),
            tf.minimum(positions, text.context_length - 1),
            start=start,
            visible=places <= positions[..., None],
            entry_positions=places[None],
            parent=None,
            wanted=tf.zeros_like(start)[:, None],
            lengths=reads,
        )
        _, after = text.model.step(new, before)
        for one, other in zip(tf.nest.flatten(after), tf.nest.flatten(before), strict=True):
            one.set_shape(other.shape)
        return after

    def keep():
        return tf.nest.map_structure(tf.identity, before)

    after = tf.cond(longest > 0, read, keep)
    begin = tf.where(place.source == place.slot, start, 0)
    return memory.write(values, after, place.slot, begin, start + reads)
