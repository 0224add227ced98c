import keras
import numpy as np
import pytest
import tensorflow as tf

from tfllm.layers import (
    MultiHeadAttention,
    Window,
    causal_mask,
    grow,
    padding_mask,
    step_scope,
    unseen,
)

WIDTH, HEADS = 12, 3


@pytest.fixture
def attention():
    keras.utils.set_random_seed(0)
    layer = MultiHeadAttention(HEADS)
    layer.build((None, None, WIDTH))
    for variable in layer.trainable_variables:
        variable.assign(tf.random.normal(variable.shape, stddev=0.5))
    return layer


@pytest.fixture
def x():
    return tf.random.stateless_normal([3, 7, WIDTH], [1, 2])


def keras_attention(ours, memory_width=WIDTH):
    """`keras.layers.MultiHeadAttention` with the same weights."""
    theirs = keras.layers.MultiHeadAttention(HEADS, WIDTH // HEADS)
    theirs.build((None, None, WIDTH), (None, None, memory_width))
    shapes = [weight.shape for weight in theirs.get_weights()]
    weights = [
        weight
        for projection in (ours.query, ours.key, ours.value, ours.output_projection)
        for weight in projection.get_weights()
    ]
    theirs.set_weights([w.reshape(s) for w, s in zip(weights, shapes, strict=True)])
    return theirs


def test_it_equals_the_attention_of_keras_under_a_causal_mask(attention, x):
    expected = keras_attention(attention)(x, x, use_causal_mask=True)
    np.testing.assert_allclose(attention(x, causal_mask(7)), expected, atol=1e-5)


def test_it_equals_the_attention_of_keras_to_a_memory_of_another_width(x):
    memory = tf.random.stateless_normal([3, 5, 8], [3, 4])
    mask = tf.constant([[1, 1, 1, 1, 1], [1, 0, 0, 0, 0], [0, 1, 1, 0, 1]])[:, None] == 1
    attention = MultiHeadAttention(HEADS)
    y = attention(x, mask, memory=memory)
    expected = keras_attention(attention, 8)(x, memory, attention_mask=mask)
    np.testing.assert_allclose(y, expected, atol=1e-5)


def extended(attention, x, cache, start, bias=None):
    """`extend` with float[b, n, m], each position of which sees those before it."""
    places, positions = tf.range(tf.shape(cache.k)[2]), start[:, None] + tf.range(x.shape[1])
    window = Window.of(start, places <= positions[..., None], HEADS, bias)
    y, cache = attention.extend(tf.reshape(x, [-1, WIDTH]), window, cache)
    return tf.reshape(y, x.shape), cache


def test_stepping_through_a_cache_equals_one_full_pass(attention, x):
    full = attention(x, causal_mask(7))
    cache = grow(attention.empty_cache(3), 6)
    y, cache = extended(attention, x[:, :4], cache, tf.zeros([3], tf.int32))
    outputs = [y]
    for t in range(4, 7):
        if t == 6:
            cache = grow(cache, 9)
        y, cache = extended(attention, x[:, t : t + 1], cache, tf.fill([3], t))
        outputs.append(y)
    np.testing.assert_allclose(tf.concat(outputs, 1), full, atol=1e-5)


def test_rows_of_different_length_continue_in_one_cache_each_at_its_own_place(attention, x):
    lengths = tf.constant([1, 5, 3])
    full = attention(x, causal_mask(7))
    # Beyond a row's length the prompt holds what must not be seen.
    real = tf.sequence_mask(lengths, 5)[..., None]
    prompt = tf.where(real, x[:, :5], 1e3)
    cache = grow(attention.empty_cache(3), 8)
    _, cache = extended(attention, prompt, cache, tf.zeros([3], tf.int32))
    for step in range(2):
        at = lengths + step
        y, cache = extended(attention, tf.gather(x, at, batch_dims=1)[:, None], cache, at)
        expected = tf.gather(full, at, batch_dims=1)[:, None]
        np.testing.assert_allclose(y, expected, atol=1e-5)


def test_texts_of_one_row_share_a_cache_and_see_their_own_entries_only(attention, x):
    # Positions 0 to 2 are of both texts, 3 and 5 of the first, 4 and 6 of the second.
    own = np.zeros([7, 7], bool)
    own[:3] = np.tri(7, dtype=bool)[:3]
    for place, seen in ((3, [3]), (4, [4]), (5, [3, 5]), (6, [4, 6])):
        own[place, [0, 1, 2, *seen]] = True
    full = attention(x, tf.constant(own)[None])
    cache = grow(attention.empty_cache(3), 7)
    _, cache = extended(attention, x[:, :3], cache, tf.zeros([3], tf.int32))
    for start in (3, 5):
        here = slice(start, start + 2)
        window = Window.of(tf.fill([3], start), tf.tile(own[None, here], [3, 1, 1]), HEADS)
        y, cache = attention.extend(tf.reshape(x[:, here], [-1, WIDTH]), window, cache)
        np.testing.assert_allclose(tf.reshape(y, [3, 2, WIDTH]), full[:, here], atol=1e-5)


def test_a_window_may_add_a_bias_to_the_scores(attention, x):
    bias = tf.random.stateless_normal([3, HEADS, 7, 7], [7, 8], stddev=3.0)
    cache = grow(attention.empty_cache(3), 7)
    y, _ = extended(attention, x, cache, tf.zeros([3], tf.int32), bias)
    np.testing.assert_allclose(y, attention(x, causal_mask(7), bias=bias), atol=1e-5)
    assert np.abs(y - attention(x, causal_mask(7))).max() > 0.1


def test_a_bias_is_added_to_the_scores_before_softmax(attention, x):
    bias = np.zeros([1, HEADS, 7, 7], "float32")
    bias[..., 2] = 1e4  # from now on everyone looks at position 2 alone
    only = tf.constant([[[False, False, True, False, False, False, False]]])
    np.testing.assert_allclose(attention(x, bias=bias), attention(x, only), atol=1e-5)


def test_a_scale_replaces_one_over_the_root_of_the_head_width(attention, x):
    half = MultiHeadAttention(HEADS, scale=0.5)
    half.build(x.shape)
    half.set_weights(attention.get_weights())
    assert np.abs(half(x) - attention(x)).max() < 1e-6  # head width 4
    whole = MultiHeadAttention(HEADS, scale=1.0)
    whole.build(x.shape)
    whole.set_weights(attention.get_weights())
    for kernel in (attention.query.kernel, attention.query.bias):
        kernel.assign(kernel * 2)
    np.testing.assert_allclose(whole(x), attention(x), atol=1e-5)


def test_a_head_width_of_its_own_needs_no_division(x):
    attention = MultiHeadAttention(5, head_dim=4, use_bias=False)
    assert attention(x).shape == x.shape
    assert [v.shape for v in attention.trainable_variables] == [(12, 20)] * 3 + [(20, 12)]


def test_a_number_of_heads_that_does_not_divide_the_width_is_refused(x):
    with pytest.raises(ValueError, match="must divide the model width: got 5 heads for width 12"):
        MultiHeadAttention(5)(x)


def test_dropout_zeroes_attention_weights_in_training_only(x):
    attention = MultiHeadAttention(HEADS, dropout=0.5)
    undropped = attention(x)
    with step_scope(tf.constant(0)):
        assert np.abs(attention(x, training=True) - undropped).max() > 1e-3
    np.testing.assert_array_equal(attention(x, training=False), undropped)


def test_bfloat16_is_close_to_float32(attention, x):
    low = MultiHeadAttention(HEADS, dtype="mixed_bfloat16")
    low.build(x.shape)
    low.set_weights(attention.get_weights())
    y = low(x, causal_mask(7))
    assert y.dtype == tf.bfloat16
    np.testing.assert_allclose(tf.cast(y, tf.float32), attention(x, causal_mask(7)), atol=0.1)


def test_a_memory_that_was_projected_before_is_read_as_the_memory_itself(attention, x):
    memory = tf.random.stateless_normal([2, 9, 12], [5, 6])
    mask = padding_mask(np.arange(9) < np.array([[9], [4]]))
    projected = attention.project(memory)
    expected = attention(x[:2], mask, memory=memory)
    np.testing.assert_allclose(attention(x[:2], mask, memory=projected), expected, atol=1e-6)


def test_several_texts_of_a_row_look_at_one_memory_that_was_projected_before(attention):
    memory = tf.random.stateless_normal([2, 9, 12], [5, 6])
    mask = padding_mask(np.arange(9) < np.array([[9], [4]]))
    rows = tf.random.stateless_normal([6, 1, 12], [7, 8])
    found = attention.look(rows[:, 0], attention.project(memory), unseen(mask), 2, 3)
    expected = attention(rows, tf.repeat(mask, 3, 0), memory=tf.repeat(memory, 3, 0))
    np.testing.assert_allclose(found, expected[:, 0], atol=1e-6)


def test_the_query_may_have_an_initializer_of_its_own(x):
    attention = MultiHeadAttention(HEADS, kernel_initializer="ones", query_initializer="zeros")
    attention(x)
    means = [np.mean(part.kernel) for part in (attention.query, attention.key, attention.value)]
    assert means == [0, 1, 1]
