"""Byte-pair encoding of many words at once, in the graph, with nothing but static tables."""

from typing import NamedTuple

import tensorflow as tf

from tfllm.tokenizers.merge_table import NEVER, MergeTable

# How far a round looks for what may hold a pair back: so many tokens beyond its neighbours. With
# none a word of 100,000 random letters takes 864 rounds, with one 150, with two 18, with four 6;
# usual texts take 7 to 9 with any.
_SIGHT = 2


class MergeTensors(NamedTuple):
    """A `MergeTable` as tensors: `keys` int64[k + 1], closed by the highest value; the rest."""

    keys: tf.Tensor
    entries: tf.Tensor
    base: int
    in_order: bool

    @classmethod
    def of(cls, table: MergeTable) -> "MergeTensors":
        keys = tf.concat([table.keys, [tf.int64.max]], 0)
        return cls(keys, tf.constant(table.entries), table.base, table.in_order)


def merge(table: MergeTensors, tokens: tf.Tensor, words: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
    """Merges neighbouring tokens within words until nothing is left to merge.

    The result is that of merging, again and again, the leftmost of the pairs of least rank. If
    the table is `in_order`, that order goes through the ranks once: what a merge makes has merges
    of higher ranks only. So each merge can be said to have a time, its rank, and a round can merge
    at once every pair whose time will come as it stands:

    - if its first token is not taken by what is on its left up to that time, and its second one
      not by what is on its right before that time (`_chosen`). The merged token changes nothing
      for the neighbours until then;
    - in a run of one token, aaaa, the first pair, the third, … if the run's first pair is safe on
      its left and its last pair on its right;
    - and the pairs of the least rank of each word, whose time is now. So every round gets on.

    In a table that is not in order a merge may be followed by one of a lower rank, so a round
    merges just the leftmost pair of the least rank of each word.

    Args:
        table: The merges.
        tokens: int32[n].
        words: int32[n], number of the word that a token is of; rising from 0.

    Returns:
        The tokens and the words after it.

    Source:
        Sennrich et al. 2016, https://arxiv.org/abs/1508.07909; the order is that of `merge_all`
        in Hugging Face `tokenizers` (models/bpe/word.rs).
    """

    def some_left(merged_some, tokens, words):  # noqa: ARG001
        return merged_some & (tf.size(tokens) > 1)

    def one_round(merged_some, tokens, words):  # noqa: ARG001
        a, b = tf.cast(tokens[:-1], tf.int64), tf.cast(tokens[1:], tf.int64)
        word = words[:-1]
        key = tf.where(tf.equal(word, words[1:]), a * table.base + b, -1)
        at = tf.searchsorted(table.keys, key)
        at = tf.where(tf.equal(tf.gather(table.keys, at), key), at, tf.size(table.keys) - 1)
        rank, merged, before_b, after_a = tf.unstack(tf.gather(table.entries, at), axis=1)
        if table.in_order:
            chosen = _chosen(tf.equal(a, b) & (key >= 0), word, rank, before_b, after_a)
        else:
            chosen = _leftmost_least(word, rank)
        tokens = tf.concat([tf.where(chosen, merged, tokens[:-1]), tokens[-1:]], 0)
        kept = tf.where(~tf.concat([[False], chosen], 0))[:, 0]
        return tf.reduce_any(chosen), tf.gather(tokens, kept), tf.gather(words, kept)

    _, tokens, words = tf.while_loop(
        some_left,
        one_round,
        (tf.constant(True), tokens, words),
        shape_invariants=(tf.TensorShape([]), tf.TensorShape([None]), tf.TensorShape([None])),
    )
    return tokens, words


def _chosen(twins, word, rank, before_b, after_a):
    """Which of m pairs are merged in a round, bool[m].

    Args:
        twins: bool[m], pairs of a token with itself.
        word: int32[m].
        rank: int32[m], of the pair's merge.
        before_b: int32[m], as in `MergeTable`; so is after_a.
        after_a: int32[m].
    """
    # The earliest time at which b may be taken by what is on its left: at the pair's own rank by
    # a as it is, or by what a grows into, not before a itself is taken by what is on its left.
    from_left, from_right = before_b, after_a
    for _ in range(_SIGHT):
        from_left = tf.minimum(rank, tf.maximum(before_b, _of_previous(from_left)))
        from_right = tf.minimum(rank, tf.maximum(after_a, _of_next(from_right)))
    safe_left = rank < _of_previous(from_left)
    safe_right = rank <= _of_next(from_right)  # of equal pairs, which share b, this one goes first
    # A run of twins is one stretch, any other pair is one of its own.
    opens = tf.concat([[True], ~(twins[1:] & twins[:-1])], 0)
    stretch = tf.cumsum(tf.cast(opens, tf.int32)) - 1
    first = tf.cast(tf.where(opens)[:, 0], tf.int32)
    last = tf.concat([first[1:], [tf.size(rank)]], 0) - 1
    safe = tf.gather(safe_left, first) & tf.gather(safe_right, last)
    place = tf.range(tf.size(rank)) - tf.gather(first, stretch)
    now = tf.equal(rank, tf.gather(tf.math.segment_min(rank, word), word))
    return (tf.gather(safe, stretch) | now) & tf.equal(place & 1, 0) & (rank < NEVER)


def _of_previous(values):
    return tf.concat([[NEVER], values[:-1]], 0)


def _of_next(values):
    return tf.concat([values[1:], [NEVER]], 0)


def _leftmost_least(word, rank):
    order = tf.cast(rank, tf.int64) * 2**32 + tf.range(tf.size(rank, tf.int64))
    least = tf.gather(tf.math.segment_min(order, word), word)
    return tf.equal(order, least) & (rank < NEVER)
