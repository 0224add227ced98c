"""States of texts that go on from one another."""

import numpy as np
import tensorflow as tf

from tfllm.decoding import NewTokens
from tfllm.models.branches import branches, of_parents


def new_tokens(rows, texts, parent):
    nothing = tf.zeros([rows, texts], tf.int32)
    parent = None if parent is None else tf.constant(parent)
    return NewTokens(nothing, nothing, nothing[:, 0], nothing, nothing, parent, nothing)


def test_a_row_begins_with_one_text_and_each_text_has_its_own_state_later():
    states = {"h": tf.reshape(tf.range(24), [6, 4]), "count": tf.range(6)}
    one = branches(states)
    assert (one["h"].shape, one["count"].shape) == ((6, 1, 4), (6, 1))
    several = branches(states, tf.constant(2))
    np.testing.assert_array_equal(several["count"], [[0, 1, 2], [3, 4, 5]])
    np.testing.assert_array_equal(several["h"], np.arange(24).reshape(2, 3, 4))


def test_new_tokens_go_on_from_the_states_of_their_parents_in_their_own_row():
    states = tf.constant([[0, 1, 2], [10, 11, 12]])
    found = of_parents(states, new_tokens(2, 4, [[2, 2, 0, 1], [1, 0, 0, 2]]))
    assert found.numpy().tolist() == [2, 2, 0, 1, 11, 10, 10, 12]
    found = of_parents(states[:, :1], new_tokens(2, 2, [[0, 0], [0, 0]]))
    assert found.numpy().tolist() == [0, 0, 10, 10]
    assert of_parents(states, new_tokens(2, 3, None)).numpy().tolist() == [0, 1, 2, 10, 11, 12]


def test_a_graph_does_not_take_one_text_for_all_that_there_will_be():
    shapes = []

    @tf.function(autograph=False, input_signature=[tf.TensorSpec([None, 4])])
    def begin(states):
        states = branches((states, states[:, 0]))
        shapes.extend(state.shape.as_list() for state in states)
        return states

    h, count = begin(tf.zeros([3, 4]))
    assert shapes == [[None, None, 4], [None, None]]
    assert (h.shape, count.shape) == ((3, 1, 4), (3, 1))
    assert begin(tf.zeros([0, 4]))[0].shape == (0, 1, 4)
