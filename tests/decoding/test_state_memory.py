"""States in slots: what is read back after calls that were ended anywhere."""

import pytest
import tensorflow as tf

from tfllm.decoding.state_memory import StateMemory


@pytest.fixture
def memory():
    state = {"h": tf.TensorSpec([None, None, 3]), "c": tf.TensorSpec([None, None, 2])}
    return StateMemory("state", state, 4)


@pytest.fixture
def values(memory):
    return [tf.raw_ops.Empty(shape=v.shape, dtype=v.dtype, init=True) for v in memory.variables]


def states(*numbers):
    column = tf.reshape(tf.constant(numbers, tf.float32), [-1, 1, 1])
    return {"h": tf.tile(column, [1, 1, 3]), "c": tf.tile(column, [1, 1, 2])}


def found(memory, values, slots, count):
    state = memory.read(values, tf.constant(slots), tf.constant(count), entries=None)
    assert [state[name].shape[1:] for name in ("h", "c")] == [(1, 3), (1, 2)]
    assert (state["h"][..., 0] == state["c"][..., 0]).numpy().all()
    return state["h"][:, 0, 0].numpy().tolist()


def write(memory, values, state, slots, begin, end):
    write = tf.function(lambda *args: [op.outputs[0] for op in memory.write(*args)])
    write(values, state, *map(tf.constant, (slots, begin, end)))


def test_a_slot_has_the_state_before_the_last_call_and_the_one_after_it(memory, values):
    write(memory, values, states(7, 8), [2, 0], [0, 0], [5, 6])
    assert found(memory, values, [0, 2, 2], [6, 5, 0]) == [8, 7, 0]
    write(memory, values, states(9), [2], [5], [9])
    assert found(memory, values, [2, 2], [5, 9]) == [7, 9]
    # The call was ended before what it wrote was known: it is made again.
    write(memory, values, states(4), [2], [5], [6])
    assert found(memory, values, [2, 2], [5, 6]) == [7, 4]
    write(memory, values, states(3), [2], [6], [8])
    assert found(memory, values, [2, 2], [6, 8]) == [4, 3]


def test_the_state_of_another_text_is_not_found_again(memory, values):
    write(memory, values, states(7), [1], [0], [5])
    write(memory, values, states(8), [1], [5], [9])
    write(memory, values, states(1), [1], [0], [9])  # as long as the other one was
    assert found(memory, values, [1], [9]) == [1]
    write(memory, values, states(2), [1], [9], [12])
    assert found(memory, values, [1, 1], [9, 12]) == [1, 2]


def test_a_row_that_read_nothing_writes_nothing(memory, values):
    write(memory, values, states(7, 8), [3, 1], [0, 0], [5, 5])
    write(memory, values, states(1, 9, 2), [3, 1, 3], [5, 5, 5], [5, 6, 5])
    assert found(memory, values, [3, 1], [5, 6]) == [7, 9]


def test_a_text_begins_only_with_all_that_a_slot_has_read(memory):
    reusable = memory.reusable(tf.constant([[3, 4, 0]]), tf.constant([3, 5, 0]))
    assert reusable.numpy().tolist() == [[3, 0, 0]]
