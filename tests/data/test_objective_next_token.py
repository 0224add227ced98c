"""The next token of packed rows."""

import numpy as np
import tensorflow as tf

from tfllm.data.objectives import NextToken

SEED = tf.constant([0, 0], tf.int64)
COLUMNS = {
    "token_ids": tf.constant([[2, 10, 11, 2, 12, 0]], tf.int64),
    "segment_ids": tf.constant([[1, 1, 1, 2, 2, 0]], tf.int64),
    "positions": tf.constant([[0, 1, 2, 0, 1, 0]], tf.int64),
}


def test_the_next_token_counts_within_its_document():
    x, y, weight = NextToken(None)(COLUMNS, SEED)
    assert {name: values.numpy().tolist() for name, values in x.items()} == {
        "token_ids": [[2, 10, 11, 2, 12]],
        "segment_ids": [[1, 1, 1, 2, 2]],
        "positions": [[0, 1, 2, 0, 1]],
    }
    assert {values.dtype for values in (*x.values(), y)} == {tf.int32}
    np.testing.assert_array_equal(y, [[10, 11, 2, 12, 0]])
    np.testing.assert_array_equal(weight, [[1, 1, 0, 1, 0]])


def test_targets_have_weights_of_their_own_where_they_are_stored():
    weights = tf.constant([[9, 0.5, 0, 9, 2, 9]])
    *_, weight = NextToken(None)(COLUMNS | {"target_weights": weights}, SEED)
    np.testing.assert_array_equal(weight, [[0.5, 0, 0, 2, 0]])
