"""What slots keep of sources: for models that read one text and write another."""

from __future__ import annotations

from typing import TYPE_CHECKING

import tensorflow as tf

from tfllm.decoding.decodable import rounded_up
from tfllm.decoding.entry_memory import EntryMemory
from tfllm.decoding.slot_memory import SlotMemory
from tfllm.layers import KVCache, unseen
from tfllm.models.seq2seq_backbone import DecoderState
from tfllm.models.session_asked import Asked
from tfllm.models.session_slot_finding import Places

if TYPE_CHECKING:
    from tfllm.models.text_generator import TextGenerator


class SourceMemory:
    """What the decoder looks at of each source, beside a memory of what is written behind it.

    Args:
        name: Begins the names of the variables.
        state: With which the model begins, of `tf.TensorSpec`s.
        written: The memory of what is written. Its positions are those of the decoder's text.
        num_slots: s.
        num_entries: Tokens of a source at most.

    Attributes:
        variables, read_at_once: As of `SlotMemory`.
    """

    def __init__(
        self, name: str, state: DecoderState, written: SlotMemory, num_slots: int, num_entries: int
    ):
        self._written = written
        self._sources = EntryMemory(f"{name}/sources", state.memories, num_slots, num_entries)
        self.variables = [*written.variables, *self._sources.variables]
        self.read_at_once = written.read_at_once

    def reusable(self, common, num_read):
        """As of `SlotMemory`, of the decoder's text."""
        return self._written.reusable(common, num_read)

    def read(self, values, slots, count, entries, num_source_tokens=None) -> DecoderState:
        """As of `SlotMemory`."""
        written, sources = self._parts(values)
        width = rounded_up(tf.reduce_max(tf.concat([num_source_tokens, [1]], 0)))
        return DecoderState(
            self._written.read(written, slots, count, entries, num_source_tokens),
            self._sources.read(sources, slots, num_source_tokens, width, num_source_tokens),
            unseen(tf.sequence_mask(num_source_tokens, width)[:, None]),
        )

    def write(self, values, state: DecoderState, slots, begin, end) -> list[tf.Operation]:
        """As of `SlotMemory`: sources stay as they are."""
        return self._written.write(self._parts(values)[0], state.written, slots, begin, end)

    def write_sources(self, values, state: DecoderState, slots, begin, end) -> list[tf.Operation]:
        """As of `SlotMemory.write`, of sources."""
        return self._sources.write(self._parts(values)[1], state.memories, slots, begin, end)

    def _parts(self, values):
        count = len(self._written.variables)
        return values[:count], values[count:]


def read_sources(
    text: TextGenerator, memory: SourceMemory, values, place: Places, asked: Asked, reads, before
) -> tuple[DecoderState, list[tf.Operation]]:
    """Has the model read the sources of some texts, each whole.

    Args:
        text: Of the model.
        memory: Of the slots.
        values: Of its variables.
        place: Where the texts are.
        asked: The texts.
        reads: int32[b], how many tokens of each are read now: nothing, or at least a source that
            was not read.
        before: What is remembered where the texts begin.

    Returns:
        `before`, with the sources of all texts; and what to wait for.
    """
    num_tokens = asked.num_source_tokens
    is_new = (reads > 0) & (place.reused < num_tokens)
    memories = tf.cond(
        tf.reduce_any(is_new),
        lambda: _with_new(text, asked, tf.where(is_new)[:, 0], before.memories),
        lambda: tf.nest.map_structure(tf.identity, before.memories),
    )
    state = before._replace(memories=memories)
    end = tf.where(place.reused + reads > 0, num_tokens, 0)
    begin = tf.where((place.source == place.slot) & ~is_new, end, 0)
    return state, memory.write_sources(values, state, place.slot, begin, end)


def _with_new(text: TextGenerator, asked: Asked, rows, memories: tuple[KVCache, ...]):
    """What the decoder looks at, where int64[r] rows are read anew."""
    lengths = tf.gather(asked.num_source_tokens, rows)
    ids, lengths = text.dense(
        tf.RaggedTensor.from_tensor(tf.gather(asked.tokens, rows), lengths), text.context_length
    )

    def put(old, new):
        room = tf.shape(old)[2] - tf.shape(new)[2]
        new = tf.pad(new, [[0, 0], [0, 0], [0, room], [0, 0]])
        return tf.tensor_scatter_nd_update(old, rows[:, None], new)

    read = text.model.reading(ids, lengths).memories
    return tf.nest.map_structure(put, memories, tuple(read))
