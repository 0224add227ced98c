import keras
import numpy as np
import pytest
import tensorflow as tf

from tfllm.layers import PositionEmbedding, TokenEmbedding

IDS = tf.constant([[0, 3, 3], [1, 3, 0]])


def test_lookup_gives_rows_of_the_table():
    layer = TokenEmbedding(5, 4)
    np.testing.assert_array_equal(layer(IDS), layer.embeddings.numpy()[IDS.numpy()])


def test_tied_scores_use_the_table_of_the_lookup():
    layer = TokenEmbedding(5, 4)
    hidden = tf.random.normal([2, 3, 4])
    logits = layer(hidden, reverse=True)
    assert len(layer.weights) == 1
    np.testing.assert_allclose(logits, hidden.numpy() @ layer.embeddings.numpy().T, atol=1e-6)


def test_untied_scores_use_a_table_of_their_own():
    layer = TokenEmbedding(5, 4, tied=False)
    hidden = tf.random.normal([2, 3, 4])
    logits = layer(hidden, reverse=True)
    table, output = layer.get_weights()
    assert np.abs(table - output).max() > 1e-3
    np.testing.assert_allclose(logits, hidden.numpy() @ output.T, atol=1e-6)


def test_scores_are_float32_under_mixed_precision():
    layer = TokenEmbedding(5, 4, dtype="mixed_bfloat16")
    hidden = layer(IDS)
    assert hidden.dtype == tf.bfloat16
    assert layer(hidden, reverse=True).dtype == tf.float32


@pytest.mark.parametrize("layer", [TokenEmbedding(5, 3), PositionEmbedding(5, 3)])
def test_adam_sees_the_sum_of_the_gradients_of_a_token_that_occurs_twice(layer):
    weight = tf.random.normal([2, 3, 3])
    layer.build(None)

    def second_moment(look_up):
        adam = keras.optimizers.Adam()
        with tf.GradientTape() as tape:
            loss = tf.reduce_sum(look_up() * weight)
        adam.apply_gradients([(tape.gradient(loss, layer.embeddings.value), layer.embeddings)])
        return adam.variables[-1]

    one_hot = tf.one_hot(IDS, 5)
    expected = second_moment(lambda: tf.einsum("btv,vm->btm", one_hot, layer.embeddings.value))
    np.testing.assert_allclose(second_moment(lambda: layer(IDS)), expected, rtol=1e-5)
