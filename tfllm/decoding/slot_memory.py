"""What a model remembers of many texts, kept in a server from one call to the next.

The memory is in variables that a graph makes for itself at its first call. They are not saved with
the model; what one call leaves in them, the next one finds. TensorFlow Serving gives each loaded
version variables of its own.
"""

import math
from typing import Any, NamedTuple, Protocol

import tensorflow as tf


class GraphVariable(NamedTuple):
    """A variable that the graph makes.

    Attributes:
        name: By which all signatures of a model find it; no other model of a process has it.
        dtype: Of what it holds.
        shape: Of what it holds.
    """

    name: str
    dtype: tf.DType
    shape: tuple[int, ...]

    @property
    def num_bytes(self) -> int:
        """Of what it holds, if these are numbers."""
        return math.prod(self.shape) * self.dtype.size

    def handle(self) -> tf.Tensor:
        """The resource."""
        return tf.raw_ops.VarHandleOp(dtype=self.dtype, shape=self.shape, shared_name=self.name)

    def begin(self, handle):
        """The op that fills it, with zeros or ""; `tf.zeros` might share memory with others."""
        if self.dtype == tf.string:
            value = tf.fill(self.shape, "")
        else:
            value = tf.raw_ops.Empty(shape=self.shape, dtype=self.dtype, init=True)
        return tf.raw_ops.AssignVariableOp(resource=handle, value=value)


class SlotMemory(Protocol):
    """The memory of s slots: entries by position (`EntryMemory`), or states (`StateMemory`).

    Tokens are those of the text that a decoder writes, with what it reads before it writes.

    Attributes:
        variables: That hold it.
        read_at_once: Prompts are read in multiples of so many tokens.
    """

    variables: list[GraphVariable]
    read_at_once: int

    def reusable(self, common, num_read) -> tf.Tensor:
        """int32[b, s], with how many tokens of each slot texts may begin.

        Args:
            common: int32[b, s], tokens that texts have in common with what was read, from the
                first on.
            num_read: int32[s], tokens of each slot that were read.
        """

    def read(self, values, slots, count, entries, num_source_tokens=None) -> Any:
        """What was remembered in some slots, as the model takes it.

        Args:
            values: Of the variables.
            slots: int32[b].
            count: int32[b], after how many tokens of each text: as many as its slot was last
                written to the end of, or as that call began with; or 0.
            entries: int32 scalar above all positions of these tokens and of those that will be
                read; a multiple of that of `rounded_up`.
            num_source_tokens: int32[b], tokens of the source that each text is written behind;
                nothing to a model without sources.
        """

    def write(self, values, state, slots, begin, end) -> list[tf.Operation]:
        """Writes what is remembered into slots, in place.

        Args:
            values: Of the variables; what `read` was given.
            state: As of `read`, and perhaps changed since.
            slots: int32[b]. Where several rows name one, none may write.
            begin: int32[b], tokens of each text that its slot remembers already; 0: another text
                was there.
            end: int32[b], the tokens that `state` is after. A row with `begin` writes nothing.

        Returns:
            What to wait for. If only some of it is done, slots still remember `begin` tokens.
        """
