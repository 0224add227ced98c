"""Layer norms, against those of Keras."""

import keras
import numpy as np
import pytest
import tensorflow as tf

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


def test_a_row_does_not_depend_on_how_many_there_are_not_even_by_a_bit():
    x = RANDOM.normal(size=(19, 96)).astype("float32")
    norm = layer_norm(x.shape, dtype="float32", name="norm")
    call = tf.function(norm, input_signature=[tf.TensorSpec([None, 96])], autograph=False)
    together = call(x)
    for i, row in enumerate(x):
        np.testing.assert_array_equal(call(row[None])[0], together[i])
