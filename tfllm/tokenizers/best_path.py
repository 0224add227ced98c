"""The best paths through texts of which the possible pieces are known, in the graph."""

from typing import NamedTuple

import numpy as np
import tensorflow as tf


class Segments(NamedTuple):
    """Parts of the texts that are independent but for rounding, in the order of the texts.

    Attributes:
        starts: int32[s], the first character of each.
        of: int32[n], the segment of each character.
        order: int32[n], the characters by their place in their segment, then by its length, the
            longest first.
        counts: int32[longest segment], how many segments have each place.
    """

    starts: tf.Tensor
    of: tf.Tensor
    order: tf.Tensor
    counts: tf.Tensor

    def edges(self, before, after):
        """bool[n]: where the segment changes, with the values at the ends of all."""
        changes = self.of[1:] != self.of[:-1]
        return tf.concat([before, changes, after], 0)[: tf.size(self.of)]


def segments_of(found: tf.Tensor) -> Segments:
    """The segments of texts, one after the other.

    Args:
        found: bool[n, longest], whether a piece of each length ends with each character.
    """
    n, longest = tf.unstack(tf.shape(found))
    places = tf.range(n)
    lengths = tf.reduce_max(tf.where(found, tf.range(1, longest + 1), 1), 1)
    begun = tf.math.unsorted_segment_sum(tf.ones_like(places), places - lengths + 1, n)
    is_free = tf.cumsum(begun - 1) == 0  # no piece lies across the end of the character
    of = tf.cumsum(tf.cast(is_free, tf.int32), exclusive=True)
    starts = tf.boolean_mask(places, tf.concat([[True], is_free], 0)[:n])
    sizes = tf.math.bincount(of, dtype=tf.int32)
    rank = tf.math.invert_permutation(tf.argsort(sizes, direction="DESCENDING", stable=True))
    place = places - tf.gather(starts, of)
    counts = tf.math.bincount(place, dtype=tf.int32)
    turn = tf.gather(tf.cumsum(counts, exclusive=True), place) + tf.gather(rank, of)
    return Segments(starts, of, tf.math.invert_permutation(turn), counts)


def best_path(scores: tf.Tensor, segments: Segments, starting: tf.Tensor):
    """The ends and the lengths of the tokens of the best path, int32[t] each.

    Args:
        scores: float32[n, longest], of the piece of each length that ends at each character.
        segments: Of the characters.
        starting: float32[s], the score of the path before each segment.
    """
    n, longest = tf.unstack(tf.shape(scores))
    after = _best_scores(scores, segments, starting)
    before = tf.roll(after, 1, 0)
    before = tf.where(segments.edges([True], []), tf.gather(starting, segments.of), before)
    places, lengths = tf.range(n), tf.range(1, longest + 1)
    begins = tf.maximum(places[:, None] - lengths + 1, 0)
    is_best = tf.gather(before, begins) + scores == after[:, None]
    lengths = tf.reduce_max(tf.where(is_best, lengths, 0), 1)
    ends = tf.cast(tf.where(_on_path(places - lengths, segments)[:, None])[:, 0], tf.int32)
    return ends, tf.gather(lengths, ends)


def _best_scores(scores, segments, starting):
    """float32[n], of the best path to the end of each character."""
    s, longest = tf.size(segments.starts), scores.shape[1]
    in_turn = tf.reverse(tf.gather(scores, segments.order), [1])
    first = tf.gather(starting, tf.gather(segments.of, segments.order[:s]))
    # The best scores at the places that a piece may begin at, the farthest one first.
    window = tf.concat([tf.fill([s, longest - 1], -np.inf), first[:, None]], 1)
    turns = tf.size(segments.counts)
    best = tf.TensorArray(tf.float32, turns + 1, infer_shape=False, element_shape=[None])

    def step(turn, done, window, best):
        count = segments.counts[turn]
        window = window[:count]  # the shorter segments are at their ends
        now = tf.reduce_max(window + in_turn[done : done + count], 1)
        window = tf.concat([window[:, 1:], now[:, None]], 1)
        return turn + 1, done + count, window, best.write(turn, now)

    *_, best = tf.while_loop(
        lambda turn, *_: turn < turns,
        step,
        [0, 0, window, best.write(turns, tf.zeros([0]))],
        shape_invariants=[
            tf.TensorShape([]),
            tf.TensorShape([]),
            tf.TensorShape([None, longest]),
            tf.TensorShape(None),
        ],
    )
    return tf.gather(best.concat(), tf.math.invert_permutation(segments.order))


def _on_path(previous, segments):
    """bool[n]: whether the path that goes back to `previous` from each last end is at an end.

    Jumps of one token, then of two, of four, … reach all of them in a few steps.
    """
    n = tf.size(previous)

    def double(reached, jumps, _):
        hit = tf.math.unsorted_segment_sum(tf.ones_like(jumps), tf.where(reached, jumps, -1), n) > 0
        further = tf.where(jumps < 0, -1, tf.gather(jumps, tf.maximum(jumps, 0)))
        return reached | hit, further, tf.reduce_any(hit & ~reached)

    reached, *_ = tf.while_loop(
        lambda *state: state[-1],
        double,
        [segments.edges([], [True]), previous, True],
    )
    return reached


def scores_before(scores, ends, segments: Segments, characters: tf.RaggedTensor) -> tf.Tensor:
    """The score of a path before each segment: those of its tokens, added one by one.

    Args:
        scores: float32[t], of the tokens of the path through all rows.
        ends: int32[t], the last character of each.
        segments: Of the n characters.
        characters: Ragged [b, None], of which only the rows count.

    Returns:
        float32[s].
    """
    rows = tf.gather(characters.value_rowids(), ends)
    scores = tf.RaggedTensor.from_value_rowids(scores, rows, characters.nrows(), validate=False)
    sums = tf.RaggedTensor.from_tensor(tf.cumsum(scores.to_tensor(), 1), scores.row_lengths())
    after = tf.scatter_nd(ends[:, None], sums.values, [tf.size(segments.of)])
    before = tf.gather(after, tf.maximum(segments.starts - 1, 0))
    row_starts = tf.cast(characters.row_starts(), tf.int32)
    first = tf.gather(row_starts, tf.gather(characters.value_rowids(), segments.starts))
    return tf.where(segments.starts == first, 0.0, before)
