"""Vectors of texts: pooling, projections, training on pairs."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from tfllm.errors import UserError
from tfllm.models import TextEmbedder

TEXTS = np.array(["the cat sat", "a dog", "one two three", "good film", ""])
OTHERS = TEXTS[::-1].copy()
Y = np.array([0.9, -0.5, 1.0, 0.0, 0.3], "float32")
NO_POOLER = {"has_pooler": False}


@pytest.fixture(scope="module")
def embedder(new_encoder):
    """Tests share it and do not change it."""
    return new_encoder(
        TextEmbedder, backbone=NO_POOLER, projections=[(6, "tanh"), (4, "linear", False)]
    )


def unit(x):
    return x / np.linalg.norm(x, axis=-1, keepdims=True)


@pytest.mark.parametrize(
    ("pooling", "pool"),
    [
        ("mean", lambda hidden: hidden.mean(0)),
        ("max", lambda hidden: hidden.max(0)),
        ("cls", lambda hidden: hidden[0]),
    ],
)
def test_the_vector_is_pooled_from_the_tokens_alone(new_encoder, pooling, pool):
    model = new_encoder(TextEmbedder, pooling=pooling, backbone=NO_POOLER)
    inputs = model.preprocessor(TEXTS)
    hidden = model.backbone(inputs)["sequence_output"].numpy()
    expected = [
        pool(row[: int(count)])
        for row, count in zip(hidden, tf.reduce_sum(inputs["padding_mask"], -1), strict=True)
    ]
    np.testing.assert_allclose(model(inputs), unit(np.stack(expected)), atol=1e-6)


def test_projections_stand_behind_the_pooling(embedder):
    inputs = embedder.preprocessor(TEXTS)
    mask = inputs["padding_mask"].numpy()[..., None]
    hidden = embedder.backbone(inputs)["sequence_output"].numpy()
    x = (hidden * mask).sum(1) / mask.sum(1)
    first, second = embedder.projection_layers
    x = np.tanh(x @ first.kernel.numpy() + first.bias.numpy()) @ second.kernel.numpy()
    assert second.bias is None
    np.testing.assert_allclose(embedder(inputs), unit(x), atol=1e-5)


def test_a_row_s_vector_does_not_depend_on_its_neighbours(embedder):
    found = embedder.embed([*TEXTS, "a " * 500, "x" * 30_000])
    for text, answer in zip(TEXTS.tolist(), found, strict=False):
        alone = embedder.embed(text)
        np.testing.assert_allclose(alone.embedding, answer.embedding, atol=1e-6)
        np.testing.assert_allclose(np.linalg.norm(alone.embedding), 1, atol=1e-6)
    assert found[-1].error.startswith("the text is too long: its first 9728 bytes hold fewer")
    assert found[-1].embedding == [0.0] * 4


def test_the_loss_is_the_squared_error_of_the_cosine(embedder):
    one, other = (embedder(embedder.preprocessor(texts)).numpy() for texts in (TEXTS, OTHERS))
    weight = np.linspace(0.5, 2, 5)
    expected = np.average(np.square((one * other).sum(-1) - Y), weights=weight)
    embedder.compile()
    dataset = tf.data.Dataset.from_tensor_slices(((TEXTS, OTHERS), Y, weight)).batch(2)
    np.testing.assert_allclose(embedder.evaluate(dataset, verbose=0), expected, rtol=1e-4)


def test_training_brings_texts_together_and_apart(new_encoder, tmp_path):
    model = new_encoder(TextEmbedder, backbone=NO_POOLER)
    model.compile(keras.optimizers.Adam(1e-2))
    pairs = (np.array(["the cat sat", "the cat sat"]), np.array(["a dog", "one two three"]))
    model.fit(tf.data.Dataset.from_tensors((pairs, [1.0, -1.0])).repeat(60), verbose=0)
    cat, dog, one = (
        np.array(x.embedding) for x in model.embed(["the cat sat", "a dog", "one two three"])
    )
    assert cat @ dog > 0.7
    assert cat @ one < 0.0
    model.save_to_preset(tmp_path / "preset")
    again = TextEmbedder.from_preset(tmp_path / "preset")
    assert again.embed("a dog") == model.embed("a dog")


def test_labels_are_smoothed_in_contrast_alone(embedder):
    vectors = tf.eye(4)
    with pytest.raises(UserError, match="cosine of a pair has no classes: label_smoothing must"):
        embedder.target_losses(tf.ones(2), vectors, 0.1)
    embedder.target_losses(tf.ones(2), vectors)


def test_two_replicas_train_as_one_device_does(train_on_one_and_on_two):
    rows = (TEXTS[:4], OTHERS[:4]), Y[:4]
    dataset = tf.data.Dataset.from_tensors(rows).repeat(3)
    losses, weights = train_on_one_and_on_two(TextEmbedder, dataset, 0.5, backbone=NO_POOLER)
    np.testing.assert_allclose(*losses, rtol=1e-5)
    for one, other in zip(*weights, strict=True):
        np.testing.assert_allclose(one, other, atol=1e-5)


def test_a_pooling_that_is_none_is_refused(new_encoder):
    with pytest.raises(UserError, match="pooling must be one of mean, cls, max, got 'median'"):
        new_encoder(TextEmbedder, pooling="median")


def test_the_configuration_makes_the_same_model(embedder):
    again = TextEmbedder.from_config(embedder.get_config())
    assert again.get_config() == embedder.get_config()
    assert [layer.units for layer in again.projection_layers] == [6, 4]


def test_a_text_without_weight_is_nobody_s_wrong_answer(new_encoder):
    model = new_encoder(TextEmbedder, backbone={**NO_POOLER, "dropout": 0.0})
    model.compile(keras.optimizers.SGD(0.0))

    def loss(texts, others, weight):
        batch = ((texts, others), None, np.array(weight, "float32"))
        return model.evaluate(tf.data.Dataset.from_tensors(batch), verbose=0)

    alone = loss(TEXTS[:3], OTHERS[:3], [1, 1, 1])
    filled = loss(TEXTS[[0, 1, 2, 0, 4]], OTHERS[[0, 1, 2, 0, 4]], [1, 1, 1, 0, 0])
    assert filled == pytest.approx(alone, rel=1e-5)


def test_contrast_in_parts_is_refused_under_several_replicas(new_encoder):
    with tf.distribute.MirroredStrategy(["CPU:0", "CPU:1"]).scope():
        model = new_encoder(TextEmbedder, backbone=NO_POOLER)
        model.compile(keras.optimizers.SGD(0.1), microbatches=2)
    batch = tf.data.Dataset.from_tensors(((TEXTS[:4], OTHERS[:4]),))
    with pytest.raises(UserError, match="microbatches must be 1, or the replicas one; got 2"):
        model.fit(batch, verbose=0)
