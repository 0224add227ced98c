import numpy as np

from tfllm.layers import PaddingMask, SegmentMask, causal_mask, padding_mask, prefix_mask


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


def test_a_prefix_mask_ends_at_each_row_s_own_position():
    mask = prefix_mask(np.array([0, 3, 1], "int32"), 4)
    assert mask.numpy().astype(int).tolist() == [[[1, 0, 0, 0]], [[1, 1, 1, 1]], [[1, 1, 0, 0]]]


def test_a_padding_mask_as_a_layer_may_hide_what_comes_later():
    present = np.array([[1, 1, 0], [1, 1, 1]])
    np.testing.assert_array_equal(PaddingMask()(present), padding_mask(present))
    mask = PaddingMask(causal=True)(present).numpy().astype(int).tolist()
    assert mask == [
        [[1, 0, 0], [1, 1, 0], [1, 1, 0]],
        [[1, 0, 0], [1, 1, 0], [1, 1, 1]],
    ]
