"""Answers found in texts against the right ones."""

from collections.abc import Iterable, Mapping
from typing import Any, Protocol

from tfllm import metrics
from tfllm.errors import UserError
from tfllm.evaluators.asking import Asked, Row, batches, needed
from tfllm.evaluators.result import Evaluation
from tfllm.metrics.spans import best
from tfllm.rows import refusal


class Finder(Protocol):
    """A `SpanQA` or a `Client`."""

    def answer(self, question: list[str], context: list[str], /) -> Any:
        """A list of one `Answer` per row."""


def span_qa(model: Finder, rows: Iterable[Row], *, batch_size: int = 8) -> Evaluation:
    """Exact match and F1 of SQuAD.

    Args:
        model: A live model or a client of one.
        rows: `question`, `context`, and `answers`, the right answers: a list of texts, or SQuAD's
            {"text": [...]} or [{"text": ...}]; or `answer`, a single one. None, or "", says that
            there is no answer.
        batch_size: Rows per call.

    Returns:
        `Evaluation` with `exact_match` and `f1` in [0, 1]; where some rows have no answer, the
        same for the rows with an answer (`has_answer_f1`) and without (`no_answer_f1`).

    Raises:
        UserError: a row lacks a field or its answers are no texts, or no row was answered.
    """
    asked = Asked()
    found: list[str] = []
    right: list[list[str]] = []
    for batch in batches(rows, batch_size):
        first = len(asked.predictions) + 1
        questions = [needed(row, first + i, "question") for i, row in enumerate(batch)]
        contexts = [needed(row, first + i, "context") for i, row in enumerate(batch)]
        answers = [_answers(row, first + i) for i, row in enumerate(batch)]
        for row, several, answer in zip(
            batch, answers, model.answer(questions, contexts), strict=True
        ):
            said = {
                "predicted": answer.answer,
                "score": answer.score,
                "start": answer.start,
                "end": answer.end,
                "f1": best(metrics.f1, answer.answer, several),
            }
            if asked.keep(row, said, refusal(answer)):
                found.append(answer.answer)
                right.append(several)
    counts = asked.counts()
    numbers: dict[str, float] = {}
    for kind, scores in metrics.span_scores(found, right).items():
        prefix = "" if kind == "all" else f"{kind}_"
        numbers |= {f"{prefix}exact_match": scores.exact_match, f"{prefix}f1": scores.f1}
        if prefix:
            counts[kind] = scores.num_questions
    return Evaluation("span_qa", numbers, counts, {}, asked.predictions)


def _answers(row: Row, number: int) -> list[str]:
    answers = row["answers"] if row.get("answers") is not None else row.get("answer") or ""
    answers = needed(answers, number, "text") if isinstance(answers, Mapping) else answers
    several = [answers] if isinstance(answers, str) else answers
    if isinstance(several, list | tuple):
        several = [needed(a, number, "text") if isinstance(a, Mapping) else a for a in several]
    if not isinstance(several, list | tuple) or not all(isinstance(a, str) for a in several):
        raise UserError(f"Row {number}: expected a text or a list of texts, got {answers!r}.")
    return [answer for answer in several if answer]
