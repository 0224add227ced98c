"""What the loops and the models say to each other."""

import numpy as np
import pytest
import tensorflow as tf

from tfllm.decoding import NewTokens, rounded_up, wanted
from tfllm.decoding.decodable import shapes_of


@pytest.mark.parametrize(("x", "expected"), [(0, 0), (1, 64), (64, 64), (65, 128), (129, 192)])
def test_memories_grow_in_steps_of_64(x, expected):
    assert rounded_up(x) == expected
    assert int(rounded_up(tf.constant(x))) == expected


def test_hidden_states_are_taken_after_the_tokens_that_are_wanted():
    hidden = tf.reshape(tf.range(2 * 3 * 4, dtype=tf.float32), [6, 4])
    nothing = tf.zeros([2, 0], tf.int32)
    new = NewTokens(
        token_ids=tf.zeros([2, 3], tf.int32),
        positions=nothing,
        start=nothing,
        visible=nothing,
        entry_positions=nothing,
        parent=None,
        wanted=tf.constant([[2, 0], [1, 1]]),
    )
    found = wanted(hidden, new)
    assert found.shape == (2, 2, 4)
    np.testing.assert_array_equal(found[..., 0], [[8, 0], [16, 16]])


def test_shapes_for_a_loop_leave_the_rows_and_what_is_empty_open():
    shapes = shapes_of(
        {
            "scalar": tf.constant(0),
            "rows": tf.zeros([3]),
            "empty": (tf.zeros([3, 2, 0, 4]), tf.zeros([3, 1])),
            "no_rows": tf.zeros([0, 5]),
        }
    )
    assert shapes["scalar"].as_list() == []
    assert shapes["rows"].as_list() == [None]
    assert [shape.as_list() for shape in shapes["empty"]] == [[None, 2, None, 4], [None, 1]]
    assert shapes["no_rows"].as_list() == [None, 5]


def test_shapes_for_a_loop_let_a_memory_grow_in_a_graph():
    @tf.function(autograph=False)
    def grown():
        memory = tf.zeros([2, 0, 3])
        loop = tf.constant(0), memory
        return tf.while_loop(
            lambda step, _: step < 4,
            lambda step, memory: (step + 1, tf.concat([memory, tf.ones([2, 5, 3])], 1)),
            loop,
            shape_invariants=shapes_of(loop),
        )[1]

    assert grown().shape == (2, 20, 3)


def test_shapes_for_a_loop_know_nothing_where_a_graph_knows_nothing():
    @tf.function(
        autograph=False, input_signature=[tf.TensorSpec([None, 2, None, 4]), tf.TensorSpec([None])]
    )
    def shapes(memory, rows):
        found.extend(shape.as_list() for shape in shapes_of((memory, rows)))
        return rows

    found = []
    shapes(tf.zeros([1, 2, 3, 4]), tf.zeros([1]))
    assert found == [[None, 2, None, 4], [None]]
