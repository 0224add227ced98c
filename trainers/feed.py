"""What a run is fed: batches of so many rows, or of so many positions in buckets of like length."""

import itertools
import math
from collections.abc import Callable
from typing import Any, NamedTuple, Protocol

import tensorflow as tf

from tfllm.data import Records
from tfllm.data.bucketed import Bucketed, Examples, Pairs, Texts
from tfllm.data.buckets import efficiency_of_any
from tfllm.data.objectives import Objective
from tfllm.errors import UserError
from tfllm.models import Task
from tfllm.trainers.recipe import BUDGETED, Recipe

_STANDING = 4  # of the shapes of a feed
BUCKET_ROWS = 8  # of the rows of a batch, so that 2, 4 and 8 replicas share those of one


class Size(NamedTuple):
    """Of a step.

    Attributes:
        positions: What is computed, padding included.
        tokens: The positions that hold one; None if that is not known.
        kind: Which of the feed's kinds of steps it is.
    """

    positions: int
    tokens: float | None
    kind: int = 0

    def counted(self) -> float:
        """The tokens; all positions where it is not known which hold one."""
        return self.positions if self.tokens is None else self.tokens


class Kind(NamedTuple):
    """Steps whose batches have one shape.

    Attributes:
        share: Of all steps.
        tokens: Of such a step on average, as of `Size.counted`.
        batch: `tf.TensorSpec`s of its (x, y, weight), of all replicas together.
    """

    share: float
    tokens: float
    batch: tuple[Any, Any, Any]

    def positions(self) -> int:
        """Of a batch; of texts, whose tokens are not there yet, 0."""
        return positions_of(self.batch[0])


def standing_for_all(kinds: list[Kind]) -> list[int]:
    """Of each kind, which one stands for it: one of at most four, of about the same length.

    Each shape that is traced takes seconds, and neighbours in length differ by little.
    """
    groups = min(_STANDING, len(kinds))
    edges = [round(i * len(kinds) / groups) for i in range(groups + 1)]
    return [
        max(range(begin, end), key=lambda i: kinds[i].share)
        for begin, end in itertools.pairwise(edges)
        for _ in range(begin, end)
    ]


class Feed(Protocol):
    """The batches of a run."""

    def train(self, start: int, count: int) -> tf.data.Dataset:
        """Those of the training from a step on, each decided by the seed and the step alone."""
        ...

    def validation(self) -> tf.data.Dataset:
        """One pass over the validation split, the same each time."""
        ...

    def size(self, step: int) -> Size:
        """Of a step of the training, from 0."""
        ...

    def kinds(self) -> list[Kind]:
        """What shapes the steps have."""
        ...

    def one_of_each(self) -> tf.data.Dataset:
        """A batch of each of the kinds."""
        ...

    def described(self) -> str:
        """In words and numbers, with the steps of the recipe."""
        ...


class RowFeed:
    """`global_batch` rows per step, as they are stored.

    Args:
        recipe: The run's.
        records: Its data.
        objective: What is learned from them.
    """

    def __init__(self, recipe: Recipe, records: Records, objective: Objective):
        self._recipe, self._records, self._objective = recipe, records, objective
        self._batch = self.train(0, 1).element_spec
        positions = positions_of(self._batch[0]) or recipe.global_batch * records.sequence_length
        self._filled = records.meta["splits"]["train"].get("packing_efficiency")
        self._size = Size(positions, self._filled and self._filled * positions)

    def train(self, start, count):
        return self._records.batches(
            "train",
            self._recipe.global_batch,
            self._objective,
            seed=self._recipe.seed,
            start_step=start,
            num_steps=count,
        )

    def validation(self):
        return self._records.batches(
            "validation", self._recipe.global_batch, self._objective, shuffle=False
        )

    def size(self, step):  # noqa: ARG002 - all are alike
        return self._size

    def kinds(self):
        return [Kind(1.0, self._size.counted(), self._batch)]

    def one_of_each(self):
        return self.train(0, 1)

    def described(self):
        recipe, tokens = self._recipe, self._recipe.global_batch * self._records.sequence_length
        epochs = recipe.steps * recipe.global_batch / self._records.num_rows("train")
        filled = f"; {self._filled:.1%} of the places hold tokens" if self._filled else ""
        return (
            f"{recipe.steps:,} steps of {recipe.global_batch} rows x "
            f"{self._records.sequence_length} = {tokens:,} tokens: {recipe.steps * tokens:,} "
            f"tokens, {epochs:.2g} times {recipe.data}{filled}."
        )


