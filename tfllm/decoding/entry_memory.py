"""Memories of attention: an entry of every token, so that any beginning of a text may be kept."""

from typing import Any

import tensorflow as tf

from tfllm.decoding.decodable import rounded_up
from tfllm.decoding.slot_memory import GraphVariable

_BLOCK = 64  # entries that are read together


class EntryMemory:
    """Caches of attention, [s, h, t, d] of s slots and t entries each, for every cache of a model.

    Args:
        name: Begins the names of the variables.
        state: The caches as the decode loops know them: a nest of tensors, or of their specs, of
            static shape [None, h, None, d].
        num_slots: s.
        num_entries: t, rounded up to whole blocks.

    Attributes:
        variables, read_at_once: As of `SlotMemory`.
    """

    read_at_once = 32  # new shapes make new kernels

    def __init__(self, name: str, state, num_slots: int, num_entries: int):
        self._state = state
        self._num_blocks = rounded_up(num_entries, _BLOCK) // _BLOCK
        self.variables = [
            GraphVariable(
                f"{name}/{i}",
                leaf.dtype,
                (num_slots * leaf.shape[1] * self._num_blocks, _BLOCK * leaf.shape[3]),
            )
            for i, leaf in enumerate(tf.nest.flatten(state))
        ]

    def reusable(self, common, num_read):  # noqa: ARG002 - what is behind is written over
        """As of `SlotMemory`: all that they have in common."""
        return common

    def read(self, values, slots, count, entries, num_source_tokens=None) -> Any:  # noqa: ARG002 - so many and more
        """As of `SlotMemory`.

        Returns:
            A nest of float[b, h, entries, d]. Behind the entries that a slot has, anything.
        """
        blocks = tf.minimum(tf.range(entries // _BLOCK), self._num_blocks - 1)

        def rows(value, leaf):
            _, heads, _, width = leaf.shape
            of_head = slots[:, None] * heads + tf.range(heads)
            cache = tf.gather(value, of_head[..., None] * self._num_blocks + blocks)
            cache = tf.reshape(cache, tf.stack([tf.size(slots), heads, entries, width]))
            cache.set_shape([None, heads, None, width])
            return cache

        return self._over(rows, values)

    def write(self, values, state, slots, begin, end) -> list[tf.Operation]:
        """As of `SlotMemory`; a row with `begin` writes its last entry as it was."""
        count = tf.reduce_max(tf.concat([end - begin, [1]], 0))
        # Rows with fewer entries write their last one several times.
        place = tf.minimum(begin[:, None] + tf.range(count), tf.maximum(end, 1)[:, None] - 1)
        place = tf.minimum(place, self._num_blocks * _BLOCK - 1)[:, None]  # [b, 1, n]
        own = tf.range(tf.size(slots))

        def put(value, leaf, cache):
            _, heads, _, width = leaf.shape
            head = tf.range(heads)[:, None]
            entries = tf.shape(cache)[2]
            old = ((own[:, None, None] * heads + head) * entries) + place  # [b, h, n]
            new = (slots[:, None, None] * heads + head) * self._num_blocks * _BLOCK + place
            fresh = tf.gather(tf.reshape(cache, [-1, width]), tf.reshape(old, [-1]))
            return tf.raw_ops.InplaceUpdate(
                x=tf.reshape(value, [-1, width]), i=tf.reshape(new, [-1]), v=fresh
            )

        written = self._over(put, values, state)
        return [tensor.op for tensor in tf.nest.flatten(written)]

    def _over(self, function, values, *nests):
        values = tf.nest.pack_sequence_as(self._state, values)
        return tf.nest.map_structure(
            lambda leaf, *others: function(others[0], leaf, *others[1:]),
            self._state,
            values,
            *nests,
        )
