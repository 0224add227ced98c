"""A learning rate per layer: the factors, and the step that they make."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from tfllm.errors import UserError
from tfllm.models import (
    BertBackbone,
    GPTBackbone,
    GPTCausalLM,
    T5Backbone,
    T5Seq2SeqLM,
    TextClassifier,
    enable_lora,
    freeze,
    layer_scales,
)
from tfllm.optimizers import AdamW
from tfllm.trainers import make_strategy

HEADS = {"vocabulary_size": 30, "num_heads": 2, "hidden_dim": 8, "intermediate_dim": 12}
RATE, DECAY, BETA_1, BETA_2, EPSILON = 0.1, 0.3, 0.9, 0.95, 1e-7


def variable(shape, path, value=1.0):
    with keras.name_scope(path):
        return keras.Variable(np.full(shape, value), dtype="float32", name="x")


def by_hand(weight, gradients, scale, decayed):
    """AdamW, Loshchilov and Hutter 2019, algorithm 2, at a rate of its own."""
    m = v = 0.0
    for step, gradient in enumerate(gradients, start=1):
        m = BETA_1 * m + (1 - BETA_1) * gradient
        v = BETA_2 * v + (1 - BETA_2) * gradient**2
        hat = m / (1 - BETA_1**step) / (np.sqrt(v / (1 - BETA_2**step)) + EPSILON)
        weight = weight - RATE * scale * (hat + (DECAY * weight if decayed else 0))
    return weight


def optimizer(**settings):
    return AdamW(RATE, weight_decay=DECAY, beta_1=BETA_1, beta_2=BETA_2, **settings)


def test_a_step_is_that_of_adamw_at_the_variable_s_own_rate():
    matrix, low, vector = variable((2, 2), "a"), variable((2, 2), "b"), variable((2,), "c")
    scales = {"a/x": 1.0, "b/x": 0.25, "c/x": 0.5}
    found = optimizer(scales=scales)
    gradients = [0.3, -0.7, 0.2]
    for gradient in gradients:
        grads = [tf.fill(v.shape, gradient) for v in (matrix, low, vector)]
        found.apply(grads, [matrix, low, vector])
    for weight, scale, decayed in ((matrix, 1, True), (low, 0.25, True), (vector, 0.5, False)):
        expected = by_hand(1.0, gradients, scale, decayed)
        np.testing.assert_allclose(weight, np.full(weight.shape, expected), rtol=1e-5)


def test_without_scales_a_step_is_that_of_keras():
    ours, theirs = variable((2, 2), "a"), variable((2, 2), "a")
    stock = keras.optimizers.AdamW(RATE, weight_decay=DECAY, beta_1=BETA_1, beta_2=BETA_2)
    one = optimizer()
    for gradient in (0.3, -0.7):
        one.apply([tf.fill((2, 2), gradient)], [ours])
        stock.apply([tf.fill((2, 2), gradient)], [theirs])
    np.testing.assert_allclose(ours, theirs, rtol=1e-6)


def test_two_replicas_equal_one_device():
    x, y = np.random.default_rng(0).normal(size=(2, 8, 8, 3)).astype("float32")
    final = []
    for strategy in (make_strategy("one"), make_strategy("mirrored")):
        keras.utils.set_random_seed(0)
        with strategy.scope():
            inputs = keras.Input((3,))
            hidden = keras.layers.Dense(4, name="low")(inputs)
            model = keras.Model(inputs, keras.layers.Dense(3, name="high")(hidden))
            scales = {v.path: 0.1 if "low" in v.path else 1.0 for v in model.trainable_variables}
            model.compile(optimizer(scales=scales), "mse", jit_compile=False)
        model.fit(tf.data.Dataset.from_tensor_slices((x, y)), verbose=0)
        final.append([v.numpy() for v in model.trainable_variables])
    for one, other in zip(*final, strict=True):
        np.testing.assert_allclose(other, one, atol=1e-6)


def test_scales_are_part_of_the_configuration():
    scales = {"a/x": 0.5}
    copy = keras.optimizers.deserialize(keras.optimizers.serialize(optimizer(scales=scales)))
    assert copy.get_config()["scales"] == scales
    weight = variable((2,), "a")
    copy.apply([tf.ones(2)], [weight])
    np.testing.assert_allclose(weight, by_hand(np.ones(2), [1.0], 0.5, False), rtol=1e-6)


def test_a_variable_without_a_factor_is_refused_by_its_path():
    with pytest.raises(UserError, match="it has none for b/x"):
        optimizer(scales={"a/x": 1.0}).build([variable((2,), "a"), variable((2,), "b")])


def test_the_factors_are_those_of_electra():
    model = TextClassifier(BertBackbone(num_layers=3, **HEADS), num_classes=2)
    scales = layer_scales(model, 0.5)
    assert scales.keys() == {v.path for v in model.trainable_variables}
    by_part = {}
    for path, scale in scales.items():
        by_part.setdefault(path.split("/")[0], set()).add(scale)
    assert by_part == {
        "token_embedding": {0.5**5},
        "position_embedding": {0.5**5},
        "segment_embedding": {0.5**5},
        "embedding_norm": {0.5**5},
        "block_0": {0.5**4},
        "block_1": {0.5**3},
        "block_2": {0.5**2},
        "pooler": {0.5},
        "head": {1.0},
    }


def test_two_stacks_are_counted_from_their_upper_ends():
    model = T5Seq2SeqLM(T5Backbone(num_layers=3, num_decoder_layers=1, **HEADS))
    scales = layer_scales(model, 0.5)
    assert {path.split("/")[0]: scale for path, scale in scales.items()} == {
        "token_embedding": 0.5**5,
        "encoder_positions": 0.5**5,
        "decoder_positions": 0.5**5,
        "encoder_block_0": 0.5**4,
        "encoder_block_1": 0.5**3,
        "encoder_block_2": 0.5**2,
        "decoder_block_0": 0.5**2,
        "encoder_norm": 0.5,
        "decoder_norm": 0.5,
    }


def test_an_untied_output_table_stands_behind_the_blocks():
    model = GPTCausalLM(GPTBackbone(num_layers=1, tie_embeddings=False, **HEADS))
    scales = layer_scales(model, 0.5)
    assert scales["token_embedding/embeddings"] == 0.5**3
    assert scales["token_embedding/output_embeddings"] == scales["final_norm/gamma"] == 0.5


def test_with_lora_and_frozen_blocks_only_what_trains_has_a_factor():
    model = GPTCausalLM(GPTBackbone(num_layers=2, **HEADS))
    enable_lora(model, 1, targets=("query",))
    freeze(model, layers=1)
    assert layer_scales(model, 0.5) == {
        f"block_1/attention/query/lora_kernel_{letter}": 0.25 for letter in "ab"
    }


@pytest.mark.parametrize("decay", [0, 1.5])
def test_a_decay_out_of_range_is_refused(decay):
    model = GPTCausalLM(GPTBackbone(num_layers=1, **HEADS))
    with pytest.raises(UserError, match=rf"must be in \(0, 1\]: got {decay}"):
        layer_scales(model, decay)
