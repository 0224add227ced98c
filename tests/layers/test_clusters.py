"""Each compiled cluster is the plain ops that it stands for, and its gradient is theirs."""

from functools import partial

import keras
import pytest
import tensorflow as tf

from tfllm.layers import Linear, gelu_tanh
from tfllm.layers.clusters import add_bias, compiled_clusters, narrowed, suits_this_replica
from tfllm.layers.fused import activate, attend, normalise, transposed
from tfllm.layers.vocabulary_loss import vocabulary_loss


def random(*shape, seed=0, dtype="float32"):
    return tf.cast(tf.random.stateless_normal(shape, [seed, len(shape)]), dtype)


def qkv(dtype):
    return [random(2, 3, size, 4, seed=size, dtype=dtype) for size in (5, 6)] + [
        random(2, 3, 6, 4, seed=9, dtype=dtype)
    ]


# A function and its tensors, by dtype.
CASES = {
    "norm": (
        partial(normalise, epsilon=1e-5),
        lambda dtype: [random(2, 5, 8, dtype=dtype), random(8, seed=1), random(8, seed=2)],
    ),
    "attention": (partial(attend, allowed=None, bias=None, scale=0.3), qkv),
    "masked attention": (
        lambda q, k, v: attend(q, k, v, random(2, 5, 6) < 0.5, None, 0.3),
        qkv,
    ),
    "attention with a shared bias": (
        lambda q, k, v, bias: attend(q, k, v, random(1, 1, 6) < 0.5, bias, 1.0),
        lambda dtype: [*qkv(dtype), random(1, 3, 5, 6, seed=1, dtype=dtype)],
    ),
    "attention with a bias of each row": (
        lambda q, k, v, bias: attend(q, k, v, None, bias, 1.0),
        lambda dtype: [*qkv(dtype), random(2, 3, 5, 6, seed=1, dtype=dtype)],
    ),
    "attention with a bias and a scale": (
        lambda q, k, v, bias: attend(q, k, v, None, bias, 0.3),
        lambda dtype: [*qkv(dtype), random(1, 3, 5, 6, seed=1, dtype=dtype)],
    ),
    "transpose": (
        lambda x: transposed(x, (2, 0, 3, 1, 4)),
        lambda dtype: [random(2, 3, 4, 5, 6, dtype=dtype)],
    ),
    "gelu": (partial(activate, activation=gelu_tanh), lambda dtype: [random(6, 8, dtype=dtype)]),
    "relu": (
        partial(activate, activation=keras.activations.relu),
        lambda dtype: [random(6, 8, dtype=dtype)],
    ),
}


def value_and_gradients(function, tensors):
    with tf.GradientTape() as tape:
        tape.watch(tensors)
        y = function(*tensors)
        # Another weight for each number, so that no gradient hides behind a sum that is constant.
        total = tf.reduce_sum(tf.cast(y, tf.float32) * random(*y.shape, seed=7))
    return [y, *tape.gradient(total, tensors)]


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("name", CASES)
def test_what_is_compiled_equals_plain_ops_under_autodiff(name, dtype):
    function, make = CASES[name]
    tensors = make(dtype)
    expected = value_and_gradients(function, [tf.cast(tensor, tf.float32) for tensor in tensors])
    with compiled_clusters():
        compiled = value_and_gradients(function, tensors)
    assert [got.dtype for got in compiled] == [dtype, *(tensor.dtype for tensor in tensors)]
    tolerance = 2e-6 if dtype == "float32" else 0.05
    for got, exact in zip(compiled, expected, strict=True):
        scale = max(1.0, float(tf.reduce_max(tf.abs(exact))))
        difference = tf.reduce_max(tf.abs(tf.cast(got, tf.float32) - exact))
        assert float(difference) <= tolerance * scale


def unknown(*axes):
    """Whose sizes of these axes are known only when a step runs."""

    def of(tensor):
        shape = [None if axis in axes else size for axis, size in enumerate(tensor.shape)]
        return tf.TensorSpec(shape, tensor.dtype)

    return of


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
@pytest.mark.parametrize("compiled", [True, False])
@pytest.mark.parametrize(
    "seen", [unknown(), unknown(0), unknown(0, 1)], ids=["known", "any rows", "any sizes"]
)
def test_the_loss_in_parts_and_its_gradients_are_those_of_all_logits(
    monkeypatch, smoothing, compiled, seen
):
    monkeypatch.setattr("tfllm.layers.vocabulary_loss._LOGITS_AT_ONCE", 20)  # 2 rows at a time
    hidden, table, bias = random(3, 3, 4), random(10, 4, seed=1), random(10, seed=2)
    y = tf.constant([[1, 9, 0], [3, 3, 2], [4, 0, 9]])
    weights = tf.constant([[1.0, 0, 2], [1, 1, 0.5], [0, 3, 1]])

    def gradients(scored, hidden, y, weights):
        with tf.GradientTape() as tape:
            tape.watch([hidden, table, bias])
            loss, *told = scored(hidden, y, weights)
            tripled = 3 * loss
        return [loss, *told, *tape.gradient(tripled, [hidden, table, bias])]

    def in_parts(*batch):
        with compiled_clusters(compiled):
            return gradients(
                lambda hidden, y, w: vocabulary_loss(hidden, table, y, w, smoothing, bias), *batch
            )

    def whole(hidden, y, weights):
        targets = tf.one_hot(y, 10) * (1 - smoothing) + smoothing / 10
        logits = tf.matmul(hidden, table, transpose_b=True) + bias
        losses = tf.nn.softmax_cross_entropy_with_logits(targets, logits)
        unsmoothed = tf.nn.sparse_softmax_cross_entropy_with_logits(y, logits)
        is_best = tf.cast(tf.argmax(logits, -1, tf.int32) == y, tf.float32)
        return tf.reduce_sum(losses * weights), unsmoothed, is_best

    batch = hidden, y, weights
    traced = tf.function(in_parts, list(map(seen, batch)), autograph=False)
    for got, expected in zip(traced(*batch), gradients(whole, *batch), strict=True):
        tf.debugging.assert_near(got, expected, atol=1e-5)


