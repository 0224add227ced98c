import keras
import numpy as np
import pytest
import tensorflow as tf

from tfllm.layers import LSTM, LSTMState, StackedLSTM, step_scope
from tfllm.layers.clusters import compiled_clusters

UNITS = 5


@pytest.fixture
def lstm():
    keras.utils.set_random_seed(0)
    layer = LSTM(UNITS)
    layer.build((None, None, 4))
    layer.bias.assign(tf.random.normal(layer.bias.shape))
    return layer


@pytest.fixture
def x():
    return tf.random.stateless_normal([3, 7, 4], [1, 2])


@pytest.fixture
def state():
    return LSTMState(
        tf.random.stateless_uniform([3, UNITS], [3, 4]),
        tf.random.stateless_normal([3, UNITS], [5, 6]),
    )


def plain_loop(lstm, x, h, c):
    """The textbook's equations, one position at a time, for autodiff."""
    outputs = []
    for t in range(x.shape[1]):
        z = x[:, t] @ lstm.kernel.value + h @ lstm.recurrent_kernel.value + lstm.bias.value
        i, f, g, o = tf.split(z, 4, -1)
        c = tf.sigmoid(f) * c + tf.sigmoid(i) * tf.tanh(g)
        h = tf.sigmoid(o) * tf.tanh(c)
        outputs.append(h)
    return tf.stack(outputs, 1), h, c


def gradients(run, lstm, inputs):
    """Of a sum in which every output weighs differently."""
    watched = [*inputs, *(v.value for v in lstm.trainable_variables)]
    with tf.GradientTape() as tape:
        tape.watch(inputs)
        outputs = tf.nest.flatten(run())
        total = tf.add_n(
            [
                tf.reduce_sum(y * tf.random.stateless_normal(y.shape, [i, 9]))
                for i, y in enumerate(outputs)
            ]
        )
    return tape.gradient(total, watched)


def assert_close(ours, theirs):
    for a, b in zip(tf.nest.flatten(ours), tf.nest.flatten(theirs), strict=True):
        np.testing.assert_allclose(a, b, atol=2e-6)


@pytest.mark.parametrize("with_state", [False, True])
def test_outputs_states_and_gradients_equal_those_of_keras(lstm, x, state, with_state):
    theirs = keras.layers.LSTM(UNITS, return_sequences=True, return_state=True)
    theirs.build(x.shape)
    theirs.set_weights(lstm.get_weights())
    inputs = [x, *state] if with_state else [x]
    begin = state if with_state else None

    def ours():
        y, after = lstm(x, begin)
        return y, after.h, after.c

    assert_close(ours(), theirs(x, initial_state=begin))
    expected = gradients(lambda: theirs(x, initial_state=begin), theirs, inputs)
    assert_close(gradients(ours, lstm, inputs), expected)
    assert_close(gradients(tf.function(ours), lstm, inputs), expected)


@pytest.mark.parametrize("part", ["h", "c"])
def test_the_gradient_through_one_half_of_the_returned_state_is_right(lstm, x, state, part):
    def ours():
        return getattr(lstm(x, state)[1], part)

    def theirs():
        _, h, c = plain_loop(lstm, x, *state)
        return {"h": h, "c": c}[part]

    inputs = [x, *state]
    assert_close(gradients(ours, lstm, inputs), gradients(theirs, lstm, inputs))


def test_a_document_s_start_forgets_all_before_it_in_outputs_and_gradients(lstm, x, state):
    # Row 0 holds documents of 3, 1 and 3 positions, row 1 one of 7, row 2 goes on for 5 from the
    # given state before a document of 2.
    starts = np.zeros([3, 7], bool)
    starts[0, [0, 3, 4]] = True
    starts[1, 0] = True
    starts[2, 5] = True
    none = tf.zeros([1, UNITS])

    def together():
        y, after = lstm(x, state, starts=tf.constant(starts))
        return y, after.h, after.c

    def alone():
        def run(row, begin, end, h=none, c=none):
            return plain_loop(lstm, x[row : row + 1, begin:end], h, c)

        documents = [
            [run(0, 0, 3), run(0, 3, 4), run(0, 4, 7)],
            [run(1, 0, 7)],
            [run(2, 0, 5, state.h[2:], state.c[2:]), run(2, 5, 7)],
        ]
        y = tf.concat([tf.concat([part[0] for part in row], 1) for row in documents], 0)
        return y, *(tf.concat([row[-1][k] for row in documents], 0) for k in (1, 2))

    inputs = [x, *state]
    assert_close(together(), alone())
    assert_close(gradients(together, lstm, inputs), gradients(alone, lstm, inputs))


