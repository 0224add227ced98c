"""What a server keeps of each text beside the model's memory of it, one call at a time."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import tensorflow as tf

from tfllm import contract
from tfllm.decoding import Sampling
from tfllm.decoding.slot_memory import GraphVariable, SlotMemory

GOES_ON, STOPPED, FULL = range(3)  # of `Slots.ended`


class Slots(NamedTuple):
    """What is known of each text beside the model's memory of it: tensors [s, ...].

    Attributes:
        lease: string, whose slot it is; "" = nobody's.
        used_at: float64, seconds, when it was used last.
        tokens: int32[s, t + 1], the prompt and what was written behind it.
        num_prompt_tokens: int32.
        num_source_tokens: int32, how many of these are a source, behind which another text is
            begun; 0 = the prompt is gone on with.
        num_read: int32, the tokens that the memory is of.
        count: int32, the tokens behind the prompt.
        before: int32, the same before the last call.
        ended: int32, `GOES_ON`, `STOPPED` (it ended itself) or `FULL` (the limit ended it).
        limit: int32, tokens behind the prompt at most.
        temperature, top_k, top_p, min_p, repetition_penalty, presence_penalty, frequency_penalty,
            seed: as of `Sampling`.
        stop: string[s, 4].
        num_alternatives: int32.
        bias_token_ids, bias: int32 and float32[s, 64].
        logprob, alternatives, alternative_logprobs: as of `Told`, of the last call.
    """

    lease: tf.Tensor
    used_at: tf.Tensor
    tokens: tf.Tensor
    num_prompt_tokens: tf.Tensor
    num_source_tokens: tf.Tensor
    num_read: tf.Tensor
    count: tf.Tensor
    before: tf.Tensor
    ended: tf.Tensor
    limit: tf.Tensor
    temperature: tf.Tensor
    top_k: tf.Tensor
    top_p: tf.Tensor
    min_p: tf.Tensor
    repetition_penalty: tf.Tensor
    presence_penalty: tf.Tensor
    frequency_penalty: tf.Tensor
    seed: tf.Tensor
    stop: tf.Tensor
    num_alternatives: tf.Tensor
    bias_token_ids: tf.Tensor
    bias: tf.Tensor
    logprob: tf.Tensor
    alternatives: tf.Tensor
    alternative_logprobs: tf.Tensor

    @property
    def sampling(self) -> Sampling:
        return Sampling(
            self.temperature,
            self.top_k,
            self.top_p,
            self.min_p,
            self.repetition_penalty,
            self.presence_penalty,
            self.frequency_penalty,
            self.seed,
        )


def _shapes(most_tokens: int) -> dict[str, tuple[tf.DType, tuple[int, ...]]]:
    told = (contract.MAX_DECODED_TOKENS, contract.MAX_ALTERNATIVES)
    other = {
        "lease": (tf.string, ()),
        "used_at": (tf.float64, ()),
        "tokens": (tf.int32, (most_tokens + 1,)),
        "temperature": (tf.float32, ()),
        "top_p": (tf.float32, ()),
        "min_p": (tf.float32, ()),
        "repetition_penalty": (tf.float32, ()),
        "presence_penalty": (tf.float32, ()),
        "frequency_penalty": (tf.float32, ()),
        "seed": (tf.int64, ()),
        "stop": (tf.string, (contract.MAX_STOP_STRINGS,)),
        "bias_token_ids": (tf.int32, (contract.MAX_BIASES,)),
        "bias": (tf.float32, (contract.MAX_BIASES,)),
        "logprob": (tf.float32, told[:1]),
        "alternatives": (tf.int32, told),
        "alternative_logprobs": (tf.float32, told),
    }
    return {name: other.get(name, (tf.int32, ())) for name in Slots._fields}


class SlotTable:
    """The variables of all slots, and the lock that calls take in turns.

    There is one slot more than there are texts: rows that are refused use it.

    Args:
        name: Begins the names of the variables.
        memory: Of the model.
        num_slots: Of texts.
        most_tokens: Of each, but for the last one that is written.
    """

    def __init__(self, name: str, memory: SlotMemory, num_slots: int, most_tokens: int):
        self.num_slots = num_slots
        self._name = name
        self._memory = memory
        self._fields = {
            field: GraphVariable(f"{name}/{field}", dtype, (num_slots + 1, *shape))
            for field, (dtype, shape) in _shapes(most_tokens).items()
        }

    def call(self, body: Callable[[Slots, list], Change]) -> Any:
        """Reads and changes the slots, while no other call does.

        Args:
            body: Makes a `Change` of the slots as they are and the values of the memory.

        Returns:
            Its outputs.
        """
        mutex = tf.raw_ops.MutexV2(shared_name=f"{self._name}/lock")
        lock = tf.raw_ops.MutexLock(mutex=mutex)
        with tf.control_dependencies([lock]):
            handles = {field: known.handle() for field, known in self._fields.items()}
            memory = [known.handle() for known in self._memory.variables]
            is_there = self._begun([*handles.values(), *memory])
        with tf.control_dependencies([is_there]):
            slots = Slots(
                **{field: _read(handles[field], known) for field, known in self._fields.items()}
            )
            values = [_read(*pair) for pair in zip(memory, self._memory.variables, strict=True)]
        change = body(slots, values)
        done: list[tf.Operation] = []
        for stage in change.stages:
            with tf.control_dependencies(done):
                done = (
                    stage()
                    if callable(stage)
                    else [
                        tf.raw_ops.AssignVariableOp(resource=handles[field], value=value)
                        for field, value in stage.items()
                    ]
                )
        with tf.control_dependencies(done):
            released = tf.raw_ops.ConsumeMutexLock(mutex_lock=lock)
        with tf.control_dependencies([released]):
            return tf.nest.map_structure(tf.identity, change.outputs)

    def _begun(self, handles):
        """Makes the variables if this is the first call."""
        known = [*self._fields.values(), *self._memory.variables]

        def begin():
            made = [variable.begin(handle) for variable, handle in zip(known, handles, strict=True)]
            with tf.control_dependencies(made):
                return tf.constant(True)

        is_there = tf.reduce_all(
            [tf.raw_ops.VarIsInitializedOp(resource=handle) for handle in handles]
        )
        return tf.cond(is_there, lambda: tf.constant(True), begin)


class Change(NamedTuple):
    """What a call makes of the slots.

    Attributes:
        outputs: A nest of tensors.
        stages: What is written, in this order: a call may be ended between any two of them.
            New values of some fields of `Slots`, whole; or a function that makes ops.
    """

    outputs: Any
    stages: Sequence[Mapping[str, tf.Tensor] | Callable[[], list[tf.Operation]]]


def _read(handle, variable: GraphVariable):
    value = tf.raw_ops.ReadVariableOp(resource=handle, dtype=variable.dtype)
    value.set_shape(variable.shape)
    return value


def at(slots: Slots, places) -> Slots:
    """The slots int32[b] name."""
    return Slots(*(tf.gather(field, places) for field in slots))


def put(slots: Slots, places, **fields) -> dict[str, tf.Tensor]:
    """Whole fields, with values [b, ...] in the slots int32[b] names."""
    return {
        name: tf.tensor_scatter_nd_update(getattr(slots, name), places[:, None], value)
        for name, value in fields.items()
    }
