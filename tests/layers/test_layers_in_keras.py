"""Every layer is a good citizen of Keras: config, functional API, mixed precision, files."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from tfllm import layers

FLOATS = ((None, 8), "float32")
IDS = ((None,), "int32")

# Layer, its inputs (shape without the batch, dtype), and how they are given.
CASES = {
    "attention": (
        lambda **k: layers.MultiHeadAttention(
            2, dropout=0.1, kernel_initializer=keras.initializers.RandomNormal(0.1), **k
        ),
        {"x": FLOATS},
    ),
    "cross_attention": (
        lambda **k: layers.MultiHeadAttention(2, 3, use_bias=False, scale=1.0, **k),
        {"x": FLOATS, "memory": ((None, 6), "float32")},
    ),
    "dropout": (lambda **k: layers.Dropout(0.3, **k), {"x": FLOATS}),
    "embedding": (
        lambda **k: layers.TokenEmbedding(9, 4, tied=False, embeddings_initializer="normal", **k),
        {"x": IDS},
    ),
    "feed_forward": (
        lambda **k: layers.FeedForward(
            12, "relu", dropout=0.1, use_bias=False, output_initializer="ones", **k
        ),
        {"x": FLOATS},
    ),
    "gated_feed_forward": (
        lambda **k: layers.GatedFeedForward(12, "silu", dropout=0.1, use_bias=False, **k),
        {"x": FLOATS},
    ),
    "linear": (lambda **k: layers.Linear(3, activation="tanh", **k), {"inputs": FLOATS}),
    "lstm": (lambda **k: layers.LSTM(4, **k), {"x": FLOATS}),
    "stacked_lstm": (lambda **k: layers.StackedLSTM(2, 4, dropout=0.1, **k), {"x": FLOATS}),
    "bidirectional_lstm": (
        lambda **k: layers.BidirectionalLSTM(2, 4, dropout=0.1, **k),
        {"x": FLOATS, "segments": IDS},
    ),
    "segment_mask": (lambda **k: layers.SegmentMask(**k), {"segment_ids": IDS}),
    "padding_mask": (lambda **k: layers.PaddingMask(causal=True, **k), {"present": IDS}),
    "pair_mask": (
        lambda **k: layers.PairMask(causal=True, **k),
        {"queries": IDS, "keys": IDS},
    ),
    "pair_positions": (lambda **k: layers.PairPositions(**k), {"pairs": IDS}),
    "counted_positions": (lambda **k: layers.Positions(**k), {"token_ids": IDS}),
    "positions": (lambda **k: layers.PositionEmbedding(9, 4, **k), {"positions": IDS}),
    "sinusoidal": (lambda **k: layers.SinusoidalPositions(4, **k), {"positions": IDS}),
    "relative": (
        lambda **k: layers.RelativePositionBias(
            2,
            num_buckets=8,
            max_distance=20,
            bidirectional=True,
            embeddings_initializer="ones",
            **k,
        ),
        {"query_positions": IDS, "key_positions": IDS},
    ),
    "encoder": (
        lambda **k: layers.EncoderBlock(
            2,
            12,
            dropout=0.1,
            attention_dropout=0.2,
            activation_dropout=0.3,
            activation="relu",
            norm_first=False,
            layer_norm_epsilon=0.1,
            **k,
        ),
        {"x": FLOATS},
    ),
    "decoder": (
        lambda **k: layers.DecoderBlock(2, 12, cross_attention=True, dropout=0.1, **k),
        {"x": FLOATS, "memory": ((None, 6), "float32")},
    ),
}


@pytest.fixture(params=CASES)
def case(request):
    keras.utils.set_random_seed(0)
    make, inputs = CASES[request.param]
    data = {
        name: np.random.default_rng(0).normal(size=(2, 5, *shape[1:])).astype(dtype)
        if dtype == "float32"
        else np.random.default_rng(0).integers(0, 9, (2, 5)).astype(dtype)
        for name, (shape, dtype) in inputs.items()
    }
    return make, inputs, data


def functional(layer, inputs):
    tensors = {
        name: keras.Input(shape, dtype=dtype, name=name) for name, (shape, dtype) in inputs.items()
    }
    return keras.Model(tensors, layer(**tensors))


def arrays(outputs):
    return [tf.cast(y, tf.float32).numpy() for y in tf.nest.flatten(outputs)]


def test_a_config_makes_the_same_layer_again(case):
    make, inputs, _ = case
    layer = make(name="its_name")
    again = type(layer).from_config(layer.get_config())
    assert again.get_config() == layer.get_config()
    functional(again, inputs)
    assert again.get_config() == layer.get_config()  # building it changes nothing


def test_the_functional_model_knows_its_shapes_and_computes_as_the_layer_does(case):
    make, inputs, data = case
    layer = make()
    model = functional(layer, inputs)
    got = model(data)
    for a, b in zip(arrays(got), arrays(layer(**data)), strict=True):
        np.testing.assert_allclose(a, b, atol=1e-6)
    for symbolic, real in zip(tf.nest.flatten(model.output), tf.nest.flatten(got), strict=True):
        assert keras.backend.standardize_dtype(real.dtype) == symbolic.dtype
        assert len(real.shape) == len(symbolic.shape)
        assert real.shape[-1] == (symbolic.shape[-1] or real.shape[-1])


def test_a_saved_model_computes_the_same(case, tmp_path):
    make, inputs, data = case
    model = functional(make(), inputs)
    model.save(tmp_path / "model.keras")
    again = keras.models.load_model(tmp_path / "model.keras")
    for a, b in zip(arrays(again(data)), arrays(model(data)), strict=True):
        np.testing.assert_array_equal(a, b)


def test_mixed_precision_keeps_float32_weights_and_comes_close(case):
    make, inputs, data = case
    exact, low = make(), make(dtype="mixed_bfloat16")
    expected = functional(exact, inputs)(data)
    model = functional(low, inputs)
    low.set_weights(exact.get_weights())
    assert all(w.dtype in ("float32", "uint32") for w in low.weights)
    got = model(data)
    for a, b in zip(arrays(got), arrays(expected), strict=True):
        np.testing.assert_allclose(a, b, atol=0.08)


def test_every_weight_that_trains_gets_a_gradient(case):
    make, inputs, data = case
    layer = make()
    model = functional(layer, inputs)
    with tf.GradientTape() as tape, layers.step_scope(tf.constant(0)):
        outputs = model(data, training=True)
        if isinstance(layer, layers.TokenEmbedding):
            outputs = [outputs, layer(outputs, reverse=True)]
        flat = [tf.cast(y, tf.float32) for y in tf.nest.flatten(outputs)]
        total = tf.add_n([tf.reduce_sum(y**2) for y in flat])
    gradients = tape.gradient(total, [v.value for v in layer.trainable_variables])
    assert all(g is not None for g in gradients)
