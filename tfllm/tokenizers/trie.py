"""All occurrences of many strings in texts, in the graph."""

from collections.abc import Sequence

import numpy as np
import tensorflow as tf

_CODE_POINTS = 1 << 21  # more than Unicode has


class Trie:
    """Strings by their prefixes: sorted edges (node, code point), found by binary search.

    Args:
        strings: Not empty, all different.
    """

    def __init__(self, strings: Sequence[str]):
        self.longest = max(map(len, strings))
        edges: dict[int, int] = {}  # to the number of the node that they lead to; 0 is the root
        last = []
        for string in strings:
            node = 0
            for character in string:
                edge = node * _CODE_POINTS + ord(character)
                node = edges.setdefault(edge, len(edges) + 1)
            last.append(node)
        self._edges = np.array([*sorted(edges), np.iinfo(np.int64).max])
        self._nodes = np.array([*(edges[edge] for edge in sorted(edges)), 0], np.int32)
        self._strings = np.full(len(edges) + 1, -1, np.int32)
        self._strings[last] = np.arange(len(strings))

    def find(self, characters: tf.RaggedTensor, none: int) -> tf.Tensor:
        """The strings that end at each character.

        Args:
            characters: Ragged int32[b, None], code points.
            none: What stands for no string.

        Returns:
            int32[n, longest] for the n characters of all rows: the number of the string of each
            length that ends with each character.
        """
        n = tf.size(characters.values)
        rows = characters.value_rowids()
        # A stop after each row, which begins no edge.
        stops = tf.fill([characters.nrows(), 1], -1)
        stopped = tf.concat([characters, stops], 1)
        points = tf.cast(stopped.values, tf.int64)
        edges = tf.constant(self._edges)
        found = tf.TensorArray(
            tf.int32, 0, dynamic_size=True, infer_shape=False, element_shape=[None]
        )

        def step(length, starts, nodes, places, numbers):
            """Prolongs by one character the prefixes that begin at `starts` and led to `nodes`."""
            edge = tf.cast(nodes, tf.int64) * _CODE_POINTS + tf.gather(points, starts + length)
            index = tf.raw_ops.LowerBound(sorted_inputs=edges[None], values=edge[None])[0]
            goes_on = tf.where(tf.gather(edges, index) == edge)[:, 0]
            starts, index = tf.gather(starts, goes_on), tf.gather(index, goes_on)
            nodes = tf.gather(self._nodes, index)
            number = tf.gather(self._strings, nodes)
            is_string = tf.where(number >= 0)[:, 0]
            place = (tf.gather(starts, is_string) + length) * self.longest + length
            places = places.write(length, place)
            numbers = numbers.write(length, tf.gather(number, is_string))
            return length + 1, starts, nodes, places, numbers

        starts = tf.range(n) + tf.cast(rows, tf.int32)
        *_, places, numbers = tf.while_loop(
            lambda length, starts, *_: (length == 0) | (tf.size(starts) > 0),
            step,
            [0, starts, tf.zeros([n], tf.int32), found, found],
            shape_invariants=[
                tf.TensorShape([]),
                *[tf.TensorShape([None])] * 2,
                *[tf.TensorShape(None)] * 2,
            ],
        )
        places = places.concat()
        before = tf.gather(stopped.value_rowids(), places // self.longest)
        places -= tf.cast(before, tf.int32) * self.longest
        flat = tf.fill([n * self.longest], none)
        flat = tf.tensor_scatter_nd_update(flat, places[:, None], numbers.concat())
        return tf.reshape(flat, [n, self.longest])
