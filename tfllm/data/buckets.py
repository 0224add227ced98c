"""Batches of a budget of positions: examples of like length together, by the step alone.

The order is an endless stream of epochs. In each, every bucket's examples are permuted by (seed,
epoch, bucket) and cut into batches; what does not fill a batch is carried to the next epoch, whose
permutation goes on behind it. So every batch is full, and after e epochs each example has been in e
batches, but for less than one batch of each bucket, which comes next. The batches of an epoch come
in random order, by (seed, epoch).

Names: `batch_type: tokens` and `length_bucket_width` of OpenNMT-tf, `--max-tokens` of fairseq,
`tf.data.Dataset.bucket_by_sequence_length`. Theirs fill up as the data go by, and depend on all
that came before.
"""

from __future__ import annotations

import functools
from typing import NamedTuple

import numpy as np

from tfllm.errors import UserError


class Bucket(NamedTuple):
    """Examples that are padded alike.

    Attributes:
        shape: Positions of each side of an example: one of a text, two of a source and a target.
        rows: Examples of a batch.
    """

    shape: tuple[int, ...]
    rows: int

    def positions(self) -> int:
        """Of a batch, padding included."""
        return self.rows * sum(self.shape)


def choose_buckets(lengths: np.ndarray, budget: int, most: int, multiple: int = 8) -> list[Bucket]:
    """Buckets with little padding, from the lengths of the data: a handful of static shapes.

    It begins with one bucket, as wide as the longest example, and splits again and again, at that
    length of that side which saves the most positions. No bucket has fewer examples than a batch.

    Args:
        lengths: int[n, sides], tokens of each example.
        budget: Positions of a batch at most.
        most: How many buckets at most.
        multiple: What the rows of every batch are a multiple of.

    Returns:
        The buckets, the narrowest first.

    Raises:
        UserError: the budget is too small for `multiple` of the longest examples.
    """

    def rows_of(width):
        return budget // (width * multiple) * multiple

    kinds, counts = np.unique(lengths, axis=0, return_counts=True)
    longest = kinds.max(0)
    if not rows_of(longest.sum()):
        raise UserError(
            f"batch_tokens must be at least {multiple * longest.sum():,}, {multiple} rows of the "
            f"longest example ({' + '.join(map(str, longest))} tokens): got {budget:,}."
        )
    groups = [(kinds, counts)]
    splits = [_best_split(kinds, counts, rows_of)]
    while len(groups) < most:
        best = max(range(len(splits)), key=lambda i: splits[i][0])
        saved, parts = splits.pop(best)
        groups.pop(best)
        if not saved:
            groups.append(parts[0])
            break
        groups += parts
        splits += [_best_split(kinds, counts, rows_of) for kinds, counts in parts]
    shapes = {tuple(int(side) for side in kinds.max(0)) for kinds, _ in groups}
    ordered = sorted(shapes, key=lambda shape: (sum(shape), shape))
    return [Bucket(shape, int(rows_of(sum(shape)))) for shape in ordered]


def _best_split(kinds, counts, rows_of):
    """Positions that the best split in two saves, and its parts; 0 and the whole if there is none.

    Args:
        kinds: int[m, sides], different lengths.
        counts: int[m], examples of each.
        rows_of: From int[m], positions of an example, to the rows of a batch.
    """
    total = counts.sum()
    least = whole = total * kinds.max(0).sum()
    parts = [(kinds, counts)]
    for side in range(kinds.shape[1]):
        order = np.argsort(kinds[:, side], kind="stable")
        these, each = kinds[order], counts[order]
        before = np.cumsum(each)[:-1]
        width_before = np.maximum.accumulate(these)[:-1].sum(1)
        width_behind = np.maximum.accumulate(these[::-1])[::-1][1:].sum(1)
        positions = before * width_before + (total - before) * width_behind
        allowed = (
            (these[1:, side] > these[:-1, side])
            & (before >= rows_of(width_before))
            & (total - before >= rows_of(width_behind))
        )
        positions = np.where(allowed, positions, whole)
        if len(positions) and positions.min() < least:
            least, i = positions.min(), positions.argmin() + 1
            parts = [(these[:i], each[:i]), (these[i:], each[i:])]
    return whole - least, parts


class Batch(NamedTuple):
    """What a step trains on.

    Attributes:
        bucket: Which bucket, as a place among the buckets.
        examples: int64[rows], the numbers of its examples.
        is_filling: bool[rows], examples that stand there only because a batch is full.
    """

    bucket: int
    examples: np.ndarray
    is_filling: np.ndarray


