"""Prepared examples in batches of a budget of positions, see `buckets.py`."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol

import numpy as np
import tensorflow as tf

from tfllm.data.buckets import Batch, Bucket, BucketOrder, choose_buckets
from tfllm.data.objectives import Objective
from tfllm.data.records import Records, shared_among_workers, weighted_alone
from tfllm.errors import UserError

_SCANNED = 256  # rows that are read together for their lengths


class Examples(Protocol):
    """Examples of one split.

    Attributes:
        lengths: int32[n, sides], tokens of each.
    """

    lengths: np.ndarray

    def batch(self, examples, place, buckets: list[Bucket], seed) -> tuple[Any, Any, Any]:
        """(x, y, weight) of a batch, padded to the shape of its bucket.

        Args:
            examples: int64[b], their numbers.
            place: int32 scalar, which of the buckets they are of.
            buckets: All there are.
            seed: int64[2], the run's seed and the step.
        """
        ...


class Pairs:
    """The pairs of a source and a target that `prepare` packed, each in a row of its own.

    Args:
        records: Data of seq2seq_lm.
        split: One that has rows.
        objective: `tfllm.data.objectives.Pairs`.
    """

    def __init__(self, records: Records, split: str, objective: Objective):
        self._records, self._split, self._objective = records, split, objective
        rows, begins, lengths = [], [], []
        count = records.num_rows(split)
        for start in range(0, count, _SCANNED):
            these = np.arange(start, min(start + _SCANNED, count))
            columns = records.columns(split, these)
            found = [
                _pieces(columns[f"{side}_segments"].numpy()) for side in ("encoder", "decoder")
            ]
            rows.append(these[found[0][0]])
            begins.append(np.stack([begin for _, begin, _ in found], 1))
            lengths.append(np.stack([length for *_, length in found], 1))
        self._rows = np.concatenate(rows)
        self._begins = np.concatenate(begins).astype(np.int32)
        self.lengths = np.concatenate(lengths).astype(np.int32)

    def batch(self, examples, place, buckets, seed):
        def of(bucket):  # the noise of an objective wants sizes that it can see
            return lambda: self._padded(
                tf.ensure_shape(examples, [bucket.rows]), bucket.shape, seed
            )

        return tf.switch_case(place, [of(bucket) for bucket in buckets])

    def _padded(self, examples, shape, seed):
        def places(examples):
            return self._rows[examples], self._begins[examples], self.lengths[examples]

        size = examples.shape[0]
        rows, begins, lengths = tf.numpy_function(
            places, [examples], [tf.int64, tf.int32, tf.int32]
        )
        rows.set_shape([size])
        for columns in (begins, lengths):
            columns.set_shape([size, len(shape)])
        packed = self._records.columns(self._split, rows)
        columns = {}
        for i, (side, width) in enumerate(zip(("encoder", "decoder"), shape, strict=True)):
            place = tf.range(width)[None]
            there = tf.ensure_shape(place < lengths[:, i, None], [size, width])
            at = tf.where(there, begins[:, i, None] + place, 0)
            ids = tf.gather(packed[f"{side}_ids"], at, batch_dims=1)
            columns[f"{side}_ids"] = tf.where(there, ids, self._records.tokenizer.padding_id)
            columns[f"{side}_segments"] = tf.cast(there, tf.int32)
        return self._objective(columns, seed)


def _pieces(segments: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Of each piece of packed rows its row, where it begins and its tokens.

    Args:
        segments: int[b, t], 1, 2, … for the pieces of a row, 0 behind them.
    """
    around = np.pad(segments, ((0, 0), (1, 1)))
    row, begin = np.nonzero((segments > 0) & (segments != around[:, :-2]))
    _, end = np.nonzero((segments > 0) & (segments != around[:, 2:]))
    return row, begin, end + 1 - begin


