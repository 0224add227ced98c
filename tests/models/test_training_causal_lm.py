"""Both models in plain `compile` and `fit`."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from tfllm.layers import step_scope

SMALL = {"num_layers": 1, "hidden_dim": 16}


@pytest.fixture(params=["gpt", "lstm"])
def kind(request):
    return request.param


def weights(model):
    return [v.numpy() for v in model.trainable_variables]


def test_fit_on_strings_learns(model, texts):
    # The fixtures were trained so; an untrained model is at ln(330) = 5.8.
    assert model.evaluate(np.array(texts), batch_size=8, verbose=0) < 1.0


def test_fit_on_strings_and_on_their_records_are_the_same(new_model, texts):
    strings = tf.data.Dataset.from_tensors(tf.constant(texts)).repeat(2)
    losses = []
    for dataset in (strings, strings.map(new_model("lstm", **SMALL).preprocessor)):
        model = new_model("lstm", **SMALL)
        model.compile(keras.optimizers.Adam(1e-2))
        losses.append(model.fit(dataset, epochs=2, verbose=0).history["loss"])
    assert losses[0] == losses[1]
    assert losses[0][1] < losses[0][0]


def test_two_replicas_of_unequal_weights_equal_one_device(new_model, pack, kind):
    # The first replica's rows hold five documents, the second's one; the last row has none.
    x, y, weight = pack([["one two", "a cat"], ["red", "you", "the"], ["if x"], []], 16)
    batch = (x, y, weight)
    losses, final = [], []
    for strategy in (
        tf.distribute.get_strategy(),
        tf.distribute.MirroredStrategy(["CPU:0", "CPU:1"]),
    ):
        with strategy.scope():
            model = new_model(kind, dropout=0.2, **SMALL)
            model.compile(keras.optimizers.SGD(0.5, momentum=0.9), weighted_metrics=["accuracy"])
        dataset = tf.data.Dataset.from_tensors(batch).repeat(4)
        steps = []
        log = keras.callbacks.LambdaCallback(on_train_batch_end=lambda _, logs: steps.append(logs))  # noqa: B023
        model.fit(dataset, verbose=0, callbacks=[log])
        losses.append(
            [step["loss"] for step in steps] + [model.evaluate(dataset.take(1), verbose=0)[0]]
        )
        final.append(weights(model))
    np.testing.assert_allclose(losses[1], losses[0], rtol=1e-6)
    for mirrored, one in zip(*reversed(final), strict=True):
        np.testing.assert_allclose(mirrored, one, atol=1e-6)


def test_dropout_follows_the_optimizer_s_step_and_the_seed(new_model, pack, kind):
    x, y, weight = pack([["one two three"], ["a cat is"]], 16)
    model = new_model(kind, dropout=0.5, **SMALL)
    model.compile(keras.optimizers.SGD(0.0))
    logged = [model.train_on_batch(x, y, weight) for _ in range(2)]
    for step in range(2):
        with step_scope(tf.constant(step), model.seed):
            logits = model(x, training=True)
        losses = tf.nn.sparse_softmax_cross_entropy_with_logits(y, logits)
        expected = tf.reduce_sum(losses * weight) / weight.sum()
        np.testing.assert_allclose(logged[step], expected, rtol=1e-5)
    assert logged[0] != logged[1]


def test_a_loss_of_the_user_s_own_trains_as_in_keras(new_model, pack):
    x, y, weight = pack([["one two three"], ["a cat is"]], 16)
    model = new_model("gpt", **SMALL)
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    expected = loss(y, model(x), sample_weight=weight)
    model.compile(keras.optimizers.Adam(1e-2), loss=loss, weighted_metrics=["accuracy"])
    first = model.train_on_batch(x, y, weight, return_dict=True)
    np.testing.assert_allclose(first["loss"], expected, rtol=1e-6)
    assert set(first) == {"loss", "accuracy"}
    assert model.evaluate(x, y, sample_weight=weight, verbose=0)[0] < first["loss"]


def test_weighted_metrics_stand_beside_the_loss(new_model, texts):
    model = new_model("gpt", **SMALL)
    model.compile(weighted_metrics=["accuracy"])
    logs = model.evaluate(np.array(texts), verbose=0, return_dict=True)
    assert set(logs) == {"loss", "accuracy"}
    assert 0 <= logs["accuracy"] < 0.2


def test_compiling_again_starts_the_loss_anew_and_shows_it_once(new_model, texts):
    model = new_model("gpt", **SMALL)
    for _ in range(2):
        model.compile(keras.optimizers.Adam(1e-3))
        logs = model.fit(tf.data.Dataset.from_tensors(tf.constant(texts)), verbose=0).history
    assert list(logs) == ["loss"]
    assert [metric.name for metric in model.metrics] == ["loss"]


def test_the_optimizer_by_default_is_a_slow_adam(new_model):
    model = new_model("gpt", **SMALL)
    model.compile()
    assert type(model.optimizer) is keras.optimizers.Adam
    np.testing.assert_allclose(model.optimizer.learning_rate, 2e-5)


def test_mixed_precision_trains_close_to_float32(new_model, texts, kind):
    losses = []
    for dtype in ("float32", "mixed_bfloat16"):
        model = new_model(kind, dtype=dtype, **SMALL)
        model.compile(keras.optimizers.Adam(1e-2))
        dataset = tf.data.Dataset.from_tensors(tf.constant(texts)).repeat(6)
        losses.append(model.fit(dataset, verbose=0).history["loss"][0])
        assert all(v.dtype == "float32" for v in model.trainable_variables)
    np.testing.assert_allclose(losses[1], losses[0], rtol=0.01)


def test_a_step_compiled_by_xla_equals_one_that_is_not(new_model, pack, kind):
    batch = pack([["one two", "a cat"], ["red green"]], 16)
    losses = []
    for jit_compile in (False, True):
        model = new_model(kind, **SMALL)  # XLA draws other random numbers
        model.compile(keras.optimizers.SGD(0.5), jit_compile=jit_compile)
        losses.append([model.train_on_batch(*batch) for _ in range(3)])
    np.testing.assert_allclose(losses[1], losses[0], rtol=1e-5)


def test_lora_trains_its_own_weights_and_the_biases_beside_them(new_model, texts):
    model = new_model("gpt", **SMALL)
    model.backbone.enable_lora(2)
    assert {"/".join(v.path.split("/")[-2:]) for v in model.trainable_variables} == {
        f"{layer}/{weight}"
        for layer in ("query", "value")
        for weight in ("lora_kernel_a", "lora_kernel_b", "bias")
    }
    model.compile(keras.optimizers.Adam(0.1))
    before = [v.numpy() for v in model.backbone.non_trainable_variables], weights(model)
    model.fit(tf.data.Dataset.from_tensors(tf.constant(texts)).repeat(3), verbose=0)
    for old, variable in zip(before[0], model.backbone.non_trainable_variables, strict=True):
        np.testing.assert_array_equal(variable, old)
    for old, variable in zip(before[1], model.trainable_variables, strict=True):
        assert np.abs(variable - old).max() > 0.01


def test_lora_that_came_after_a_first_answer_is_in_the_next(new_model):
    model = new_model("gpt", **SMALL)
    before = model.score(["one"], [" two"])[0].logprob
    model.backbone.enable_lora(2)
    assert model.score(["one"], [" two"])[0].logprob == pytest.approx(before, abs=1e-5)
    for variable in model.trainable_variables:
        if "lora" in variable.path:
            variable.assign(tf.random.normal(variable.shape))
    after = model.score(["one"], [" two"])[0].logprob
    assert abs(after - before) > 0.01


def test_a_step_that_is_worth_it_has_its_elementwise_work_compiled(new_model):
    model = new_model("gpt")
    model.compile()
    model.optimizer.build(model.trainable_variables)

    def has_compiled(rows):
        ids = tf.TensorSpec([rows, 64], tf.int32)
        x = dict.fromkeys(("token_ids", "segment_ids", "positions"), ids)
        step = tf.function(lambda *data: model.train_step(data), autograph=False)
        traced = step.get_concrete_function(x, ids, tf.TensorSpec([rows, 64]))
        functions = traced.graph.as_graph_def().library.function
        return any("_XlaMustCompile" in function.attr for function in functions)

    assert has_compiled(rows=16)
    assert not has_compiled(rows=2)
