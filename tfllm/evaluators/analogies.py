"""Analogies by the vectors of words: a is to b as c is to d."""

from collections.abc import Iterable, Sequence

import numpy as np

from tfllm import metrics
from tfllm.evaluators.asking import Asked, Row, batches, needed
from tfllm.evaluators.result import Evaluation, Vectors
from tfllm.evaluators.similarity import Embedder
from tfllm.rows import refusal


def analogies(
    model: Embedder,
    rows: Iterable[Row],
    *,
    words: Sequence[str] | None = None,
    batch_size: int = 256,
) -> Evaluation:
    """The fraction of analogies that are completed with the right word.

    Args:
        model: A live model or a client of one.
        rows: `a`, `b`, `c` and `d`, a word each.
        words: What d is looked for among, beside the words of the rows. Default only those, which
            is easier than the whole vocabulary: say which when numbers are compared.
        batch_size: Words per call.

    Returns:
        `Evaluation` with `vectors`. A row counts as refused if the model refuses one of its words.

    Raises:
        UserError: a row lacks a word, or no row was answered.

    Source:
        See `tfllm.metrics.nearest_by_sum`.
    """
    rows = list(rows)
    quads = [
        [needed(row, number, name) for name in "abcd"] for number, row in enumerate(rows, start=1)
    ]
    candidates = list(dict.fromkeys([*(words or ()), *(word for quad in quads for word in quad)]))
    found = [
        answer
        for batch in batches([{"text": word} for word in candidates], batch_size)
        for answer in model.embed([row["text"] for row in batch])
    ]
    errors = dict(zip(candidates, map(refusal, found), strict=True))
    known = [word for word in candidates if not errors[word]]
    place = {word: i for i, word in enumerate(known)}
    vectors = np.array([a.embedding for a in found if not refusal(a)], np.float32)
    asked = Asked()
    wanted = [quad for quad in quads if all(word in place for word in quad)]
    questions = np.array([[place[word] for word in quad] for quad in wanted], int).reshape(-1, 4)
    if len(questions):
        nearest = iter(metrics.nearest_by_sum(vectors, questions[:, :3]).tolist())
    right = 0
    for row, quad in zip(rows, quads, strict=True):
        error = next((f"{word!r}: {errors[word]}" for word in quad if errors[word]), "")
        predicted = "" if error else known[next(nearest)]
        asked.keep(row, {"predicted": predicted}, error)
        right += predicted == quad[3] and not error
    counts = asked.counts()
    numbers = {"accuracy": right / counts["answered"]}
    return Evaluation(
        "analogies",
        numbers,
        counts | {"candidates": len(known)},
        {},
        asked.predictions,
        vectors=Vectors(vectors, {"text": known}),
    )
