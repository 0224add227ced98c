"""Guessing what stands behind a mask: which tokens are masked, training, answers."""

import h5py
import keras
import numpy as np
import pytest
import tensorflow as tf

from tfllm.errors import UserError
from tfllm.models import MaskedLM, TextClassifier
from tfllm.tokenizers.wordpiece import WordPieceTokenizer

TEXTS = np.array(
    ["the cat sat on the mat", "a dog sat on a log", "one two three four five", "good"]
)


@pytest.fixture(scope="module")
def taught(new_encoder):
    """A model that knows `TEXTS`; tests share it and do not change it."""
    model = new_encoder(MaskedLM, next_sentence=True)
    model.compile(keras.optimizers.Adam(5e-3), weighted_metrics=["accuracy"])
    model.fit(tf.data.Dataset.from_tensors(TEXTS).repeat(300), verbose=0)
    return model


def test_every_step_of_training_masks_other_tokens_of_the_same_texts(taught):
    data = taught.preprocess_samples(TEXTS, sample_weight=np.array([1.0, 2.0, 3.0, 4.0]))
    again = taught.preprocess_samples(TEXTS)
    np.testing.assert_array_equal(data[0]["token_ids"], again[0]["token_ids"])
    plain = taught.preprocessor(TEXTS)["token_ids"]
    found = []
    steps = taught.optimizer.iterations
    before = int(steps)
    for step, seed in ((5, 0), (6, 0), (5, 0), (5, 1)):
        steps.assign(step)
        taught.seed = seed
        x, y, weight = taught._masked_anew(data)
        restored = x["token_ids"].numpy()
        np.put_along_axis(restored, x["mask_positions"].numpy(), y.numpy(), 1)
        np.testing.assert_array_equal(restored, plain)
        np.testing.assert_array_equal(tf.reduce_max(weight, -1), [1, 2, 3, 4])
        found.append(x["mask_positions"].numpy())
    steps.assign(before)
    taught.seed = 0
    np.testing.assert_array_equal(found[0], found[2])
    assert (found[0] != found[1]).any()
    assert (found[0] != found[3]).any()


def test_fit_on_strings_learns_what_stands_behind_a_mask(taught):
    found = taught.fill_mask(["the cat [MASK] on the mat", "one two [MASK] four five"])
    assert [answer.token[0] for answer in found] == ["sat", "three"]
    assert found[0].text[0] == "the cat sat on the mat"
    assert found[0].score[0] > 0.3


def test_answers_come_with_their_probabilities_best_first(taught):
    (answer,) = taught.fill_mask(["a [MASK] sat"])
    assert len(answer.token) == len(answer.score) == len(answer.text) == 5
    assert answer.score == sorted(answer.score, reverse=True)
    everything = taught.text(top_k=43).fill_mask(tf.constant(["a [MASK] sat"]))
    np.testing.assert_allclose(tf.reduce_sum(everything["score"]), 1, atol=1e-5)
    np.testing.assert_allclose(everything["score"][0, :5], answer.score, atol=1e-6)


def test_the_first_of_several_masks_is_filled_and_the_others_are_shown(taught):
    (answer,) = taught.fill_mask(["the [MASK] sat on the [MASK]"])
    assert answer.text[0] == f"[CLS] the {answer.token[0]} sat on the [MASK] [SEP]"


def test_a_row_without_a_mask_is_an_error_of_that_row(taught):
    found = taught.fill_mask(["a cat", "a [MASK] sat", "a " * 30 + "[MASK]", "x" * 30_000])
    no_mask = "the text has no [MASK] in its first 22 tokens"
    too_long = "the text is too long: its first 9728 bytes hold fewer tokens than the model takes"
    assert [answer.error for answer in found] == [no_mask, "", no_mask, too_long]
    assert found[0][:3] == ([""] * 5, [0.0] * 5, [""] * 5)
    alone = taught.fill_mask("a [MASK] sat")
    assert alone.text == found[1].text
    np.testing.assert_allclose(alone.score, found[1].score, atol=1e-6)


