import keras
import numpy as np
import pytest
import tensorflow as tf

from tfllm.errors import UserError
from tfllm.models import TextEmbedder

SIZES = {"hidden_dim": 16, "max_sequence_length": 16}
ROWS = [["one two", "a cat"], ["red green blue"], ["a dog is not"], ["one"]]


@pytest.fixture(params=["one device", "two replicas"])
def strategy(request):
    if request.param == "one device":
        return tf.distribute.get_strategy()
    return tf.distribute.MirroredStrategy(["CPU:0", "CPU:1"])


def trained(new_model, strategy, batch, microbatches, **settings):
    with strategy.scope():
        model = new_model("gpt", dropout=0.3, **SIZES)
        model.compile(
            keras.optimizers.SGD(0.5),
            microbatches=microbatches,
            weighted_metrics=["accuracy"],
            **settings,
        )
    history = model.fit(tf.data.Dataset.from_tensors(batch).repeat(3), verbose=0).history
    return history, [variable.numpy() for variable in model.trainable_variables]


def test_a_batch_in_parts_is_the_step_of_the_whole_one(new_model, pack, strategy):
    batch = pack(ROWS, 16)
    (whole, weights), (parts, others) = (
        trained(new_model, strategy, batch, number, label_smoothing=0.1) for number in (1, 2)
    )
    assert set(parts) == {"loss", "accuracy"}
    for name in whole:
        np.testing.assert_allclose(parts[name], whole[name], rtol=1e-5)
    for one, other in zip(weights, others, strict=True):
        np.testing.assert_allclose(other, one, atol=1e-6)


def test_parts_that_are_not_equal_are_refused(new_model, pack):
    with pytest.raises(UserError, match="must divide the rows of a replica's batch: got 3 for 4"):
        trained(new_model, tf.distribute.get_strategy(), pack(ROWS, 16), 3)


def test_settings_out_of_range_or_of_another_loss_are_refused(new_model):
    model = new_model("gpt", **SIZES)
    with pytest.raises(UserError, match="microbatches must be at least 1 and label_smoothing in"):
        model.compile(microbatches=0)
    with pytest.raises(UserError, match="label_smoothing in .*: got 1 and 1.0"):
        model.compile(label_smoothing=1.0)
    with pytest.raises(UserError, match='need loss="auto"'):
        model.compile(loss="mse", label_smoothing=0.1)


def test_label_smoothing_is_that_of_keras_and_only_in_training(new_model, pack):
    x, y, weight = pack(ROWS, 16)
    model = new_model("gpt", **SIZES)
    logits = model(x)
    one_hot = tf.one_hot(y, logits.shape[-1])
    expected = [
        keras.losses.CategoricalCrossentropy(from_logits=True, label_smoothing=smoothing)(
            tf.boolean_mask(one_hot, weight > 0), tf.boolean_mask(logits, weight > 0)
        )
        for smoothing in (0.2, 0.0)
    ]
    model.compile(keras.optimizers.SGD(0.0), label_smoothing=0.2)
    np.testing.assert_allclose(model.train_on_batch(x, y, weight), expected[0], rtol=1e-5)
    np.testing.assert_allclose(model.test_on_batch(x, y, weight), expected[1], rtol=1e-5)


TEXTS = np.array(["the cat sat", "one two", "good film", "who is 你"])
OTHERS = np.array(["a dog sat", "three four five", "bad film", "where is 好"])


def test_contrast_asks_each_text_for_its_other_one(new_encoder):
    model = new_encoder(TextEmbedder, backbone={"has_pooler": False, "dropout": 0.0})
    one, other = (model(model.preprocessor(texts)).numpy() for texts in (TEXTS, OTHERS))
    cosines = one @ other.T / model.temperature
    expected = np.mean(np.log(np.exp(cosines).sum(-1)) - np.diag(cosines))
    model.compile()
    dataset = tf.data.Dataset.from_tensor_slices(((TEXTS, OTHERS),)).batch(4)
    np.testing.assert_allclose(model.evaluate(dataset, verbose=0), expected, rtol=1e-4)


def test_contrast_is_with_the_texts_of_all_replicas(train_on_one_and_on_two):
    dataset = tf.data.Dataset.from_tensors(((TEXTS, OTHERS),)).repeat(3)
    losses, weights = train_on_one_and_on_two(
        TextEmbedder, dataset, 0.5, backbone={"has_pooler": False, "dropout": 0.2}
    )
    np.testing.assert_allclose(*losses, rtol=1e-5)
    for one, other in zip(*weights, strict=True):
        np.testing.assert_allclose(one, other, atol=1e-5)


def test_a_temperature_that_is_none_is_refused(new_encoder):
    with pytest.raises(UserError, match="temperature must be above 0, got 0"):
        new_encoder(TextEmbedder, temperature=0)


@pytest.mark.parametrize("padding", ["longest", "max_length"])
def test_parts_of_batches_without_weights_and_of_pairs_are_the_step_of_the_whole(
    new_encoder, padding
):
    texts = np.array(["the cat", "a dog", "one two three", "good"])
    trained = []
    for parts in (1, 2):
        model = new_encoder(TextEmbedder, backbone={"has_pooler": False, "dropout": 0.0})
        model.preprocessor.padding = padding
        model.compile(keras.optimizers.SGD(0.5), microbatches=parts)
        rows = tf.data.Dataset.from_tensor_slices(((texts, texts[::-1].copy()), np.ones(4)))
        model.fit(rows.batch(4, drop_remainder=padding == "max_length"), verbose=0)
        trained.append([variable.numpy() for variable in model.trainable_variables])
    for one, other in zip(*trained, strict=True):
        np.testing.assert_allclose(other, one, atol=1e-6)
