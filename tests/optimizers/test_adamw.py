"""AdamW: what is decayed, what is clipped, and that two replicas equal one device."""

import contextlib

import keras
import numpy as np
import pytest
import tensorflow as tf

from tfllm.errors import UserError
from tfllm.optimizers import AdamW
from tfllm.trainers import make_strategy

VOCABULARY, LENGTH, WIDTH = 32, 8, 16


def train(optimizer, strategy=None, steps=8):
    """Losses of a small model whose embedding has a sparse gradient, and the trained model."""
    rng = np.random.default_rng(0)
    x = rng.integers(0, VOCABULARY, (8 * steps, LENGTH)).astype("int32")
    y = x * 3 % VOCABULARY
    batches = tf.data.Dataset.from_tensor_slices((x, y)).batch(8, drop_remainder=True)
    keras.utils.set_random_seed(1)
    with strategy.scope() if strategy else contextlib.nullcontext():
        ids = keras.Input((LENGTH,), dtype="int32")
        hidden = keras.layers.Embedding(VOCABULARY, WIDTH)(ids)
        hidden = keras.layers.LayerNormalization()(keras.layers.Dense(WIDTH, "gelu")(hidden))
        model = keras.Model(ids, keras.layers.Dense(VOCABULARY)(hidden))
        loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
        model.compile(optimizer(), loss, jit_compile=False)
    losses = []

    class StepLoss(keras.callbacks.Callback):
        def on_train_batch_begin(self, *_, **__):
            self.model.reset_metrics()

        def on_train_batch_end(self, _, logs):
            losses.append(logs["loss"])

    model.fit(batches, shuffle=False, verbose=0, callbacks=[StepLoss()])
    return np.array(losses), model


@pytest.mark.parametrize(
    "clip", [{}, {"clipnorm": 0.05}, {"global_clipnorm": 0.05}, {"clipvalue": 0.005}]
)
def test_two_replicas_equal_one_device(clip):
    def optimizer():
        return AdamW(1e-2, weight_decay=0.1, **clip)

    one, model_one = train(optimizer)
    two, model_two = train(optimizer, make_strategy("mirrored"))
    np.testing.assert_allclose(two, one, rtol=2e-6)
    norms = [m.optimizer.gradient_norm.numpy() for m in (model_one, model_two)]
    assert norms[1] == pytest.approx(norms[0], rel=1e-5)


def test_weight_decay_shrinks_matrices_and_leaves_vectors():
    matrix, vector = (
        keras.Variable(np.ones((2, 2)), dtype="float32"),
        keras.Variable(np.ones(2), dtype="float32"),
    )
    optimizer = AdamW(0.1, weight_decay=0.5)
    optimizer.apply([tf.zeros((2, 2)), tf.zeros(2)], [matrix, vector])
    np.testing.assert_allclose(matrix, np.full((2, 2), 0.95), rtol=1e-6)
    np.testing.assert_array_equal(vector, np.ones(2))


def test_a_sparse_gradient_gives_the_update_of_the_dense_one():
    dense, sparse = (keras.Variable(np.ones((4, 2)), dtype="float32") for _ in range(2))
    twice = tf.IndexedSlices(tf.constant([[1.0, 2.0], [3.0, -5.0]]), [2, 2], [4, 2])
    for _ in range(3):
        AdamW(0.1).apply([twice], [sparse])
        AdamW(0.1).apply([tf.convert_to_tensor(twice)], [dense])
    np.testing.assert_array_equal(sparse, dense)


def test_gradient_norm_is_the_norm_before_clipping():
    a, b = (
        keras.Variable(np.zeros((1, 1)), dtype="float32"),
        keras.Variable(np.zeros(1), dtype="float32"),
    )
    optimizer = AdamW(0.1, global_clipnorm=0.5)
    optimizer.apply([tf.constant([[3.0]]), tf.constant([4.0])], [a, b])
    assert float(optimizer.gradient_norm) == pytest.approx(5.0)
    # Adam's first moment holds (1 - beta_1) of what it was given.
    np.testing.assert_allclose(optimizer._momentums[0], [[0.1 * 0.5 * 3 / 5]], rtol=1e-5)


def test_accumulation_under_a_strategy_is_refused_with_words():
    with pytest.raises(UserError, match="gradient_accumulation_steps works on one device: got 2"):
        train(
            lambda: AdamW(1e-2, gradient_accumulation_steps=2), make_strategy("mirrored"), steps=1
        )


def test_accumulation_on_one_device_equals_the_large_batch():
    gradients = [tf.constant([[1.0]]), tf.constant([[3.0]])]
    large, small = (keras.Variable(np.ones((1, 1)), dtype="float32") for _ in range(2))
    AdamW(0.1, global_clipnorm=1.0).apply([(gradients[0] + gradients[1]) / 2], [large])
    accumulating = AdamW(0.1, global_clipnorm=1.0, gradient_accumulation_steps=2)
    for gradient in gradients:
        accumulating.apply([gradient], [small])
    np.testing.assert_allclose(small, large, rtol=1e-6)
    assert float(accumulating.gradient_norm) == pytest.approx(2.0)


def test_it_serializes_under_its_own_name():
    optimizer = AdamW(0.1, weight_decay=0.3, global_clipnorm=1.0)
    copy = keras.optimizers.deserialize(keras.optimizers.serialize(optimizer))
    assert type(copy) is AdamW
    assert copy.get_config() == optimizer.get_config()


@pytest.mark.parametrize("scales", [None, 0.5])
def test_the_norms_of_the_updates_are_those_of_what_the_step_added(scales):
    matrix = keras.Variable(np.arange(6.0).reshape(2, 3), dtype="float32", name="matrix")
    vector = keras.Variable(np.ones(3), dtype="float32", name="vector")
    scales = scales and {matrix.path: scales, vector.path: 1.0}
    rate = keras.optimizers.schedules.PolynomialDecay(0.1, 10)
    optimizer = AdamW(rate, weight_decay=0.2, scales=scales)
    optimizer.build([matrix, vector])
    for step in range(3):
        before = [variable.numpy() for variable in (matrix, vector)]
        grads = [tf.sin(matrix.value + step), tf.cos(vector.value)]
        optimizer.apply(grads)
        expected = [
            np.linalg.norm(variable.numpy() - old)
            for variable, old in zip((matrix, vector), before, strict=True)
        ]
        np.testing.assert_allclose(optimizer.update_norms(), expected, rtol=2e-5)


def test_the_norm_of_each_gradient_is_before_clipping():
    variables = [keras.Variable(np.ones(3), dtype="float32") for _ in range(2)]
    optimizer = AdamW(0.1, global_clipnorm=0.01)
    optimizer.build(variables)
    optimizer.apply_gradients(
        [(tf.fill([3], 2.0), variables[0]), (tf.fill([3], 1.0), variables[1])]
    )
    np.testing.assert_allclose(optimizer.gradient_norms, [12**0.5, 3**0.5], rtol=1e-6)
    assert optimizer.gradient_norm.numpy() == pytest.approx(15**0.5)
