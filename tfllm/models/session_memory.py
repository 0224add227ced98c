"""What a slot keeps of what a model remembers."""

import tensorflow as tf

from tfllm.decoding.entry_memory import EntryMemory
from tfllm.decoding.slot_memory import SlotMemory
from tfllm.decoding.state_memory import StateMemory
from tfllm.errors import UserError


def memory_of(model, name: str, num_slots: int, context_length: int) -> SlotMemory:
    """The memory of some slots, of a kind that fits the model.

    Args:
        model: A language model that goes on writing what it reads.
        name: Begins the names of the variables.
        num_slots: With those to spare.
        context_length: Tokens of each at most.

    Raises:
        UserError: the model remembers nothing that a slot could keep.
    """
    if getattr(model.backbone, "rewinds", False):
        return EntryMemory(name, _begun(model), num_slots, context_length)
    if getattr(model.backbone, "obeys_lengths", False):
        return StateMemory(name, _begun(model), num_slots)
    raise UserError(
        f"A {type(model).__name__} cannot be exported with sessions: they are for decoders that "
        "remember by caches of attention (a GPT) or by a state (an LSTM). Export it without."
    )


def _begun(model):
    """The state with which a model begins: a nest of `tf.TensorSpec`s."""
    one = tf.ones([1], tf.int32)
    begin = tf.function(lambda: model.begin(one[None], one).state, autograph=False)
    return tf.nest.map_structure(
        lambda leaf: tf.TensorSpec([None, *leaf.shape[1:]], leaf.dtype),
        begin.get_concrete_function().structured_outputs,
    )
