"""Both blocks against the formulas of the paper, written out in numpy."""

import math

import keras
import numpy as np
import pytest
import tensorflow as tf

from tfllm.layers import (
    DecoderBlock,
    EncoderBlock,
    GatedFeedForward,
    Window,
    causal_mask,
    grow,
    padding_mask,
    unseen,
)

WIDTH, HEADS, INNER, EPSILON = 8, 2, 12, 1e-3


def randomized(block, *shapes):
    keras.utils.set_random_seed(0)
    block.build(*shapes)
    for variable in block.trainable_variables:
        variable.assign(tf.random.normal(variable.shape, stddev=0.5))
    return block


@pytest.fixture
def x():
    return tf.random.stateless_normal([2, 5, WIDTH], [1, 2])


def norm(layer, x):
    centred = x - x.mean(-1, keepdims=True)
    scaled = centred / np.sqrt((centred**2).mean(-1, keepdims=True) + EPSILON)
    return scaled * layer.gamma.numpy() + layer.beta.numpy()


def linear(layer, x):
    return x @ layer.kernel.numpy() + layer.bias.numpy()


def attend(layer, x, memory, mask, bias=0.0):
    def heads(projection, x):
        b, t, _ = x.shape
        return linear(projection, x).reshape(b, t, HEADS, WIDTH // HEADS).transpose(0, 2, 1, 3)

    q, k, v = heads(layer.query, x), heads(layer.key, memory), heads(layer.value, memory)
    scores = q @ k.transpose(0, 1, 3, 2) / math.sqrt(WIDTH // HEADS) + bias
    scores = np.where(np.asarray(mask)[:, None], scores, -np.inf)
    weights = np.exp(scores - scores.max(-1, keepdims=True))
    weights /= weights.sum(-1, keepdims=True)
    return linear(layer.output_projection, (weights @ v).transpose(0, 2, 1, 3).reshape(x.shape))


def feed(layer, x):
    inner = linear(layer.inner, x)
    gelu = inner * 0.5 * (1 + np.vectorize(math.erf)(inner / math.sqrt(2)))
    return linear(layer.outer, gelu)


def test_an_encoder_block_with_norms_first_is_its_formula(x):
    block = randomized(EncoderBlock(HEADS, INNER, layer_norm_epsilon=EPSILON), x.shape)
    mask = padding_mask(np.array([[1, 1, 1, 1, 0], [1, 1, 0, 0, 0]]))
    y = x.numpy()
    read = norm(block.attention_norm, y)
    y = y + attend(block.attention, read, read, mask)
    y = y + feed(block.feed_forward, norm(block.feed_forward_norm, y))
    np.testing.assert_allclose(block(x, mask), y, atol=1e-4)


def test_an_encoder_block_with_norms_last_is_its_formula(x):
    block = randomized(
        EncoderBlock(HEADS, INNER, norm_first=False, layer_norm_epsilon=EPSILON), x.shape
    )
    bias = np.random.default_rng(0).normal(size=(1, HEADS, 5, 5)).astype("float32")
    mask = np.ones([1, 1, 5], bool)
    y = x.numpy()
    y = norm(block.attention_norm, y + attend(block.attention, y, y, mask, bias))
    y = norm(block.feed_forward_norm, y + feed(block.feed_forward, y))
    np.testing.assert_allclose(block(x, bias=bias), y, atol=1e-4)


@pytest.mark.parametrize("norm_first", [True, False])
def test_a_decoder_block_looks_at_itself_then_at_the_memory(x, norm_first):
    memory = tf.random.stateless_normal([2, 3, 6], [3, 4])
    memory_mask = padding_mask(np.array([[1, 1, 0], [0, 1, 1]]))
    block = DecoderBlock(
        HEADS, INNER, cross_attention=True, norm_first=norm_first, layer_norm_epsilon=EPSILON
    )
    randomized(block, x.shape, memory.shape)
    y = x.numpy()

    def add(y, sublayer, layer_norm):
        if norm_first:
            return y + sublayer(norm(layer_norm, y))
        return norm(layer_norm, y + sublayer(y))

    y = add(y, lambda y: attend(block.attention, y, y, causal_mask(5)), block.attention_norm)
    y = add(
        y,
        lambda y: attend(block.memory_attention, y, memory.numpy(), memory_mask),
        block.memory_attention_norm,
    )
    y = add(y, lambda y: feed(block.feed_forward, y), block.feed_forward_norm)
    got = block(x, causal_mask(5), memory=memory, memory_mask=memory_mask)
    np.testing.assert_allclose(got, y, atol=1e-4)


@pytest.mark.parametrize("norm_first", [True, False])
@pytest.mark.parametrize("cross_attention", [True, False])
def test_a_decoder_block_steps_through_a_cache_as_in_one_pass(x, norm_first, cross_attention):
    memory = tf.random.stateless_normal([2, 3, 6], [3, 4])
    memory_mask = padding_mask(np.array([[1, 1, 0], [0, 1, 1]]))
    block = DecoderBlock(HEADS, INNER, cross_attention=cross_attention, norm_first=norm_first)
    randomized(block, x.shape, memory.shape)
    read, looked_at = {}, {}
    if cross_attention:
        read = {"memory": memory, "memory_mask": memory_mask}
        projected = block.memory_attention.project(memory)
        looked_at = {"memory": projected, "memory_scores": unseen(memory_mask)}
    full = block(x, causal_mask(5), **read)
    cache, outputs = block.attention.empty_cache(2), []
    for t, width in ((0, 2), (2, 1), (3, 1), (4, 1)):
        cache, here = grow(cache, t + width), slice(t, t + width)
        visible = tf.tile(causal_mask(t + width)[:, here], [2, 1, 1])
        window = Window.of(tf.fill([2], t), visible, HEADS)
        y, cache = block.extend(tf.reshape(x[:, here], [-1, WIDTH]), window, cache, **looked_at)
        outputs.append(tf.reshape(y, [2, width, WIDTH]))
    np.testing.assert_allclose(tf.concat(outputs, 1), full, atol=1e-5)


def test_the_matrices_that_write_to_the_residual_stream_have_an_initializer_of_their_own():
    block = DecoderBlock(
        HEADS,
        INNER,
        cross_attention=True,
        kernel_initializer="ones",
        output_initializer="zeros",
    )
    block.build((None, None, WIDTH), (None, None, WIDTH))
    kernels = {v.path.split("/", 1)[1]: v for v in block.trainable_variables if "kernel" in v.path}
    zeros = {path for path, kernel in kernels.items() if not np.any(kernel)}
    assert len(kernels) == 10
    assert zeros == {
        "attention/output/kernel",
        "memory_attention/output/kernel",
        "feed_forward/outer/kernel",
    }


def test_a_gated_network_multiplies_by_its_activated_gate(x):
    network = randomized(GatedFeedForward(INNER, "relu", use_bias=False), x.shape)
    gate, inner, outer = (
        layer.kernel.numpy() for layer in (network.gate, network.inner, network.outer)
    )
    expected = (np.maximum(x.numpy() @ gate, 0) * (x.numpy() @ inner)) @ outer
    np.testing.assert_allclose(network(x), expected, atol=1e-4)


def test_dropout_inside_the_network_is_one_of_its_own(x):
    block = randomized(EncoderBlock(HEADS, INNER, activation_dropout=0.5), x.shape)
    assert block.feed_forward.dropout == 0.5
    assert block.attention.dropout == 0
    assert np.abs(block(x, training=True) - block(x)).max() > 1e-3