class BucketOrder:
    """Which examples each step has: a pure function of the seed and the step.

    Memory: 4 bytes per example, and as much for each of two permutations.

    Args:
        lengths: int[n, sides], tokens of each example.
        buckets: From the narrowest to the widest; an example goes into the first that it fits.
        seed: Of the permutations.

    Attributes:
        lengths: As given.
        buckets: As given.
        members: Of each bucket the numbers of its examples, int32.
    """

    def __init__(self, lengths: np.ndarray, buckets: list[Bucket], seed: int = 0):
        self.lengths = lengths
        self.buckets = buckets
        self._seed = seed
        fits = np.stack([(lengths <= bucket.shape).all(1) for bucket in buckets])
        assert fits.any(0).all(), "buckets are chosen from all lengths"
        place = fits.argmax(0)
        self.members = [np.flatnonzero(place == i).astype(np.int32) for i in range(len(buckets))]
        # Two epochs meet in a batch, and one more while the next epoch's first is asked for.
        self._permutation = functools.lru_cache(3 * len(buckets))(self._permuted)
        self._order = functools.lru_cache(2)(self._ordered)

    def __getitem__(self, step: int) -> Batch:
        """The batch of a step of the training, from 0."""
        epoch = self.epoch(step)
        order = self._order(epoch)
        bucket, number = order[step - self.first_step(epoch)]
        members, rows = self.members[bucket], self.buckets[bucket].rows
        place = number * rows + np.arange(rows)
        epochs, place = np.divmod(place, len(members))
        examples = np.empty(rows, np.int64)
        for one in np.unique(epochs):
            here = epochs == one
            examples[here] = self._permutation(bucket, int(one))[place[here]]
        return Batch(int(bucket), examples, np.zeros(rows, bool))

    def first_step(self, epoch: int) -> int:
        """The step with which an epoch begins; their number may differ by one per bucket."""
        return sum(
            len(m) * epoch // b.rows for m, b in zip(self.members, self.buckets, strict=True)
        )

    def epoch(self, step: int) -> int:
        """The epoch of a step."""
        epoch = int(step / self.steps_per_epoch())
        while self.first_step(epoch) > step:
            epoch -= 1
        while self.first_step(epoch + 1) <= step:
            epoch += 1
        return epoch

    def steps_per_epoch(self) -> float:
        """On average."""
        return sum(len(m) / b.rows for m, b in zip(self.members, self.buckets, strict=True))

    def one_pass(self) -> list[Batch]:
        """Every example once, the batches mixed; the last one of a bucket is filled up."""
        found = []
        for i, (members, bucket) in enumerate(zip(self.members, self.buckets, strict=True)):
            for start in range(0, len(members), bucket.rows):
                place = start + np.arange(bucket.rows)
                examples = members[place % len(members)].astype(np.int64)
                found.append(Batch(i, examples, place >= len(members)))
        order = np.random.default_rng([self._seed, 0]).permutation(len(found))
        return [found[i] for i in order]

    def tokens(self, batch: Batch) -> int:
        """Of a batch, padding left out."""
        return int(self.lengths[batch.examples[~batch.is_filling]].sum())

    def positions(self, batch: Batch) -> int:
        """Of a batch, padding included."""
        return self.buckets[batch.bucket].positions()

    def shares(self) -> list[float]:
        """Of all steps, those of each bucket; they add up to 1."""
        steps = [len(m) / b.rows for m, b in zip(self.members, self.buckets, strict=True)]
        return [count / sum(steps) for count in steps]

    def mean_tokens(self) -> list[float]:
        """Of a batch of each bucket on average, padding left out."""
        return [
            float(self.lengths[members].sum() / max(1, len(members)) * bucket.rows)
            for members, bucket in zip(self.members, self.buckets, strict=True)
        ]

    def efficiency(self) -> float:
        """Tokens of the examples as a share of their positions."""
        places = sum(len(m) * sum(b.shape) for m, b in zip(self.members, self.buckets, strict=True))
        return float(self.lengths.sum() / places)

    def _permuted(self, bucket: int, epoch: int) -> np.ndarray:
        draw = np.random.default_rng([self._seed, epoch, bucket + 1])
        return draw.permutation(self.members[bucket])

    def _ordered(self, epoch: int) -> np.ndarray:
        """int[batches, 2], the bucket and the number of each batch of an epoch."""
        batches = [
            (i, number)
            for i, (members, bucket) in enumerate(zip(self.members, self.buckets, strict=True))
            for number in range(
                len(members) * epoch // bucket.rows, len(members) * (epoch + 1) // bucket.rows
            )
        ]
        return np.random.default_rng([self._seed, epoch, 0]).permutation(np.array(batches), axis=0)


def efficiency_of_any(lengths: np.ndarray, rows: int, seed: int = 0) -> float:
    """Tokens as a share of positions, in batches of any lengths, each padded to its longest.

    Args:
        lengths: int[n, sides], tokens of each example.
        rows: Examples of a batch.
        seed: Of the order in which they are taken.
    """
    mixed = np.random.default_rng(seed).permutation(lengths)
    starts = np.arange(0, len(mixed), rows)
    longest = np.maximum.reduceat(mixed, starts)
    sizes = np.diff(np.append(starts, len(mixed)))
    return float(mixed.sum() / (longest.sum(1) * sizes).sum())
