"""Exact match and F1 of answers, as in the official scripts of SQuAD.

Both look at words between spaces, so they fit languages that write spaces; of others only the exact
match says something.
"""

import re
import string
from collections import Counter
from collections.abc import Callable, Sequence
from typing import NamedTuple

from tfllm.errors import UserError

_PUNCTUATION = set(string.punctuation)


class SpanScores(NamedTuple):
    """Means over questions, in [0, 1].

    Attributes:
        exact_match: Fraction of answers equal to one of the right ones, once normalised.
        f1: Overlap of words with the best of the right answers.
        num_questions: How many there were.
    """

    exact_match: float
    f1: float
    num_questions: int


def normalize_answer(text: str) -> str:
    """Lower case, without ASCII punctuation and English articles, single spaces between words.

    Source:
        `normalize_answer` of SQuAD's evaluation script, Rajpurkar et al. 2016, section 6.1.
    """
    text = "".join(c for c in text.lower() if c not in _PUNCTUATION)
    return " ".join(re.sub(r"\b(a|an|the)\b", " ", text).split())


def exact_match(prediction: str, answer: str) -> float:
    """1.0 if the two are the same once normalised."""
    return float(normalize_answer(prediction) == normalize_answer(answer))


def f1(prediction: str, answer: str) -> float:
    """Harmonic mean of the precision and the recall of words; of two empty ones 1.0.

    Source:
        `compute_f1` of the script for SQuAD 2.0. That of 1.1 differs only for an answer of nothing
        but articles and punctuation, where it gives 0.0.
    """
    found, wanted = normalize_answer(prediction).split(), normalize_answer(answer).split()
    if not found or not wanted:
        return float(found == wanted)
    shared = sum((Counter(found) & Counter(wanted)).values())
    return 2 * shared / (len(found) + len(wanted))


def best(measure: Callable[[str, str], float], prediction: str, answers: Sequence[str]) -> float:
    """The measure with the right answer that fits best; none, or only empty ones, means ""."""
    there = [answer for answer in answers if normalize_answer(answer)]
    return max(measure(prediction, answer) for answer in there or [""])


def span_scores(
    predictions: Sequence[str], answers: Sequence[Sequence[str]]
) -> dict[str, SpanScores]:
    """Exact match and F1 of predictions.

    Args:
        predictions: One per question; "" says that there is no answer.
        answers: The right answers of each question; none of them means that there is no answer.

    Returns:
        `all`; and where some questions have no answer (SQuAD 2.0), `has_answer` and `no_answer`,
        the same over the questions of each kind.

    Raises:
        UserError: there is no question, or there are not as many predictions.
    """
    if not predictions or len(predictions) != len(answers):
        raise UserError(f"Expected one prediction per question, got {len(predictions)} predictions "
                        f"for {len(answers)} questions.")  # fmt: skip
    rows = list(zip(predictions, answers, strict=True))
    has_answer = [any(several) for several in answers]
    kinds = {"all": rows}
    if not all(has_answer):
        kinds["has_answer"] = [row for row, has in zip(rows, has_answer, strict=True) if has]
        kinds["no_answer"] = [row for row, has in zip(rows, has_answer, strict=True) if not has]
    return {name: _means(those) for name, those in kinds.items() if those}


def _means(rows: list[tuple[str, Sequence[str]]]) -> SpanScores:
    exact = sum(best(exact_match, *row) for row in rows)
    overlap = sum(best(f1, *row) for row in rows)
    return SpanScores(exact / len(rows), overlap / len(rows), len(rows))
