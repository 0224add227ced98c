"""What an evaluation found: numbers, counts, every answer, and what pictures are made of."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np


class ClassScores(NamedTuple):
    """What a classifier said of the rows that it answered.

    Attributes:
        labels: Names of the classes.
        truth: int[n], the class of each row.
        scores: float32[n, c], its scores in [0, 1].
        matrix: int64[c, c], row = truth, column = prediction.
    """

    labels: list[str]
    truth: np.ndarray
    scores: np.ndarray
    matrix: np.ndarray


class Vectors(NamedTuple):
    """Texts as points.

    Attributes:
        vectors: float32[n, m].
        columns: What is known of each, n strings per column: its text first.
    """

    vectors: np.ndarray
    columns: dict[str, list[str]]


@dataclass(frozen=True)
class Evaluation:
    """What one evaluation found.

    Attributes:
        task: Its name, as "classification".
        metrics: Number by name. NaN where a metric has no value, as the AUC of data with one
            class. Those of rows are over the rows that the model answered.
        counts: `rows`, `answered`, `refused`, and what else the task counts.
        details: What is behind the numbers, as values of JSON: settings, signatures, classes.
        predictions: One per row, in their order: the row's fields and the model's answer; `error`
            where the model refused it.
        classes: Of a classifier.
        vectors: Of an embedder.
    """

    task: str
    metrics: dict[str, float]
    counts: dict[str, int]
    details: dict[str, Any] = field(default_factory=dict)
    predictions: list[dict[str, Any]] = field(default_factory=list)
    classes: ClassScores | None = None
    vectors: Vectors | None = None

    def as_json(self) -> dict[str, Any]:
        """The numbers as values of JSON, which has no NaN: null has no value."""
        return {
            "task": self.task,
            "metrics": without_nan(self.metrics),
            "counts": self.counts,
            "details": without_nan(self.details),
        }


def without_nan(value: Any) -> Any:
    """Numbers, in dicts and lists, with None for what JSON cannot hold."""
    if isinstance(value, np.ndarray | np.generic):  # of rows that a program gave
        value = value.tolist()
    if isinstance(value, Mapping):
        return {name: without_nan(each) for name, each in value.items()}
    if isinstance(value, list | tuple):
        return [without_nan(each) for each in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
