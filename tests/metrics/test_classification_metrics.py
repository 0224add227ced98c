"""Counts of labels against the numbers that scikit-learn recorded, and what has no value."""

import math

import numpy as np
import pytest

from tfllm import metrics


@pytest.fixture(params=range(4), ids=["two", "four", "two missing", "one class only"])
def case(request, recorded):
    return recorded["classification"][request.param]


def matrix_of(case):
    return metrics.confusion_matrix(case["truth"], case["predicted"], case["num_classes"])


def test_the_confusion_matrix_is_scikit_learns(case):
    np.testing.assert_array_equal(matrix_of(case), case["confusion"])


def test_accuracy_and_matthews_are_scikit_learns(case):
    assert metrics.accuracy(matrix_of(case)) == pytest.approx(case["accuracy"], abs=1e-12)
    assert metrics.matthews(matrix_of(case)) == pytest.approx(case["matthews"], abs=1e-12)


def test_precision_recall_and_f1_are_scikit_learns(case):
    matrix = matrix_of(case)
    np.testing.assert_allclose(metrics.per_class(matrix), case["per_class"], atol=1e-12)
    np.testing.assert_allclose(metrics.macro(matrix), case["macro"], atol=1e-12)
    np.testing.assert_allclose(metrics.micro(matrix), case["micro"], atol=1e-12)


@pytest.mark.parametrize("name", ["roc_auc", "average_precision"])
def test_areas_under_curves_with_tied_scores_are_scikit_learns(case, name):
    truth, scores = np.array(case["truth"]), np.array(case["scores"])
    measure = getattr(metrics, name)
    for c, expected in case[name].items():
        found = measure(truth == int(c), scores[:, int(c)])
        assert found == pytest.approx(expected, abs=1e-12)
    if case[name]:
        mean = metrics.one_vs_rest(measure, truth, scores)
        assert mean == pytest.approx(np.mean(list(case[name].values())), abs=1e-12)


def test_an_area_has_no_value_where_a_side_is_missing():
    assert math.isnan(metrics.roc_auc([False, False], [0.1, 0.2]))
    assert math.isnan(metrics.roc_auc([True, True], [0.1, 0.2]))
    assert math.isnan(metrics.average_precision([False, False], [0.1, 0.2]))
    assert metrics.average_precision([True, True], [0.1, 0.2]) == 1.0
    assert math.isnan(metrics.one_vs_rest(metrics.roc_auc, [0, 0], [[0.5, 0.5], [0.1, 0.9]]))


def test_equal_scores_make_an_area_of_one_half():
    assert metrics.roc_auc([True, False, False], [0.5, 0.5, 0.5]) == 0.5
    assert metrics.average_precision([True, False, False, True], [0.5] * 4) == 0.5


def test_nothing_has_no_accuracy():
    nothing = metrics.confusion_matrix([], [], 2)
    assert math.isnan(metrics.accuracy(nothing))
    assert all(map(math.isnan, metrics.macro(nothing)))
    assert metrics.matthews(nothing) == 0.0


def test_matthews_of_many_rows_does_not_overflow():
    matrix = np.array([[2_000_000_000, 0], [0, 2_000_000_000]])
    assert metrics.matthews(matrix) == pytest.approx(1.0)


@pytest.mark.parametrize("measure", [metrics.roc_auc, metrics.average_precision])
def test_scores_that_are_no_numbers_have_no_area(measure):
    assert math.isnan(measure([True, False, True], [0.5, 0.4, math.nan]))