def test_logits_are_held_a_part_at_a_time_whatever_the_sizes_that_come(monkeypatch):
    seen = []

    def losses_and_gradient(logits, *_):
        count = tf.py_function(lambda x: seen.append(len(x)) or 0.0, [logits], tf.float32)
        of_rows = tf.zeros_like(logits[:, 0]) + count
        return of_rows, tf.zeros_like(logits), of_rows, of_rows

    monkeypatch.setattr("tfllm.layers.vocabulary_loss._LOGITS_AT_ONCE", 20)
    monkeypatch.setattr("tfllm.layers.vocabulary_loss._losses_and_gradient", losses_and_gradient)
    specs = map(unknown(0, 1), (random(3, 3, 4), tf.zeros([3, 3], tf.int32), tf.zeros([3, 3])))
    traced = tf.function(
        lambda x, y, w: vocabulary_loss(x, random(10, 4), y, w), list(specs), autograph=False
    )
    for rows in (3, 1, 0):
        traced(random(rows, 3, 4), tf.zeros([rows, 3], tf.int32), tf.zeros([rows, 3]))
    assert seen == [2, 2, 2, 2, 1, 2, 1, 0]


def test_only_in_its_scope_is_anything_left_for_xla():
    def is_compiled():
        traced = tf.function(lambda x: activate(x, gelu_tanh)).get_concrete_function(tf.ones([2]))
        functions = traced.graph.as_graph_def().library.function
        return any("_XlaMustCompile" in function.attr for function in functions)

    assert not is_compiled()
    with compiled_clusters():
        assert is_compiled()
        with compiled_clusters(False):
            assert not is_compiled()
    assert not is_compiled()


def test_lengths_that_vary_from_batch_to_batch_are_not_compiled():
    def suits(*shapes):
        inputs = [tf.TensorSpec(shape) for shape in shapes]
        return suits_this_replica(({"x": inputs[0]}, inputs[1:], None))

    assert suits([32, 64], [32])
    assert suits([None, 64], [None])
    assert not suits([32, None], [32])


def test_small_batches_are_not_worth_compiling():
    assert not suits_this_replica(tf.TensorSpec([4, 64]))
    assert not suits_this_replica(tf.TensorSpec([None, 40]))
    assert suits_this_replica(tf.TensorSpec([16, 64]))


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("compiled", [True, False])
def test_the_gradient_of_a_bias_is_the_sum_of_many_rows(dtype, compiled):
    x = random(4096, 8, dtype=dtype) + tf.cast(0.5, dtype)
    bias = random(8, seed=1, dtype=dtype)
    with compiled_clusters(compiled), tf.GradientTape() as tape:
        tape.watch(bias)
        y = add_bias(x, bias)
        got = tape.gradient(y, bias, x)
    tf.debugging.assert_equal(y, x + bias)
    assert got.dtype == dtype
    expected = tf.reduce_sum(tf.cast(x, tf.float32), 0)
    # Summed in bfloat16, where 2048 + 0.5 is 2048, it would be far off.
    tolerance = 1e-5 if dtype == "float32" else 2**-8
    tf.debugging.assert_near(tf.cast(got, tf.float32), expected, rtol=tolerance)


def test_a_dense_layer_in_bfloat16_learns_its_bias_from_all_rows():
    layer = Linear(8, dtype="mixed_bfloat16")
    x = random(4096, 4)
    layer.build(x.shape)
    with tf.GradientTape() as tape:
        total = tf.reduce_sum(layer(x, training=True))
    tf.debugging.assert_near(tape.gradient(total, layer.bias.value), tf.fill([8], 4096.0))


def test_rounding_is_that_of_a_cast():
    exact = [1 + 2**-8, 1 + 3 * 2**-8, -1 - 2**-8, 3e38, 3.4e38, 1e-40, 0.0, -0.0]
    x = tf.concat([exact, [float("inf"), -float("inf")], random(1000)], 0)
    tf.debugging.assert_equal(narrowed(x, tf.bfloat16), tf.cast(x, tf.bfloat16))
    assert tf.math.is_nan(narrowed(tf.constant([float("nan")]), tf.bfloat16))
