"""Naming what a text is: training, scores by kind of problem, presets."""

import keras
import keras_hub
import numpy as np
import pytest
import tensorflow as tf

from tfllm.errors import UserError
from tfllm.models import MaskedLM, TextClassifier

TEXTS = np.array(["good film", "bad film", "a very good cat", "the dog is bad"] * 2)
OTHERS = np.array(["one", "", "two three", "the cat sat"] * 2)
Y = np.array([1, 0, 1, 2] * 2)  # of three labels
THREE = {"labels": ["sad", "glad", "neither"]}
PLAIN = {"dropout": 0.0, "backbone": {"dropout": 0.0}}


def batches(x=TEXTS, y=Y, size=4):
    return tf.data.Dataset.from_tensor_slices((x, y)).batch(size)


def test_fit_on_strings_learns(new_encoder):
    model = new_encoder(TextClassifier, **THREE)
    model.compile(keras.optimizers.Adam(1e-2), weighted_metrics=["accuracy"])
    history = model.fit(batches(y=Y * (Y < 2), size=8).repeat(100), verbose=0).history
    assert history["accuracy"][0] > 0.7
    found = [answer.label for answer in model.classify(TEXTS[:4].tolist())]
    assert found == ["glad", "sad", "glad", "sad"]


def test_the_answers_are_the_probabilities_of_the_logits(classifier):
    found = classifier.classify(TEXTS.tolist(), OTHERS.tolist())
    logits = classifier.predict((TEXTS, OTHERS), verbose=0)
    np.testing.assert_allclose(
        [answer.scores for answer in found], tf.nn.softmax(logits), atol=1e-6
    )
    for answer in found:
        assert answer.labels == ["sad", "glad", "neither"]
        assert answer.score == max(answer.scores)
        assert answer.label == answer.labels[answer.scores.index(answer.score)]


def test_a_row_s_answer_does_not_depend_on_its_neighbours(classifier):
    found = classifier.classify([*TEXTS, "", "a " * 500], [*OTHERS, "", "x"])
    for i in (0, 3):
        alone = classifier.classify(str(TEXTS[i]), str(OTHERS[i]))
        np.testing.assert_allclose(found[i].scores, alone.scores, atol=1e-6)
    assert classifier.classify([]) == []


@pytest.mark.parametrize(
    ("problem_type", "classes", "y", "scores", "losses"),
    [
        (None, 3, Y, tf.nn.softmax, tf.nn.sparse_softmax_cross_entropy_with_logits),
        (None, 1, Y, tf.sigmoid, lambda y, z: tf.square(y - z[:, 0])),
        ("regression", 1, Y, tf.identity, lambda y, z: tf.square(y - z[:, 0])),
        (
            "regression", 2, np.ones((8, 2)), tf.identity,
            lambda y, z: tf.reduce_mean(tf.square(y - z), -1),
        ),
        (
            "multi_label_classification", 3, np.eye(3)[Y], tf.sigmoid,
            lambda y, z: tf.reduce_mean(tf.nn.sigmoid_cross_entropy_with_logits(y, z), -1),
        ),
    ],
)  # fmt: skip
def test_scores_and_loss_are_those_of_the_kind_of_problem(
    new_encoder, problem_type, classes, y, scores, losses
):
    model = new_encoder(TextClassifier, num_classes=classes, problem_type=problem_type)
    assert model.labels == [f"LABEL_{i}" for i in range(classes)]
    logits = tf.random.stateless_normal((8, classes), (1, 2))
    np.testing.assert_allclose(model.scores(logits), scores(logits), atol=1e-6)
    y_as = y if losses is tf.nn.sparse_softmax_cross_entropy_with_logits else y.astype("float32")
    np.testing.assert_allclose(model.target_losses(y, logits), losses(y_as, logits), atol=1e-6)
    if problem_type == "regression":
        with pytest.raises(UserError, match="A regression has no classes: label_smoothing must"):
            model.target_losses(y, logits, 0.1)


def test_the_loss_is_the_weighted_mean_over_all_rows(new_encoder):
    model = new_encoder(TextClassifier, **THREE, **PLAIN)
    weight = np.linspace(0, 2, 8)
    losses = tf.nn.sparse_softmax_cross_entropy_with_logits(Y, model.predict(TEXTS, verbose=0))
    found = model.evaluate(TEXTS, Y, sample_weight=weight, batch_size=3, verbose=0)
    np.testing.assert_allclose(found, np.average(losses, weights=weight), rtol=1e-5)


