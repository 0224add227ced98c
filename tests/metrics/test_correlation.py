"""Correlations against scipy's."""

import math

import pytest

from tfllm import metrics


@pytest.mark.parametrize("name", ["spearman", "pearson"])
@pytest.mark.parametrize("case", range(5))
def test_correlations_with_and_without_ties_are_scipys(case, name, recorded):
    case = recorded["correlation"][case]
    assert getattr(metrics, name)(case["x"], case["y"]) == pytest.approx(case[name], abs=1e-12)


@pytest.mark.parametrize("measure", [metrics.spearman, metrics.pearson])
def test_a_constant_column_goes_with_nothing(measure):
    assert math.isnan(measure([0.1, 0.1, 0.1], [1.0, 2.0, 3.0]))
    assert math.isnan(measure([1.0], [2.0]))
    assert math.isnan(measure([], []))


@pytest.mark.parametrize("measure", [metrics.spearman, metrics.pearson])
def test_what_is_no_number_goes_with_nothing(measure):
    assert math.isnan(measure([1.0, math.nan, 2.0], [1.0, 2.0, 3.0]))
