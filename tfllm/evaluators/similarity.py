"""How near the vectors of texts or words are, against how alike people find them."""

from collections.abc import Iterable
from typing import Any, Protocol

import numpy as np

from tfllm import metrics
from tfllm.errors import UserError
from tfllm.evaluators.asking import Asked, Row, batches, needed
from tfllm.evaluators.result import Evaluation, Vectors
from tfllm.rows import refusal


class Embedder(Protocol):
    """A `TextEmbedder` or a `Client`."""

    def embed(self, text: list[str], /) -> Any:
        """A list of one `Embedding` per row."""


def similarity(model: Embedder, rows: Iterable[Row], *, batch_size: int = 32) -> Evaluation:
    """Spearman's and Pearson's correlation of the cosines with given scores.

    Args:
        model: A live model or a client of one.
        rows: `text`, `text_pair` and `score`, a number that is greater the more they are alike.
        batch_size: Rows per call.

    Returns:
        `Evaluation` with `vectors`; a pair of which one text is refused counts as refused: a word
        that a table of words does not have.

    Raises:
        UserError: a row lacks a field or its score is no number, or no row was answered.
    """
    asked = Asked()
    cosines: list[float] = []
    wanted: list[float] = []
    points: dict[str, list[float]] = {}
    for batch in batches(rows, batch_size):
        first = len(asked.predictions) + 1
        sides = [
            [needed(row, first + i, name) for i, row in enumerate(batch)]
            for name in ("text", "text_pair")
        ]
        scores = [_number(row, first + i) for i, row in enumerate(batch)]
        found = map(model.embed, sides)  # one by one: a server may take no more rows
        for row, score, one, other in zip(batch, scores, *found, strict=True):
            cosine = float(np.dot(one.embedding, other.embedding))
            if asked.keep(row, {"predicted": cosine}, refusal(one) or refusal(other)):
                cosines.append(cosine)
                wanted.append(score)
                points[row["text"]] = one.embedding
                points[row["text_pair"]] = other.embedding
    counts = asked.counts()
    numbers = {
        "spearman": metrics.spearman(cosines, wanted),
        "pearson": metrics.pearson(cosines, wanted),
    }
    vectors = Vectors(np.array(list(points.values()), np.float32), {"text": list(points)})
    return Evaluation("similarity", numbers, counts, {}, asked.predictions, vectors=vectors)


def _number(row: Row, number: int) -> float:
    score = needed(row, number, "score")
    try:
        return float(score)
    except (TypeError, ValueError):
        raise UserError(f"Row {number}: score must be a number, got {score!r}.") from None
