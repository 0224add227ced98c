"""Memories of recurrent models: a state without positions, which only its own text goes on from."""

import math
from typing import Any

import tensorflow as tf

from tfllm.decoding.slot_memory import GraphVariable


class StateMemory:
    """States, [s, 2, ...] of s slots, for every tensor of a model's state.

    What a state has read cannot be taken back. So each slot has two: a call leaves the one that it
    begins with as it is and writes the other, and a call that is ended on its way, or whose text
    is not kept, does no harm.

    Args:
        name: Begins the names of the variables.
        state: The state as the decode loops know it: a nest of tensors, or of their specs, of
            static shape [None, None, ...], the rows and one text of each. Before the first token
            it is zeros.
        num_slots: s.

    Attributes:
        variables, read_at_once: As of `SlotMemory`.
    """

    read_at_once = 8  # each is a step in time, also where the text has ended

    def __init__(self, name: str, state, num_slots: int):
        self._state = state
        # After how many tokens each of the two states is; 0 = whatever is there is no state.
        counts = GraphVariable(f"{name}/counts", tf.int32, (num_slots, 2))
        states = [
            GraphVariable(f"{name}/{i}", leaf.dtype, (2 * num_slots, math.prod(leaf.shape[2:])))
            for i, leaf in enumerate(tf.nest.flatten(state))
        ]
        self.variables = [counts, *states]

    def reusable(self, common, num_read):
        """As of `SlotMemory`: all that was read, or nothing."""
        return tf.where(common == num_read, common, 0)

    def read(self, values, slots, count, entries, num_source_tokens=None) -> Any:  # noqa: ARG002 - the state has one size
        """As of `SlotMemory`.

        Returns:
            A nest as of `state`.
        """
        counts, *values = values
        is_it = tf.equal(tf.gather(counts, slots), count[:, None])
        place = 2 * slots + tf.argmax(is_it, -1, output_type=tf.int32)

        def rows(leaf, value):
            state = tf.where(count[:, None] > 0, tf.gather(value, place), 0)
            state = tf.reshape(state, [-1, 1, *leaf.shape[2:]])
            # A step says not how many texts a row has, and a loop wants one shape.
            return tf.compat.v1.placeholder_with_default(state, leaf.shape)

        return self._over(rows, values)

    def write(self, values, state, slots, begin, end) -> list[tf.Operation]:
        """As of `SlotMemory`."""
        changed = tf.where(begin != end)[:, 0]
        slots, begin, end = (tf.gather(x, changed) for x in (slots, begin, end))
        counts, *values = values
        with tf.control_dependencies(tf.nest.flatten(state)):  # made of what is overwritten now
            is_begin = tf.equal(tf.gather(counts, slots), begin[:, None])
        written = 1 - tf.argmax(is_begin, -1, output_type=tf.int32)
        here = tf.range(2) == written[:, None]
        kept = tf.where(is_begin & ~here, begin[:, None], 0)
        place = 2 * slots + written

        def put(_, value, after):
            fresh = tf.reshape(tf.gather(after, changed), [-1, value.shape[1]])
            return tf.raw_ops.InplaceUpdate(x=value, i=place, v=fresh)

        counts = tf.raw_ops.InplaceUpdate(x=counts, i=slots, v=kept)
        with tf.control_dependencies([counts]):
            states = self._over(put, values, state)
        with tf.control_dependencies(tf.nest.flatten(states)):
            after = tf.where(here, end[:, None], kept)
            return [tf.raw_ops.InplaceUpdate(x=counts, i=slots, v=after).op]

    def _over(self, function, values, *nests):
        values = tf.nest.pack_sequence_as(self._state, values)
        return tf.nest.map_structure(function, self._state, values, *nests)