def test_the_loss_is_that_of_the_masked_tokens_of_the_whole_batch(taught):
    x, y, weight = taught.preprocess_samples(TEXTS)
    losses = tf.nn.sparse_softmax_cross_entropy_with_logits(y, taught(x))
    found = taught.evaluate(tf.data.Dataset.from_tensors(TEXTS), return_dict=True, verbose=0)
    np.testing.assert_allclose(found["loss"], np.average(losses, weights=weight), rtol=1e-4)


def test_batches_that_are_masked_already_are_left_alone(new_encoder):
    model = new_encoder(MaskedLM, masking=None, backbone={"dropout": 0.0})
    x = model.preprocessor(TEXTS) | {"mask_positions": tf.constant([[1, 2]] * 4)}
    y, weight = tf.constant([[5, 6]] * 4), tf.constant([[1.0, 0.0]] * 4)
    losses = tf.nn.sparse_softmax_cross_entropy_with_logits(y, model(x))[:, 0]
    history = model.fit(tf.data.Dataset.from_tensors((x, y, weight)), verbose=0).history
    np.testing.assert_allclose(history["loss"], [tf.reduce_mean(losses)], rtol=1e-4)
    assert MaskedLM.from_config(model.get_config()).masking is None


def test_two_replicas_train_as_one_device_does(train_on_one_and_on_two):
    dataset = tf.data.Dataset.from_tensor_slices(np.tile(TEXTS, 3)).batch(4)
    settings = {"backbone": {"has_pooler": False}, "padding": "max_length"}
    losses, weights = train_on_one_and_on_two(MaskedLM, dataset, 0.5, **settings)
    np.testing.assert_allclose(*losses, rtol=1e-5)
    for one, other in zip(*weights, strict=True):
        np.testing.assert_allclose(one, other, atol=1e-5)


def test_a_preset_answers_as_the_model_did(taught, tmp_path):
    taught.save_to_preset(tmp_path / "preset")
    again = MaskedLM.from_preset(tmp_path / "preset")
    assert again.fill_mask("a [MASK] sat") == taught.fill_mask("a [MASK] sat")
    assert again.next_sentence("a cat", "one") == taught.next_sentence("a cat", "one")
    stored = []
    with h5py.File(tmp_path / "preset" / "task.weights.h5") as file:
        file.visititems(lambda _, found: stored.append(getattr(found, "shape", ())))
    assert (16, 16) in stored  # the head
    assert (43, 16) not in stored  # the embeddings are the encoder's


def test_the_next_sentence_is_judged_in_one_go_or_alone(taught, new_encoder):
    firsts, seconds = ["the cat", "a dog", ""], ["sat on", "", "one"]
    together = taught.next_sentence(firsts, seconds)
    assert together.shape == (3,)
    for first, second, probability in zip(firsts, seconds, together, strict=True):
        np.testing.assert_allclose(taught.next_sentence(first, second), probability, atol=1e-6)
    inputs = taught.preprocessor((tf.constant(firsts), tf.constant(seconds)), y=None)
    logits = taught.next_sentence_head(taught.backbone(inputs)["pooled_output"])
    np.testing.assert_allclose(together, tf.nn.softmax(logits)[:, 0], atol=1e-6)
    with pytest.raises(UserError, match="was made with next_sentence=False"):
        new_encoder(MaskedLM).next_sentence("a", "b")


def test_what_cannot_be_is_refused(new_encoder, taught):
    with pytest.raises(UserError, match="next_sentence needs a backbone with has_pooler=True"):
        new_encoder(MaskedLM, next_sentence=True, backbone={"has_pooler": False})
    for top_k in (0, 44):
        with pytest.raises(UserError, match=f"top_k must be from 1 to 43, .*; got {top_k}"):
            taught.text(top_k=top_k)
    model = new_encoder(MaskedLM)
    model.preprocessor.tokenizer = WordPieceTokenizer(["[UNK]", "[CLS]", "[SEP]", "a"])
    with pytest.raises(UserError, match=r"needs \[MASK\] in its vocabulary"):
        model.fill_mask("a")


def test_the_encoder_of_a_preset_becomes_that_of_a_classifier(taught, tmp_path):
    taught.save_to_preset(tmp_path / "preset")
    model = TextClassifier.from_preset(tmp_path / "preset", num_classes=2)
    for ours, theirs in zip(model.backbone.weights, taught.backbone.weights, strict=True):
        np.testing.assert_array_equal(ours, theirs)
