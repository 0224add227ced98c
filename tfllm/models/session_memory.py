"""What a slot keeps of what a model remembers."""

from __future__ import annotations

from typing import TYPE_CHECKING

import tensorflow as tf

from tfllm.decoding.entry_memory import EntryMemory
from tfllm.decoding.slot_memory import SlotMemory
from tfllm.decoding.state_memory import StateMemory
from tfllm.errors import UserError
from tfllm.models.seq2seq_backbone import DecoderState
from tfllm.models.session_sources import SourceMemory

if TYPE_CHECKING:
    from tfllm.models.text_generator import TextGenerator


def memory_of(text: TextGenerator, name: str, num_slots: int) -> SlotMemory:
    """The memory of some slots, of a kind that fits the model.

    Args:
        text: Of the model.
        name: Begins the names of the variables.
        num_slots: With those to spare.

    Raises:
        UserError: the model remembers nothing that a slot could keep.
    """
    state = _begun(text)
    if not isinstance(state, DecoderState):
        return _of_own_text(text, state, name, num_slots)
    written = _of_own_text(text, state.written, f"{name}/written", num_slots)
    return SourceMemory(name, state, written, num_slots, text.context_length)


def _of_own_text(text: TextGenerator, state, name: str, num_slots: int) -> SlotMemory:
    if getattr(text.model.backbone, "rewinds", False):
        return EntryMemory(name, state, num_slots, text.context_length)
    if getattr(text.model.backbone, "obeys_lengths", False):
        return StateMemory(name, state, num_slots)
    raise UserError(
        f"A {type(text.model).__name__} cannot be exported with sessions: they are for decoders "
        "that remember by caches of attention (a Transformer) or by a state (an LSTM). Export it "
        "without."
    )


def _begun(text: TextGenerator):
    """The state with which a model begins: a nest of `tf.TensorSpec`s."""

    def state():
        start = text.start(tf.RaggedTensor.from_tensor(tf.ones([1, 1], tf.int32)))
        return start.model.begin(start.prompt, start.lengths).state

    begin = tf.function(state, autograph=False)
    return tf.nest.map_structure(
        lambda leaf: tf.TensorSpec([None, *leaf.shape[1:]], leaf.dtype),
        begin.get_concrete_function().structured_outputs,
    )
