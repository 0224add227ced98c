"""Layer norms, against those of Keras."""

import keras
import numpy as np
import pytest

from tfllm.layers import layer_norm

RANDOM = np.random.default_rng(0)


@pytest.mark.parametrize("policy", ["float32", "mixed_bfloat16"])
def test_a_layer_norm_is_that_of_keras(policy):
    x = RANDOM.normal(3.0, size=(2, 5, 8)).astype("float32")
    ours = layer_norm(x.shape, epsilon=0.1, dtype=policy, name="ours")
    there = keras.layers.LayerNormalization(epsilon=0.1, dtype=policy)
    there.build(x.shape)
    weights = [RANDOM.normal(size=8), RANDOM.normal(size=8)]
    ours.set_weights(weights)
    there.set_weights(weights)
    y, expected = ours(x), there(x)
    assert y.dtype == expected.dtype
    tolerance = 1e-5 if policy == "float32" else 2e-2
    np.testing.assert_allclose(
        keras.ops.cast(y, "float32"), keras.ops.cast(expected, "float32"), tolerance, tolerance
    )