def test_with_lengths_the_state_is_that_after_each_row_s_own_end(lstm, x):
    lengths = [2, 7, 1]
    _, after = lstm(x, lengths=tf.constant(lengths))
    for row, length in enumerate(lengths):
        _, alone = lstm(x[row : row + 1, :length])
        assert_close((after.h[row], after.c[row]), (alone.h[0], alone.c[0]))


def test_a_row_of_length_0_keeps_the_state_that_it_begins_with(lstm, x, state):
    lengths = tf.constant([0, 7, 0])
    for begin in (None, state):
        _, after = lstm(x, begin, lengths=lengths)
        expected = lstm.zero_state(3) if begin is None else begin
        for row in (0, 2):
            np.testing.assert_array_equal(after.h[row], expected.h[row])
            np.testing.assert_array_equal(after.c[row], expected.c[row])
        assert np.abs(after.h[1] - expected.h[1]).max() > 0.01
    stack = StackedLSTM(2, UNITS)
    for after in stack(x, lengths=lengths)[1]:
        assert not np.any(after.h[::2])
        assert not np.any(after.c[::2])
        assert np.any(after.h[1])


def test_stepping_with_the_state_equals_one_full_pass():
    keras.utils.set_random_seed(0)
    stack = StackedLSTM(3, UNITS)
    x = tf.random.normal([2, 6, 4])
    full, after = stack(x)
    y, states = stack(x[:, :3])
    outputs = [y]
    for t in range(3, 6):
        y, states = stack(x[:, t : t + 1], states)
        outputs.append(y)
    assert_close((tf.concat(outputs, 1), states), (full, after))


def test_a_stack_is_one_layer_on_the_other():
    stack = StackedLSTM(2, UNITS, dropout=0.5)
    x = tf.random.normal([2, 6, 4])
    y, states = stack(x)
    below, first = stack.lstms[0](x)
    above, second = stack.lstms[1](below)
    assert_close((y, states), (above, (first, second)))


def test_a_stack_drops_between_the_layers_and_not_along_time():
    keras.utils.set_random_seed(0)
    stack = StackedLSTM(2, UNITS, dropout=0.5)
    x = tf.random.normal([2, 6, 4])
    with step_scope(tf.constant(3)):
        y, (first, _) = stack(x, training=True)
    below, undropped = stack.lstms[0](x)
    with step_scope(tf.constant(3)):
        dropped = stack.between(below, training=True)
    assert_close((y, first), (stack.lstms[1](dropped)[0], undropped))
    assert np.abs(y - stack(x)[0]).max() > 1e-2


def test_bfloat16_is_close_to_float32_and_steps_with_a_float32_cell(lstm, x):
    low = LSTM(UNITS, dtype="mixed_bfloat16")
    low.build(x.shape)
    low.set_weights(lstm.get_weights())
    full, after = lstm(x)
    y, half = low(x[:, :4])
    z, end = low(x[:, 4:], half)
    assert (y.dtype, end.h.dtype, end.c.dtype) == (tf.bfloat16, tf.bfloat16, tf.float32)
    np.testing.assert_allclose(tf.cast(tf.concat([y, z], 1), tf.float32), full, atol=0.03)
    np.testing.assert_allclose(end.c, after.c, atol=0.05)
    whole = low(x)[1]
    np.testing.assert_array_equal(whole.c, end.c)  # the state on the way was not rounded


def test_the_forget_gate_begins_open():
    lstm = LSTM(3)
    lstm.build((None, None, 4))
    assert lstm.bias.numpy().tolist() == [0] * 3 + [1] * 3 + [0] * 6


def test_its_compiled_step_equals_the_plain_one_with_states_and_documents():
    lstm = LSTM(6)
    x = tf.random.stateless_normal([3, 5, 4], [0, 1])
    state = LSTMState(*tf.unstack(tf.random.stateless_normal([2, 3, 6], [0, 2])))
    starts = tf.constant([[1, 0, 0, 1, 0], [0, 0, 1, 1, 0], [0, 0, 0, 0, 0]]) > 0
    lstm(x)

    def outputs_and_gradients():
        watched = [x, *state]
        with tf.GradientTape() as tape:
            tape.watch(watched)
            y, after = lstm(x, state, starts=starts)
            total = tf.reduce_sum(y**2) + tf.reduce_sum(after.c * after.h)
        return [y, *after, *tape.gradient(total, [*watched, *lstm.trainable_variables])]

    plain = outputs_and_gradients()
    with compiled_clusters():
        compiled = outputs_and_gradients()
    for got, expected in zip(compiled, plain, strict=True):
        tf.debugging.assert_near(got, expected, atol=2e-6)
