"""Analogies against gensim's answers."""

import math

import numpy as np

from tfllm import metrics
from tfllm.metrics import analogies


def test_the_nearest_words_are_gensims(recorded, monkeypatch):
    case = recorded["analogies"]
    monkeypatch.setattr(analogies, "_ROWS", 16)  # several blocks, the last one short
    found = metrics.nearest_by_sum(np.array(case["vectors"]), np.array(case["questions"]))
    np.testing.assert_array_equal(found, case["nearest"])


def test_accuracy_counts_the_fourth_word():
    vectors = np.array([[1, 0], [1, 1], [2, 0.1], [0.4, 1], [0, -1], [0, 0]])
    assert metrics.analogy_accuracy(vectors, [[0, 1, 2, 3], [0, 1, 2, 4]]) == 0.5
    assert math.isnan(metrics.analogy_accuracy(vectors, np.empty((0, 4), int)))
