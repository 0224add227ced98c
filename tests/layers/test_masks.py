import numpy as np
import tensorflow as tf

from tfllm.layers import (
    PaddingMask,
    PairMask,
    SegmentMask,
    causal_mask,
    padding_mask,
    pair_mask,
)


def test_a_causal_mask_is_a_lower_triangle():
    assert causal_mask(3).numpy().astype(int).tolist() == [[[1, 0, 0], [1, 1, 0], [1, 1, 1]]]


def test_documents_of_a_packed_row_see_their_own_past_only():
    segments = np.array([[1, 1, 2, 2, 0], [3, 1, 1, 1, 1]])
    assert SegmentMask()(segments).numpy().astype(int).tolist() == [
        [
            [1, 0, 0, 0, 0],
            [1, 1, 0, 0, 0],
            [0, 0, 1, 0, 0],
            [0, 0, 1, 1, 0],
            [0, 0, 0, 0, 1],
        ],
        [
            [1, 0, 0, 0, 0],
            [0, 1, 0, 0, 0],
            [0, 1, 1, 0, 0],
            [0, 1, 1, 1, 0],
            [0, 1, 1, 1, 1],
        ],
    ]


def test_a_padding_mask_lets_everyone_see_what_is_present():
    mask = padding_mask(np.array([[1, 1, 0], [0, 1, 1]]))
    assert mask.numpy().astype(int).tolist() == [[[1, 1, 0]], [[0, 1, 1]]]


def test_a_padding_mask_as_a_layer_may_hide_what_comes_later():
    present = np.array([[1, 1, 0], [1, 1, 1]])
    np.testing.assert_array_equal(PaddingMask()(present), padding_mask(present))
    mask = PaddingMask(causal=True)(present).numpy().astype(int).tolist()
    assert mask == [
        [[1, 0, 0], [1, 1, 0], [1, 1, 0]],
        [[1, 0, 0], [1, 1, 0], [1, 1, 1]],
    ]


def test_pairs_of_a_packed_row_see_their_own_source_only():
    queries, keys = tf.constant([[1, 2, 2, 0]]), tf.constant([[1, 1, 2, 3, 0]])
    mask = pair_mask(queries, keys)
    np.testing.assert_array_equal(PairMask()(queries, keys), mask)
    assert mask.numpy().astype(int).tolist() == [
        [[1, 1, 0, 0, 0], [0, 0, 1, 0, 0], [0, 0, 1, 0, 0], [1, 1, 1, 1, 0]]
    ]
    causal = PairMask(causal=True)(queries, queries).numpy().astype(int).tolist()
    assert causal == [[[1, 0, 0, 0], [0, 1, 0, 0], [0, 1, 1, 0], [1, 1, 1, 0]]]


def test_rows_of_one_pair_are_masked_as_if_there_were_no_pairs():
    present = np.array([[1, 1, 0], [0, 1, 1]])
    for causal in (False, True):
        expected = np.broadcast_to(PaddingMask(causal=causal)(present), (2, 3, 3))
        np.testing.assert_array_equal(PairMask(causal=causal)(present, present), expected)
