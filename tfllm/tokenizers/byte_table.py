"""Some bytes for each token, looked up in the graph."""

from collections.abc import Sequence

import numpy as np
import tensorflow as tf

_CPU = "/device:CPU:0"  # strings are nowhere else


class ByteTable:
    """Bytes by token id, kept as numbers.

    In a graph, every string of a table is an object of its own, and so it is in each copy that a
    server makes of the graph while it loads a model. Numbers are one block of memory.

    Args:
        entries: The bytes of each id.

    Attributes:
        longest: Bytes of the longest entry.
    """

    def __init__(self, entries: Sequence[bytes]):
        lengths = list(map(len, entries))
        self.longest = max(lengths, default=0)
        self._size = len(lengths)
        # Eager tensors: a graph that uses them holds references, and a SavedModel one copy for
        # all signatures.
        with tf.init_scope(), tf.device(_CPU):
            self._bytes = tf.constant(np.frombuffer(b"".join(entries), np.uint8))
            # One entry more, empty, is for ids that are none.
            self._starts = tf.constant(np.cumsum([0, *lengths, 0]), tf.int32)
            self._letters = tf.constant([bytes([value]) for value in range(256)])

    def look_up(self, ids: tf.Tensor) -> tf.Tensor:
        """string[...], the entries of int[...] ids; "" for an id that is not in the table."""
        with tf.device(_CPU):
            flat = tf.reshape(ids, [-1])
            none = tf.cast(self._size, flat.dtype)
            flat = tf.where((flat >= 0) & (flat < none), flat, none)
            places = tf.ragged.range(
                tf.gather(self._starts, flat), tf.gather(self._starts, flat + 1)
            )
            letters = tf.gather(
                self._letters, tf.cast(tf.gather(self._bytes, places.values), tf.int32)
            )
            joined = tf.strings.unsorted_segment_join(
                letters, places.value_rowids(), tf.size(flat, tf.int64)
            )
            return tf.reshape(joined, tf.shape(ids))
