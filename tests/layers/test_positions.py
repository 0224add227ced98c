import math

import numpy as np
import pytest
import tensorflow as tf

from tfllm.layers import (
    PairPositions,
    PositionEmbedding,
    Positions,
    RelativePositionBias,
    SinusoidalPositions,
)


def test_a_learned_position_is_a_row_of_the_table():
    layer = PositionEmbedding(4, 3)
    y = layer(tf.constant([[0, 3, 1]]))
    np.testing.assert_array_equal(y[0], layer.embeddings.numpy()[[0, 3, 1]])


def test_sinusoidal_positions_are_sines_then_cosines_of_falling_frequency():
    y = SinusoidalPositions(4)(tf.constant([[0, 1, 50]]))
    expected = [
        [math.sin(p), math.sin(p / 100), math.cos(p), math.cos(p / 100)] for p in (0, 1, 50)
    ]
    np.testing.assert_allclose(y[0], expected, atol=1e-6)


def test_sinusoidal_positions_are_exact_far_away():
    y = SinusoidalPositions(64)(tf.constant([[4999]]))[0, 0].numpy()
    angles = [4999 / 10_000 ** (2 * i / 64) for i in range(32)]
    expected = [*map(math.sin, angles), *map(math.cos, angles)]
    np.testing.assert_allclose(y, expected, atol=1e-6)


def test_positions_count_from_zero_whatever_the_tokens():
    assert Positions()(tf.constant([[7, 7, 7], [1, 2, 3]])).numpy().tolist() == [[0, 1, 2]]


def test_positions_begin_again_in_each_pair_and_count_padding_on():
    pairs = [[1, 1, 1, 2, 3, 3, 0, 0], [0, 0, 1, 1, 0, 0, 0, 0], [2, 2, 2, 2, 2, 4, 4, 4]]
    assert PairPositions()(tf.constant(pairs)).numpy().tolist() == [
        [0, 1, 2, 0, 0, 1, 2, 3],
        [0, 1, 2, 3, 4, 5, 6, 7],
        [0, 1, 2, 3, 4, 0, 1, 2],
    ]


def test_sinusoidal_positions_of_odd_width_are_refused():
    with pytest.raises(ValueError, match="hidden_dim must be even. Received: hidden_dim=5"):
        SinusoidalPositions(5)


def t5_bucket(distance, bidirectional, num_buckets, max_distance):
    """Section 2.1 in words: half of the buckets exact, the others in equal steps of the log."""
    bucket = 0
    if bidirectional:
        num_buckets //= 2
        bucket = num_buckets if distance > 0 else 0
        back = abs(distance)
    else:
        back = max(-distance, 0)
    exact = num_buckets // 2
    if back < exact:
        return bucket + back
    step = math.log(max_distance / exact) / (num_buckets - exact)
    # Powers of two fall on a bucket's border: float64 must not fall below it.
    far = exact + math.floor(math.log(back / exact) / step + 1e-9)
    return bucket + min(far, num_buckets - 1)


@pytest.mark.parametrize("bidirectional", [True, False])
@pytest.mark.parametrize(("num_buckets", "max_distance"), [(32, 128), (8, 20)])
def test_relative_positions_fall_into_the_buckets_of_t5(bidirectional, num_buckets, max_distance):
    layer = RelativePositionBias(
        2, num_buckets=num_buckets, max_distance=max_distance, bidirectional=bidirectional
    )
    distances = np.arange(-200, 201, dtype="int32")
    expected = [t5_bucket(int(d), bidirectional, num_buckets, max_distance) for d in distances]
    assert layer.buckets(distances).numpy().tolist() == expected


def test_the_published_borders_of_t5_s_buckets():
    back = np.array([0, 7, 8, 11, 12, 15, 16, 22, 23, 31, 32, 63, 64, 90, 91, 500], "int32")
    both = RelativePositionBias(1, bidirectional=True).buckets(-back).numpy().tolist()
    assert both == [0, 7, 8, 8, 9, 9, 10, 10, 11, 11, 12, 13, 14, 14, 15, 15]


def test_a_relative_bias_is_the_entry_of_head_and_bucket():
    layer = RelativePositionBias(3, num_buckets=8, max_distance=20)
    queries, keys = tf.constant([[4], [0]]), tf.constant([[0, 1, 2, 3, 4, 5]])
    bias = layer(queries, keys)
    table = layer.embeddings.numpy()
    assert bias.shape == [2, 3, 1, 6]
    for row, query in enumerate((4, 0)):
        for key in range(6):
            bucket = t5_bucket(key - query, False, 8, 20)
            np.testing.assert_array_equal(bias[row, :, 0, key], table[bucket])


def test_a_bucket_is_the_same_in_a_graph():
    # A graph multiplies by the reciprocal of a constant that eager TensorFlow divides by.
    layer = RelativePositionBias(2, num_buckets=128, max_distance=100)
    distance = tf.range(-200, 200)
    graph = tf.function(layer.buckets, autograph=False)
    np.testing.assert_array_equal(graph(distance), layer.buckets(distance))
    assert layer.buckets(tf.constant([-80])).numpy().tolist() == [96]


def test_buckets_without_a_distance_for_them_are_refused():
    with pytest.raises(ValueError, match="max_distance must be above the exact buckets"):
        RelativePositionBias(2, num_buckets=32, max_distance=16)