def test_two_replicas_train_as_one_device_does(train_on_one_and_on_two):
    dataset = batches((TEXTS, OTHERS)).repeat(2)
    losses, weights = train_on_one_and_on_two(TextClassifier, dataset, 0.5, **THREE)
    np.testing.assert_allclose(*losses, rtol=1e-5)
    for one, other in zip(*weights, strict=True):
        np.testing.assert_allclose(one, other, atol=1e-5)


def test_a_preset_answers_as_the_model_did_and_kerashub_finds_it(new_encoder, tmp_path):
    model = new_encoder(TextClassifier, **THREE, problem_type="multi_label_classification")
    model.fit(TEXTS, np.eye(3)[Y], verbose=0)
    model.save_to_preset(tmp_path / "preset")
    expected = model.classify(TEXTS.tolist(), OTHERS.tolist())
    for load in (TextClassifier.from_preset, keras_hub.models.TextClassifier.from_preset):
        again = load(str(tmp_path / "preset"))
        assert type(again) is TextClassifier
        assert again.classify(TEXTS.tolist(), OTHERS.tolist()) == expected
    # Neither the encoder nor the optimizer once more: 51 numbers in float32, and the format.
    assert (tmp_path / "preset" / "task.weights.h5").stat().st_size < 20_000


@pytest.mark.parametrize("new_labels", [{"labels": ["a", "b"]}, {"num_classes": 2}])
def test_a_preset_gets_a_new_head_for_other_labels(classifier, tmp_path, new_labels):
    classifier.save_to_preset(tmp_path / "preset")
    again = TextClassifier.from_preset(tmp_path / "preset", **new_labels)
    assert again.labels == new_labels.get("labels", ["LABEL_0", "LABEL_1"])
    for ours, theirs in zip(again.backbone.weights, classifier.backbone.weights, strict=True):
        np.testing.assert_array_equal(ours, theirs)


def test_a_masked_language_model_without_a_pooler_becomes_a_classifier(new_encoder, tmp_path):
    new_encoder(MaskedLM, backbone={"has_pooler": False}).save_to_preset(tmp_path / "preset")
    model = TextClassifier.from_preset(tmp_path / "preset", labels=["a", "b"])
    assert len(model.pooler.weights) == 2
    model.compile(keras.optimizers.Adam(2e-2))
    before = model.pooler.kernel.numpy()
    model.fit(TEXTS, Y % 2, verbose=0)
    assert np.abs(model.pooler.kernel - before).max() > 1e-3
    model.save_to_preset(tmp_path / "again")
    again = TextClassifier.from_preset(tmp_path / "again")
    assert again.classify("good film") == model.classify("good film")


def test_lora_trains_and_changes_the_answers(new_encoder):
    model = new_encoder(TextClassifier, **THREE)
    before = model.classify("good film")
    model.backbone.enable_lora(2)
    model.compile(keras.optimizers.Adam(5e-2))
    model.fit(batches(), verbose=0)
    names = {variable.path.rsplit("/", 1)[1] for variable in model.backbone.trainable_variables}
    assert names - {"bias"} == {"lora_kernel_a", "lora_kernel_b"}
    assert model.classify("good film") != before


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({}, "needs num_classes or labels, as many of them: got None and None"),
        ({"num_classes": 2, "labels": ["a"]}, r"got 2 and \['a'\]"),
        ({"num_classes": 2, "problem_type": "x"}, "problem_type must be None or one of .* got 'x'"),
    ],
)
def test_labels_that_do_not_fit_are_refused(new_encoder, settings, words):
    with pytest.raises(UserError, match=words):
        new_encoder(TextClassifier, **settings)


def test_a_preset_keeps_its_head_for_the_labels_it_has(classifier, tmp_path):
    classifier.save_to_preset(tmp_path / "preset")
    again = TextClassifier.from_preset(tmp_path / "preset", labels=list(classifier.labels))
    assert again.classify(TEXTS.tolist()) == classifier.classify(TEXTS.tolist())
