"""The fast ways over a vocabulary give what the plain ops give."""

import numpy as np
import pytest
import tensorflow as tf

from tfllm.decoding.vocabulary import best, log_total


@pytest.mark.parametrize("size", [5, 97, 128, 1009, 4000, 12288])
@pytest.mark.parametrize("k", [1, 4, 16])
def test_the_best_are_those_of_top_k_also_among_equals(size, k):
    k = min(k, size)
    rng = np.random.default_rng(size)
    for scores in (
        rng.normal(size=[6, size]),
        rng.integers(0, 4, [6, size]),  # many equals
        np.where(rng.random([6, size]) < 0.9, -np.inf, 1.0),
    ):
        scores = tf.constant(scores, tf.float32)
        values, indices = best(scores, k)
        expected = tf.math.top_k(scores, k)
        np.testing.assert_array_equal(values, expected.values)
        # Of what is impossible anything may be named.
        possible = np.isfinite(values)
        np.testing.assert_array_equal(indices.numpy()[possible], expected.indices.numpy()[possible])
        assert (indices.numpy() < size).all()


@pytest.mark.parametrize("spread", [1e-3, 1.0, 50.0])
def test_the_total_is_that_of_reduce_logsumexp(spread):
    logits = tf.constant(np.random.default_rng(1).normal(100, spread, [7, 5000]), tf.float32)
    np.testing.assert_allclose(log_total(logits), tf.reduce_logsumexp(logits, -1), rtol=1e-6)


@pytest.mark.parametrize("size", [257, 330, 1000])
def test_the_total_of_a_row_is_to_the_bit_that_of_the_row_alone(size):
    logits = tf.constant(np.random.default_rng(0).normal(0, 3, [64, size]), tf.float32)
    alone = [log_total(logits[row : row + 1])[0] for row in range(64)]
    np.testing.assert_array_equal(log_total(logits), alone)
