"""Exact match and F1 of answers against SQuAD's official script."""

import pytest

from tfllm import metrics
from tfllm.errors import UserError
from tfllm.metrics.spans import best


def test_each_question_gets_the_scores_of_the_official_script(recorded):
    case = recorded["spans"]
    rows = list(zip(case["predictions"], case["answers"], strict=True))
    assert [best(metrics.exact_match, *row) for row in rows] == case["exact"]
    assert [best(metrics.f1, *row) for row in rows] == pytest.approx(case["f1"], abs=1e-12)


def test_the_means_with_and_without_an_answer_are_the_official_ones(recorded):
    case = recorded["spans"]
    found = metrics.span_scores(case["predictions"], case["answers"])
    assert list(found) == ["all", "has_answer", "no_answer"]
    for kind, scores in found.items():
        official = case["means"][kind]
        assert scores.exact_match * 100 == pytest.approx(official["exact"])
        assert scores.f1 * 100 == pytest.approx(official["f1"])
        assert scores.num_questions == official["total"]


def test_where_every_question_has_an_answer_there_are_no_kinds():
    found = metrics.span_scores(["The red house"], [["red house", "house"]])
    assert found == {"all": metrics.SpanScores(1.0, 1.0, 1)}


def test_an_empty_answer_is_no_answer():
    found = metrics.span_scores(["", "x"], [[""], ["x"]])
    assert found["no_answer"] == metrics.SpanScores(1.0, 1.0, 1)


def test_scores_of_no_questions_are_refused():
    with pytest.raises(UserError, match="one prediction per question, got 0 predictions for 1"):
        metrics.span_scores([], [["a"]])
