"""Prompts that are read into slots, or some tokens of them."""

from __future__ import annotations

from typing import TYPE_CHECKING

import tensorflow as tf

from tfllm.decoding.decodable import NewTokens, rounded_up
from tfllm.decoding.slot_memory import SlotMemory
from tfllm.models.session_asked import Asked
from tfllm.models.session_slot_finding import Places
from tfllm.models.session_sources import SourceMemory, read_sources

if TYPE_CHECKING:
    from tfllm.models.text_generator import TextGenerator


def read_prompts(
    text: TextGenerator, memory: SlotMemory, values, place: Places, asked: Asked, reads
) -> list[tf.Operation]:
    """Has the model read more of some texts, and writes what it remembers then.

    Args:
        text: Of the model.
        memory: Of the slots.
        values: Of its variables.
        place: Where the texts are.
        asked: The texts.
        reads: int32[b], how many tokens of each behind those that are reused.

    Returns:
        What to wait for.
    """
    sources = asked.num_source_tokens
    start, end = (tf.maximum(x - sources, 0) for x in (place.reused, place.reused + reads))
    longest = tf.reduce_max(tf.concat([end - start, [0]], 0))
    width = tf.maximum(rounded_up(longest, memory.read_at_once), 1)
    entries = rounded_up(tf.reduce_max(tf.concat([start, [0]], 0)) + width)
    before = memory.read(values, place.source, start, entries, sources)
    written: list[tf.Operation] = []
    if isinstance(memory, SourceMemory):
        before, written = read_sources(text, memory, values, place, asked, reads, before)

    def read():
        places = tf.range(entries)
        positions = start[:, None] + tf.range(width)
        within = tf.minimum(sources[:, None] + positions, tf.shape(asked.tokens)[1] - 1)
        new = NewTokens(
            tf.gather(asked.tokens, within, batch_dims=1),
            tf.minimum(positions, text.context_length - 1),
            start=start,
            visible=places <= positions[..., None],
            entry_positions=places[None],
            parent=None,
            wanted=tf.zeros_like(start)[:, None],
            lengths=end - start,
        )
        _, after = text.decoder.step(new, before)
        for one, other in zip(tf.nest.flatten(after), tf.nest.flatten(before), strict=True):
            one.set_shape(other.shape)
        return after

    def keep():
        return tf.nest.map_structure(tf.identity, before)

    after = tf.cond(longest > 0, read, keep)
    begin = tf.where(place.source == place.slot, start, 0)
    return [*written, *memory.write(values, after, place.slot, begin, end)]