class Texts:
    """Examples that are stored as texts, as a model's own preprocessor reads them.

    Args:
        records: The prepared data.
        split: One that has rows.
        objective: Of the training.
        preprocess: From (x, y, weight) of texts to those of token ids, padded at their ends: x has
            `token_ids` and `padding_mask`, int32[k * b, t], k rows for each example.
        padding_id: What fills token ids.
    """

    def __init__(
        self,
        records: Records,
        split: str,
        objective: Objective,
        preprocess: Callable[..., tuple[Any, Any, Any]],
        padding_id: int,
    ):
        self._records, self._split, self._objective = records, split, objective
        self._preprocess, self._padding_id = preprocess, padding_id

        @tf.autograph.experimental.do_not_convert
        def tokens(x, y, weight):
            x, _, weight = preprocess(x, y, weight)
            counts = tf.reduce_sum(x["padding_mask"], -1)
            counts = tf.reshape(counts, [tf.shape(weight)[0], -1])
            # The texts of an example are rows of one batch, which have one width.
            return tf.ones_like(counts) * tf.reduce_max(counts, -1, keepdims=True), counts

        batches = records.batches(split, _SCANNED, objective, shuffle=False)
        found = list(batches.map(tokens).as_numpy_iterator())
        count = records.num_rows(split)
        self.lengths = np.concatenate([widest for widest, _ in found])[:count].astype(np.int32)

    def batch(self, examples, place, buckets, seed):
        columns = self._records.columns(self._split, examples)
        x, y, weight = self._preprocess(*self._objective(columns, seed))
        width = tf.gather([bucket.shape[0] for bucket in buckets], place)

        def fitted(name, tensor):
            filling = self._padding_id if name == "token_ids" else 0
            more = tf.maximum(width - tf.shape(tensor)[1], 0)
            padded = tf.pad(tensor, [[0, 0], [0, more]], constant_values=filling)
            return padded[:, :width]  # it may have been padded to a little more

        return {name: fitted(name, tensor) for name, tensor in x.items()}, y, weight


class Bucketed:
    """Batches of a budget of positions.

    Args:
        examples: By split; of `validation` only if there are any.
        budget: Positions of a batch at most, over all replicas together, padding included.
        most: How many buckets at most.
        multiple: What the rows of each batch are a multiple of.
        seed: Of the order, and of what the objective draws.

    Attributes:
        train: The order of the training.
        validation: That of one pass over the validation split; None without one.

    Raises:
        UserError: as of `choose_buckets`.
    """

    def __init__(  # noqa: PLR0913
        self,
        examples: dict[str, Examples],
        budget: int,
        most: int,
        *,
        multiple: int = 8,
        seed: int = 0,
    ):
        self._examples, self._seed = examples, seed
        lengths = np.concatenate([of.lengths for of in examples.values()])
        buckets = choose_buckets(lengths, budget, most, multiple)
        self.train = BucketOrder(examples["train"].lengths, buckets, seed)
        self.validation = None
        if "validation" in examples:
            self.validation = BucketOrder(examples["validation"].lengths, buckets)

    def batches(self, start_step: int, num_steps: int) -> tf.data.Dataset:
        """Of the training, from a step on; nothing but the seed and the step decides one.

        Returns:
            Dataset of (x, y, weight) as the objective makes them.
        """
        return self._dataset("train", self.train.__getitem__, start_step, num_steps, self._seed)

    def one_pass(self) -> tf.data.Dataset:
        """Every example of the validation split once, and the same batches each time."""
        if self.validation is None:
            raise UserError("There are no validation rows: prepare more text.")
        batches = self.validation.one_pass()
        return self._dataset("validation", batches.__getitem__, 0, len(batches), 0)

    def one_of_each(self) -> tf.data.Dataset:
        """A batch of the training of each bucket, in their order."""

        def batch(place):
            members, bucket = self.train.members[place], self.train.buckets[place]
            examples = np.resize(members, bucket.rows).astype(np.int64)
            return Batch(place, examples, np.zeros(bucket.rows, bool))

        return self._dataset("train", batch, 0, len(self.train.buckets), self._seed)

    def _dataset(self, split, batch_of: Callable[[int], Batch], start, count, seed):
        of, buckets = self._examples[split], self.train.buckets

        def find(step):
            found = batch_of(int(step))
            return np.int32(found.bucket), found.examples, found.is_filling

        @tf.autograph.experimental.do_not_convert
        def batch(step):
            place, examples, filling = tf.numpy_function(
                find, [step], [tf.int32, tf.int64, tf.bool]
            )
            place.set_shape([])
            examples.set_shape([None])
            x, y, weight = of.batch(examples, place, buckets, tf.stack([seed, step]))
            weight = tf.nest.map_structure(lambda w: weighted_alone(w, ~filling), weight)
            return x, y, weight

        steps = tf.data.Dataset.counter(start).take(count)
        return shared_among_workers(steps.map(batch).prefetch(tf.data.AUTOTUNE))
