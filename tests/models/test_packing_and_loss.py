"""What the models make of packed rows, and the loss they train on."""

import keras
import numpy as np
import pytest
import tensorflow as tf


def cross_entropy(logits, y):
    """float[b, t], in float64."""
    logits = np.asarray(logits, "float64")
    highest = logits.max(-1, keepdims=True)
    log_sum = np.log(np.exp(logits - highest).sum(-1)) + highest[..., 0]
    return log_sum - np.take_along_axis(logits, np.asarray(y)[..., None], -1)[..., 0]


def test_a_packed_row_gives_the_logits_and_the_loss_of_each_document_alone(model, pack):
    documents = ["one two", "你好，世界", "the cat sat"]
    x, y, weight = pack([documents], 40)
    packed = model(x).numpy()
    loss = (cross_entropy(packed, y) * weight).sum()
    at = alone_loss = 0
    for text in documents:
        x, y, weight = pack([[text]], 40)
        alone = model(x).numpy()
        length = int(weight.sum())
        np.testing.assert_allclose(packed[0, at : at + length], alone[0, :length], atol=2e-5)
        alone_loss += (cross_entropy(alone, y) * weight).sum()
        at += length
    np.testing.assert_allclose(loss, alone_loss, rtol=1e-6)


@pytest.mark.parametrize("changed", [0, 1])
def test_a_document_s_logits_do_not_depend_on_its_neighbour_at_all(model, pack, changed):
    x, _, weight = pack([["one two three", "the cat sat on"]], 40)
    y = model(x).numpy()
    inside = x["segment_ids"] == changed + 1
    x["token_ids"] = np.where(inside, (x["token_ids"] + 17) % 300, x["token_ids"])
    z = model(x).numpy()
    other = (weight > 0) & ~inside
    np.testing.assert_array_equal(z[other], y[other])
    assert np.abs(z[inside] - y[inside]).max() > 0.1


def test_padding_behind_a_row_changes_nothing(model, pack):
    short, _, weight = pack([["one two three"]], 20)
    long, *_ = pack([["one two three"]], 60)
    count = int(weight.sum())
    np.testing.assert_allclose(model(short)[0, :count], model(long)[0, :count], atol=2e-5)


def test_the_loss_is_the_mean_over_the_weighted_targets_of_all_batches(model, pack):
    batches = [
        pack([["one two", "a cat"], ["red green blue\n"]], 30),
        pack([["你"], []], 30),
    ]
    batches[0][2][:] *= 0.5
    total = sum((cross_entropy(model(x), y) * w).sum() for x, y, w in batches)
    expected = total / sum(w.sum() for *_, w in batches)
    dataset = tf.data.Dataset.from_generator(
        lambda: batches, output_signature=tf.nest.map_structure(tf.type_spec_from_value, batches[0])
    )
    np.testing.assert_allclose(model.evaluate(dataset, verbose=0), expected, rtol=1e-5)


@pytest.mark.parametrize("kind", ["gpt", "lstm"])
def test_a_training_step_takes_the_gradient_of_that_loss(new_model, pack, kind):
    model = new_model(kind, num_layers=1, hidden_dim=16)
    x, y, weight = pack([["one two", "a cat"], ["red"]], 30)
    before = [v.numpy() for v in model.trainable_variables]
    with tf.GradientTape() as tape:
        losses = tf.nn.sparse_softmax_cross_entropy_with_logits(y, model(x))
        loss = tf.reduce_sum(losses * weight) / weight.sum()
    gradients = tape.gradient(loss, [v.value for v in model.trainable_variables])
    model.compile(keras.optimizers.SGD(0.5))
    logged = model.train_on_batch(x, y, weight)
    np.testing.assert_allclose(logged, loss, rtol=1e-6)
    for old, gradient, variable in zip(before, gradients, model.trainable_variables, strict=True):
        np.testing.assert_allclose(variable, old - 0.5 * gradient.numpy(), atol=1e-6)


def test_a_batch_without_targets_has_loss_zero_and_changes_nothing(new_model, pack):
    model = new_model("gpt", num_layers=1, hidden_dim=16)
    before = [v.numpy() for v in model.trainable_variables]
    model.compile(keras.optimizers.SGD(0.5))
    assert model.train_on_batch(*pack([[], []], 8)) == 0
    for old, variable in zip(before, model.trainable_variables, strict=True):
        np.testing.assert_array_equal(variable, old)