class BucketFeed:
    """At most `batch_tokens` positions per step, in rows of like length.

    Args:
        recipe: The run's.
        records: Its data.
        objective: What is learned from them.
        model: Its preprocessor reads what is stored as texts.
        replicas: How many share a batch.

    Raises:
        UserError: the task has no such batches, or the budget is too small.
    """

    def __init__(
        self, recipe: Recipe, records: Records, objective: Objective, model: Task, replicas: int
    ):
        if records.task not in BUDGETED:
            raise UserError(
                f"batch_tokens is for data of {', '.join(BUDGETED)}: those of {records.task} are "
                "packed without padding, use global_batch."
            )

        def examples(split) -> Examples:
            if records.task == "seq2seq_lm":
                return Pairs(records, split, objective)
            padding_id = model.preprocessor.tokenizer.padding_id
            return Texts(records, split, objective, _preprocessed(model), padding_id)

        splits = [split for split in ("train", "validation") if records.num_rows(split)]
        self._recipe = recipe
        self._bucketed = Bucketed(
            {split: examples(split) for split in splits},
            recipe.batch_tokens,
            recipe.length_buckets,
            multiple=math.lcm(BUCKET_ROWS, replicas * recipe.microbatches),
            seed=recipe.seed,
        )

    def train(self, start, count):
        return self._bucketed.batches(start, count)

    def validation(self):
        return self._bucketed.one_pass()

    def size(self, step):
        order = self._bucketed.train
        batch = order[step]
        return Size(order.positions(batch), order.tokens(batch), batch.bucket)

    def kinds(self):
        order = self._bucketed.train
        batches = [
            tf.nest.map_structure(lambda t: None if t is None else tf.TensorSpec.from_tensor(t), b)
            for b in self.one_of_each()
        ]
        return list(map(Kind, order.shares(), order.mean_tokens(), batches))

    def one_of_each(self):
        return self._bucketed.one_of_each()

    def described(self):
        recipe, order = self._recipe, self._bucketed.train
        per_epoch = order.steps_per_epoch()
        rows = max(1, round(len(order.lengths) / per_epoch))
        shapes = ", ".join(f"{b.rows} x {'+'.join(map(str, b.shape))}" for b in order.buckets)
        return (
            f"{recipe.steps:,} steps of at most {recipe.batch_tokens:,} tokens, "
            f"{recipe.steps / per_epoch:.2g} times {recipe.data} ({per_epoch:,.1f} steps each).\n"
            f"{len(order.buckets)} buckets (rows x tokens): {shapes}.\n"
            f"{order.efficiency():.1%} of the places hold tokens; "
            f"{efficiency_of_any(order.lengths, rows):.1%} would in batches of {rows} texts of any "
            "length."
        )


def make_feed(
    recipe: Recipe, records: Records, objective: Objective, model: Task, replicas: int
) -> Feed:
    """The feed that a recipe asks for.

    Raises:
        UserError: as of `BucketFeed`.
    """
    if recipe.batch_tokens:
        return BucketFeed(recipe, records, objective, model, replicas)
    return RowFeed(recipe, records, objective)


def are_token_ids(x: Any) -> bool:
    """Whether the inputs of a batch are what a backbone takes, and no texts."""
    return isinstance(x, dict) and any(name.endswith("token_ids") for name in x)


def positions_of(x: Any) -> int:
    """Of all sides of the inputs of a batch; 0 of texts, whose number of tokens is not known."""
    if not are_token_ids(x):
        return 0
    return sum(math.prod(ids.shape) for name, ids in x.items() if name.endswith("token_ids"))


def _preprocessed(model: Task) -> Callable[..., tuple[Any, Any, Any]]:
    def preprocess(x, y, weight):
        found = model.preprocess_samples(x, y, weight)
        return tuple(found) + (None,) * (3 - len(found))

    return preprocess
