"""Metrics against the installed reference libraries, on random cases."""

import numpy as np
import pytest

from tfllm import metrics

reference = pytest.importorskip("sklearn.metrics")
stats = pytest.importorskip("scipy.stats")


@pytest.mark.parametrize("seed", range(20))
def test_random_labels_have_the_numbers_of_scikit_learn(seed):
    draw = np.random.default_rng(seed)
    c, n = draw.integers(2, 7), draw.integers(5, 80)
    truth, predicted = draw.integers(0, c, n), draw.integers(0, c, n)
    scores = np.round(draw.random((n, c)), 1)
    matrix = metrics.confusion_matrix(truth, predicted, c)
    assert metrics.accuracy(matrix) == pytest.approx(reference.accuracy_score(truth, predicted))
    assert metrics.matthews(matrix) == pytest.approx(
        reference.matthews_corrcoef(truth, predicted), abs=1e-12
    )
    for how in ("macro", "micro"):
        expected = reference.precision_recall_fscore_support(
            truth, predicted, average=how, zero_division=0
        )[:3]
        np.testing.assert_allclose(getattr(metrics, how)(matrix), expected, atol=1e-12)
    for k in set(truth.tolist()):
        for name in ("roc_auc", "average_precision"):
            expected = getattr(reference, f"{name}_score")(truth == k, scores[:, k])
            found = getattr(metrics, name)(truth == k, scores[:, k])
            assert found == pytest.approx(expected, abs=1e-12)


@pytest.mark.parametrize("seed", range(20))
def test_random_columns_have_the_correlations_of_scipy(seed):
    draw = np.random.default_rng(seed)
    x, y = draw.integers(0, 9, 25), draw.normal(size=25)
    assert metrics.spearman(x, y) == pytest.approx(stats.spearmanr(x, y).statistic, abs=1e-12)
    assert metrics.pearson(x, y) == pytest.approx(stats.pearsonr(x, y).statistic, abs=1e-12)
