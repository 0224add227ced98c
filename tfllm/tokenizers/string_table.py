"""Looking strings up in a table that never changes, in the graph."""

from collections.abc import Mapping

import numpy as np
import tensorflow as tf

_BUCKETS = 2**62


class StringTable:
    """Strings to ids: a binary search among fingerprints, then a comparison of the strings.

    There is no resource in it, so a SavedModel has nothing to initialize.

    Args:
        ids: Id of each string.
    """

    def __init__(self, ids: Mapping[str, int]):
        with tf.init_scope():
            keys = tf.strings.to_hash_bucket_fast(tf.constant(list(ids), tf.string), _BUCKETS)
        order = np.argsort(keys.numpy(), kind="stable")
        self._keys = np.array([*keys.numpy()[order], _BUCKETS])
        strings = [string.encode() for string in ids]
        self._strings = [*(strings[i] for i in order), b""]
        self._ids = np.array([*np.array(list(ids.values()), np.int64)[order], 0], np.int32)

    def find(self, strings: tf.Tensor, default: int) -> tf.Tensor:
        """int32[n], the ids of string[n]; `default` for those that are not in the table."""
        keys = tf.strings.to_hash_bucket_fast(strings, _BUCKETS)
        found = tf.searchsorted(tf.constant(self._keys), keys)
        same = tf.gather(tf.constant(self._strings), found) == strings
        return tf.where(same & (strings != b""), tf.gather(self._ids, found), default)
