"""Labels of a classifier against the true ones."""

from collections.abc import Iterable, Sequence
from typing import Any, Protocol

import numpy as np

from tfllm import metrics
from tfllm.errors import UserError
from tfllm.evaluators.asking import Asked, Row, batches, needed
from tfllm.evaluators.result import ClassScores, Evaluation
from tfllm.rows import refusal


class Classifier(Protocol):
    """A `TextClassifier` or a `Client`."""

    def classify(self, text: list[str], text_pair: list[str] | None = None, /) -> Any:
        """A list of one `Classification` per row."""


def classification(
    model: Classifier,
    rows: Iterable[Row],
    *,
    batch_size: int = 32,
    positive: str | None = None,
) -> Evaluation:
    """Accuracy, precision, recall, F1, Matthews, and the areas under the curves.

    Args:
        model: A live classifier or a client of one.
        rows: `text`, optionally `text_pair`, and `label`: one of the model's labels; or its number
            from 0 where no label is a number.
        batch_size: Rows per call.
        positive: Of two labels the one whose curves are measured; default the second. Of more
            labels the areas are the mean over the classes, each against the rest.

    Returns:
        `Evaluation` with `classes`; metrics in [0, 1], Matthews in [−1, 1].

    Raises:
        UserError: a row has no text or a label that the model does not have, `positive` is no
            label, or no row was answered.
    """
    asked = Asked()
    truth: list[int] = []
    predicted: list[int] = []
    scores: list[Sequence[float]] = []
    labels: list[str] = []
    for batch in batches(rows, batch_size):
        first = len(asked.predictions) + 1
        texts = [needed(row, first + i, "text") for i, row in enumerate(batch)]
        pairs = [row.get("text_pair", "") for row in batch]
        for i, (row, answer) in enumerate(zip(batch, model.classify(texts, pairs), strict=True)):
            labels = answer.labels
            number = _class_of(needed(row, first + i, "label"), labels, first + i)
            said = {"predicted": answer.label, "score": answer.score, "scores": answer.scores}
            if asked.keep(row, said, refusal(answer)):
                truth.append(number)
                predicted.append(labels.index(answer.label))
                scores.append(answer.scores)
    counts = asked.counts()
    matrix = metrics.confusion_matrix(truth, predicted, len(labels))
    classes = ClassScores(labels, np.array(truth), np.array(scores, np.float32), matrix)
    numbers = _from_matrix(matrix) | _areas(classes, positive)
    return Evaluation(
        "classification", numbers, counts, _details(classes), asked.predictions, classes=classes
    )


def _class_of(label: Any, labels: list[str], row: int) -> int:
    name = str(label)
    if name in labels:
        return labels.index(name)
    # Where names are numbers themselves, as stars from 1 to 5, one that is none is no place.
    is_place = name.isdecimal() and not any(each.isdecimal() for each in labels)
    if is_place and int(name) < len(labels):
        return int(name)
    raise UserError(
        f"Row {row} has the label {label!r}; the model knows {', '.join(map(repr, labels))}."
    )


def _from_matrix(matrix: np.ndarray) -> dict[str, float]:
    means = {"macro": metrics.macro(matrix), "micro": metrics.micro(matrix)}
    return {
        "accuracy": metrics.accuracy(matrix),
        **{
            f"{name}_{how}": value
            for how, average in means.items()
            for name, value in average._asdict().items()
        },
        "matthews": metrics.matthews(matrix),
    }


def _areas(classes: ClassScores, positive: str | None) -> dict[str, float]:
    measures = {"roc_auc": metrics.roc_auc, "average_precision": metrics.average_precision}
    if positive is not None and positive not in classes.labels:
        raise UserError(f"positive must be one of {', '.join(classes.labels)}, got {positive!r}.")
    if positive is None and len(classes.labels) != 2:
        return {
            name: metrics.one_vs_rest(measure, classes.truth, classes.scores)
            for name, measure in measures.items()
        }
    c = classes.labels.index(positive) if positive is not None else 1
    return {
        name: measure(classes.truth == c, classes.scores[:, c])
        for name, measure in measures.items()
    }


def _details(classes: ClassScores) -> dict[str, Any]:
    averages = metrics.per_class(classes.matrix)
    rows = classes.matrix.sum(1).tolist()
    return {
        "classes": {
            label: {**average._asdict(), "rows": count}
            for label, average, count in zip(classes.labels, averages, rows, strict=True)
        },
        "confusion": classes.matrix.tolist(),
    }
