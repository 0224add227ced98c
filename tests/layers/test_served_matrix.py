"""Rounded matrices, against NumPy."""

import numpy as np
import pytest
import tensorflow as tf

from tfllm.layers import BFloat16Matrix, Float32Matrix, Int8Matrix

RANDOM = np.random.default_rng(0)
# Columns of very different sizes, one of zeros; rows as well.
KERNEL = RANDOM.normal(size=(48, 20)) * 10.0 ** RANDOM.integers(-3, 3, 20)
KERNEL[:, 3] = 0
X = RANDOM.normal(size=(7, 48)) * 10.0 ** RANDOM.integers(-3, 3, (7, 1))
X[2] = 0
X = X.astype("float32")


def product(matrix, x):
    """As a graph has it: the ops are in graphs only."""
    rows = tf.TensorSpec([None, x.shape[1]], tf.float32)
    return tf.function(lambda x: matrix(x), input_signature=[rows], autograph=False)(x)


def int8(matrix, axis):
    """The matrix with every number rounded to one of 255 of its column or row."""
    largest = np.abs(matrix).max(axis, keepdims=True)
    scale = np.where(largest > 0, largest, 1) / 127
    return np.rint(matrix / scale) * scale


@pytest.mark.parametrize("transposed", [False, True])
def test_int8_rounds_columns_and_rows_and_nothing_else(transposed):
    matrix = Int8Matrix(KERNEL.T if transposed else KERNEL, transposed=transposed, name="m")
    expected = int8(X, 1) @ int8(KERNEL, 0)
    np.testing.assert_allclose(product(matrix, X), expected, rtol=1e-5, atol=1e-9)
    assert sum(variable.dtype == tf.int8 for variable in matrix.variables) == 1


@pytest.mark.parametrize("transposed", [False, True])
def test_bfloat16_rounds_both_and_sums_in_float32(transposed):
    matrix = BFloat16Matrix(KERNEL.T if transposed else KERNEL, transposed=transposed, name="m")
    rounded = [tf.cast(tf.cast(x, tf.bfloat16), tf.float64) for x in (X, KERNEL)]
    # The result is rounded once more.
    np.testing.assert_allclose(product(matrix, X), rounded[0] @ rounded[1], rtol=2**-7, atol=1e-6)


@pytest.mark.parametrize("kind", [Int8Matrix, BFloat16Matrix])
def test_rows_of_a_table_are_those_that_it_multiplies_by(kind):
    table = kind(KERNEL.T, transposed=True, name="table")
    identity = np.eye(48, dtype="float32")
    multiplied_by = product(table, identity).numpy().T
    np.testing.assert_allclose(table.rows([[3, 0, 19]])[0], multiplied_by[[3, 0, 19]], rtol=1e-6)


@pytest.mark.parametrize("kind", [Int8Matrix, BFloat16Matrix, Float32Matrix])
def test_a_row_does_not_depend_on_its_neighbours_not_even_by_a_bit(kind):
    x = RANDOM.normal(size=(19, 768)).astype("float32")
    matrix = kind(RANDOM.normal(size=(768, 96)), name="m")
    together = product(matrix, x)
    for i, row in enumerate(x):
        np.testing.assert_array_equal(product(matrix, row[None])[0], together[i])
    assert product(matrix, x[:0]).shape == (0, 96)


@pytest.mark.parametrize("kind", [Int8Matrix, BFloat16Matrix])
def test_a_call_is_one_op_of_the_graph_itself_that_keeps_what_it_packed(kind):
    matrix = kind(KERNEL, name="m")
    graph = tf.function(lambda x: matrix(x)).get_concrete_function(X).graph
    (name,) = kind.ops
    (op,) = [op for op in graph.get_operations() if op.type == name]
    assert not [op.name for op in graph.get_operations() if "Call" in op.type]
    constant = {Int8Matrix: "is_weight_const", BFloat16Matrix: "is_filter_const"}[kind]
    assert op.get_attr(constant)


@pytest.mark.parametrize("kind", [Int8Matrix, BFloat16Matrix])
def test_a_call_in_a_loop_multiplies_in_each_round(kind):
    matrix = kind(KERNEL, name="m")

    @tf.function(autograph=False)
    def in_a_loop(rows):
        def body(i, found):
            return i + 1, found.write(i, matrix(rows[i][None])[0])

        found = tf.TensorArray(tf.float32, 7, element_shape=[20])
        return tf.while_loop(lambda i, _: i < 7, body, (0, found))[1].stack()

    np.testing.assert_allclose(in_a_loop(tf.constant(X)), product(matrix, X), rtol=1e-6)
