"""What a model remembers of many texts, kept in a server from one call to the next.

The memory is in variables that a graph makes for itself at its first call. They are not saved with
the model; what one call leaves in them, the next one finds. TensorFlow Serving gives each loaded
version variables of its own.
"""

from typing import Any, NamedTuple

import tensorflow as tf

from tfllm.decoding.decodable import rounded_up

_BLOCK = 64  # entries that are read together


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


class SlotMemory:
    """Caches of attention, [s, h, t, d] of s slots and t entries each, for every cache of a model.

    Args:
        name: Begins the names of the variables.
        state: The caches as the decode loops know them: a nest of tensors, or of their specs, of
            static shape [None, h, None, d].
        num_slots: s.
        num_entries: t, rounded up to whole blocks.
    """

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

    @property
    def num_bytes(self) -> int:
        """Of all variables together."""
        return sum(v.shape[0] * v.shape[1] * v.dtype.size for v in self.variables)

    def read(self, values, slots, entries) -> Any:
        """The caches of some slots, as the model takes them.

        Args:
            values: Of the variables.
            slots: int32[b].
            entries: int32 scalar, of each row; a multiple of the block.

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
        """Writes entries of caches into slots, in place.

        Args:
            values: Of the variables; what `read` was given.
            state: As of `read`, and perhaps changed since.
            slots: int32[b].
            begin: int32[b], the first entry of each row.
            end: int32[b], behind the last one.

        Returns:
            What to wait for.
        """
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
