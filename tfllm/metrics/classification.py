"""How well labels and their scores fit the truth.

Classes are numbers from 0. What has no value, as the AUC of a class that no row has, is NaN.
"""

from typing import NamedTuple

import numpy as np


class Average(NamedTuple):
    """Precision, recall and F1, of one class or as a mean.

    Attributes:
        precision: Of the rows that were given the class, the fraction that has it.
        recall: Of the rows that have the class, the fraction that was given it.
        f1: Their harmonic mean.
    """

    precision: float
    recall: float
    f1: float


def confusion_matrix(truth, predicted, num_classes: int) -> np.ndarray:
    """Counts of every pair of classes.

    Args:
        truth: int[n], the class of each row.
        predicted: int[n], the class that a model gave it.
        num_classes: c.

    Returns:
        int64[c, c], row = truth, column = predicted.
    """
    cells = np.asarray(truth, np.int64) * num_classes + np.asarray(predicted, np.int64)
    counts = np.bincount(cells, minlength=num_classes * num_classes)
    return counts.reshape(num_classes, num_classes)


def accuracy(matrix: np.ndarray) -> float:
    """The fraction of rows that were given their own class; int[c, c] as `confusion_matrix`."""
    return _ratio(np.trace(matrix), matrix.sum(), empty=np.nan)


def per_class(matrix: np.ndarray) -> list[Average]:
    """Each class against the rest, from int[c, c]; 0 where a class has no rows to divide by."""
    right = np.diag(matrix)
    return [
        _average(hit, given, there)
        for hit, given, there in zip(right, matrix.sum(0), matrix.sum(1), strict=True)
    ]


def macro(matrix: np.ndarray) -> Average:
    """The plain mean over the classes that are the truth or the prediction of some row.

    A class that the data does not have, and that nothing was taken for, says nothing of the model.

    Source:
        The default of `precision_recall_fscore_support(average="macro")` of scikit-learn.
    """
    seen = (matrix.sum(0) + matrix.sum(1)) > 0
    classes = [average for average, is_seen in zip(per_class(matrix), seen, strict=True) if is_seen]
    if not classes:
        return Average(np.nan, np.nan, np.nan)
    return Average(*(float(np.mean(column)) for column in zip(*classes, strict=True)))


def micro(matrix: np.ndarray) -> Average:
    """Over all rows at once; where each row has one class, each of the three is the accuracy."""
    total = matrix.sum()
    return _average(np.trace(matrix), total, total)


def matthews(matrix: np.ndarray) -> float:
    """Matthews correlation coefficient of int[c, c], in [−1, 1]; 0 if one side has one class.

    Source:
        Gorodkin 2004, "Comparing two K-category assignments by a K-category correlation
        coefficient", equation 8.
    """
    truth, given = matrix.sum(1).astype(float), matrix.sum(0).astype(float)
    total = float(matrix.sum())
    covariance = float(np.trace(matrix)) * total - truth @ given
    spread = (total**2 - truth @ truth) * (total**2 - given @ given)
    return _ratio(covariance, np.sqrt(spread))


def roc_auc(is_positive, score) -> float:
    """The probability that a positive row scores above a negative one, ties counting one half.

    Args:
        is_positive: bool[n].
        score: float[n].

    Returns:
        In [0, 1]; NaN without a positive or without a negative row, or with a score that is NaN.

    Source:
        Mann and Whitney 1947: the area under the curve is their U over the number of pairs.
    """
    is_positive = np.asarray(is_positive, bool)
    num_positive = int(is_positive.sum())
    num_negative = is_positive.size - num_positive
    rank_sum = ranks(score)[is_positive].sum()
    u = rank_sum - num_positive * (num_positive + 1) / 2
    return _ratio(u, num_positive * num_negative, empty=np.nan)


def average_precision(is_positive, score) -> float:
    """The area under the precision-recall curve, as steps: Σ (Rₙ − Rₙ₋₁) Pₙ.

    Args:
        is_positive: bool[n].
        score: float[n]; rows of equal score are one step.

    Returns:
        In [0, 1]; NaN without a positive row, or with a score that is NaN.

    Source:
        `average_precision_score` of scikit-learn, which does not interpolate.
    """
    is_positive, score = np.asarray(is_positive, bool), np.asarray(score, float)
    if not is_positive.any() or np.isnan(score).any():
        return float("nan")
    order = np.argsort(-score, kind="stable")
    last_of_step = np.append(np.diff(score[order]) != 0, True)
    hits = np.cumsum(is_positive[order])[last_of_step]
    precision = hits / (np.flatnonzero(last_of_step) + 1)
    recall = hits / hits[-1]
    return float(np.sum(np.diff(recall, prepend=0.0) * precision))


def one_vs_rest(measure, truth, scores) -> float:
    """The plain mean of a binary measure over the classes.

    Args:
        measure: `roc_auc` or `average_precision`.
        truth: int[n], the class of each row.
        scores: float[n, c].

    Returns:
        NaN if no class has a value; classes without one (all rows, or none) are left out.
    """
    truth, scores = np.asarray(truth), np.asarray(scores)
    found = [measure(truth == c, scores[:, c]) for c in range(scores.shape[1])]
    found = [value for value in found if not np.isnan(value)]
    return float(np.mean(found)) if found else float("nan")


def ranks(values) -> np.ndarray:
    """float[n], the rank of each value from 1; equal values share the mean of their ranks.

    With a NaN among the values, which is nowhere in their order, no rank is a number.
    """
    values = np.asarray(values, float)
    if np.isnan(values).any():
        return np.full(values.shape, np.nan)
    _, group, counts = np.unique(values, return_inverse=True, return_counts=True)
    last = np.cumsum(counts)
    return (last - (counts - 1) / 2)[group]


def _average(hit, given, there) -> Average:
    precision, recall = _ratio(hit, given), _ratio(hit, there)
    return Average(precision, recall, _ratio(2 * hit, given + there))


def _ratio(over, under, empty: float = 0.0) -> float:
    return float(over / under) if under else empty
