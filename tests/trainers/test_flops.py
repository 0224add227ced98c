"""Operations of a step: counted in the graph, held against sums by hand."""

import pytest
import tensorflow as tf

from tfllm.models import GPTBackbone, GPTCausalLM, LSTMBackbone, LSTMCausalLM
from tfllm.trainers.flops import UnknownSize, matmul_flops, model_flops

ROWS, LENGTH, WIDTH, WORDS = 4, 32, 64, 1000
BACKBONE = {"vocabulary_size": WORDS, "num_layers": 2, "hidden_dim": WIDTH}


def row(length=LENGTH):
    return tf.TensorSpec((ROWS, length), tf.int32)


def inputs(length=LENGTH):
    return {name: row(length) for name in ("token_ids", "segment_ids", "positions")}


def test_a_gpt_takes_six_operations_per_weight_and_token_and_its_attention():
    backbone = GPTBackbone(num_heads=4, max_sequence_length=LENGTH, dropout=0.1, **BACKBONE)
    found = model_flops(GPTCausalLM(backbone, None), inputs(), row())
    weights = 2 * (4 * WIDTH**2 + 8 * WIDTH**2) + WIDTH * WORDS
    attention = 2 * 2 * LENGTH * WIDTH  # per layer and token: queries by keys, weights by values
    assert found == 3 * 2 * ROWS * LENGTH * (weights + attention)


def test_an_lstm_takes_six_operations_per_weight_and_token():
    backbone = LSTMBackbone(dropout=0.1, **BACKBONE)
    found = model_flops(LSTMCausalLM(backbone, None), inputs(), row())
    weights = 2 * 2 * WIDTH * 4 * WIDTH + WIDTH * WORDS
    assert found == 3 * 2 * ROWS * LENGTH * weights


def test_rows_of_any_length_have_no_number():
    backbone = GPTBackbone(num_heads=4, max_sequence_length=LENGTH, **BACKBONE)
    assert model_flops(GPTCausalLM(backbone, None), inputs(None), row(None)) is None


def graph_of(function, *shapes):
    function = tf.function(function, autograph=False)
    return function.get_concrete_function(*(tf.TensorSpec(s) for s in shapes)).graph


@pytest.mark.parametrize(
    ("function", "shapes", "flops"),
    [
        (lambda a, b: tf.matmul(a, b, transpose_a=True), [(3, 5), (3, 7)], 2 * 3 * 5 * 7),
        (lambda a, b: tf.matmul(a, b, adjoint_a=True), [(2, 3, 5), (2, 3, 7)], 2 * 2 * 3 * 5 * 7),
        (lambda a, b: tf.einsum("bij,bkj->bik", a, b), [(2, 3, 5), (2, 7, 5)], 2 * 2 * 3 * 5 * 7),
        (lambda a, b: tf.einsum("ij->ji", a) + b, [(3, 5), (5, 3)], 0),
        (tf.function(tf.matmul, autograph=False), [(3, 5), (5, 7)], 2 * 3 * 5 * 7),
    ],
    ids=["transposed", "batches", "einsum", "no product", "in a function"],
)
def test_products_of_matrices_are_counted(function, shapes, flops):
    assert matmul_flops(graph_of(function, *shapes)) == flops


def loop(a, times):
    return tf.while_loop(
        lambda _: True, lambda a: (tf.matmul(a, a),), (a,), maximum_iterations=times
    )


def test_a_loop_counts_as_often_as_it_runs():
    assert matmul_flops(graph_of(lambda a: loop(a, 6), (3, 3))) == 6 * 2 * 3**3


def test_a_loop_that_may_run_for_ever_has_no_number():
    with pytest.raises(UnknownSize, match="does not say how often"):
        matmul_flops(graph_of(lambda a: loop(a, None), (3, 3)))
