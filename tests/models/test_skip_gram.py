"""Vectors of words: the loss by hand, one device and two, presets, neighbours, exports."""

import keras
import numpy as np
import pytest
import tensorflow as tf

import tfllm.models
from tfllm import contract
from tfllm.data import objectives
from tfllm.errors import UserError
from tfllm.export import for_serving
from tfllm.models import SkipGram, SkipGramBackbone, SkipGramPreprocessor
from tfllm.serving import Client, Server
from tfllm.tokenizers import WordTokenizer

WORDS = ["the", "cat", "dog", "sat", "ran", "on", "mat", "log", "and"]
TEXTS = ["the cat", "Dogs sat, on the MAT!", "zebra", "", "?! log"]


@pytest.fixture(scope="module")
def tokenizer():
    counts = {word: 100 - 10 * i for i, word in enumerate(WORDS)}
    return WordTokenizer(counts, {"dogs": "dog"})


@pytest.fixture(scope="module")
def new_skip_gram(tokenizer):
    """Makes a model whose vectors are all drawn, as those of the contexts begin with zeros."""

    def make(seed=0):
        model = SkipGram(SkipGramBackbone(len(WORDS), 6), SkipGramPreprocessor(tokenizer))
        random = np.random.default_rng(seed)
        model.set_weights([random.normal(0, 1, w.shape) for w in model.get_weights()])
        return model

    return make


@pytest.fixture(scope="module")
def model(new_skip_gram):
    """Tests share it and do not change it."""
    return new_skip_gram()


@pytest.fixture(scope="module")
def batch(tokenizer):
    """Four rows of 24 words, of which some are left out."""
    settings = {"window": 2, "negatives": 3, "shared_negatives": 4, "sample": 0.1}
    objective = objectives.SkipGram(tokenizer, **settings)
    ids = np.random.default_rng(1).integers(0, len(WORDS), (4, 24))
    columns = {"token_ids": tf.constant(ids), "segment_ids": tf.ones_like(ids)}
    return objective(columns, tf.constant([0, 0], tf.int64))


def by_hand(words, contexts, batch):
    """The loss per pair and its gradients, from equation 4 of Mikolov et al. 2013."""
    x, y, _ = tf.nest.map_structure(np.asarray, batch)
    loss, num_pairs = 0.0, 0
    gradients = np.zeros_like(words), np.zeros_like(contexts)

    def count(center, other, sign, weight):
        score = words[center] @ contexts[other]
        slope = -sign / (1 + np.exp(sign * score)) * weight
        gradients[0][center] += slope * contexts[other]
        gradients[1][other] += slope * words[center]
        return weight * np.log1p(np.exp(-sign * score))

    rows, blocks, places = x["centers"].shape
    for r in range(rows):
        for k in range(blocks):
            for i in range(places):
                center = x["centers"][r, k, i]
                for j in np.flatnonzero(y["contexts"][r, k, i]):
                    loss += count(center, x["contexts"][r, k, j], 1, 1.0)
                    num_pairs += 1
                    for negative in x["negatives"][r]:
                        is_other = negative != x["contexts"][r, k, j]
                        loss += count(center, negative, -1, is_other * 3 / 4)
    return loss / num_pairs, [gradient / num_pairs for gradient in gradients]


def test_the_loss_and_its_gradients_are_those_of_the_formula(new_skip_gram, batch):
    model = new_skip_gram()
    words, contexts = model.get_weights()
    loss, gradients = by_hand(words.astype(float), contexts.astype(float), batch)
    model.compile(keras.optimizers.SGD(1.0))
    found = model.fit(tf.data.Dataset.from_tensors(batch), verbose=0).history["loss"]
    np.testing.assert_allclose(found, [loss], rtol=1e-5)
    for before, after, gradient in zip(
        (words, contexts), model.get_weights(), gradients, strict=True
    ):
        assert np.abs(gradient).max() > 1e-2
        np.testing.assert_allclose(before - after, gradient, atol=1e-5)


def test_without_weights_a_word_counts_by_its_pairs(model, batch):
    x, y, weight = batch
    np.testing.assert_array_equal(model.target_weights(y, None), weight)


def test_two_replicas_train_as_one_device_does(new_skip_gram, batch):
    dataset = tf.data.Dataset.from_tensors(batch).repeat(3)
    losses, weights = [], []
    for strategy in (
        tf.distribute.get_strategy(),
        tf.distribute.MirroredStrategy(["CPU:0", "CPU:1"]),
    ):
        with strategy.scope():
            model = new_skip_gram()
            model.compile(keras.optimizers.Adam(0.05))
        losses.append(model.fit(dataset, verbose=0).history["loss"])
        weights.append(model.get_weights())
    np.testing.assert_allclose(*losses, rtol=1e-5)
    for one, other in zip(*weights, strict=True):
        np.testing.assert_allclose(one, other, atol=1e-5)


def test_a_model_begins_as_word2vec_does():
    words, contexts = SkipGram(SkipGramBackbone(1000, 50)).get_weights()
    assert 0.009 < np.abs(words).max() <= 0.01
    assert not contexts.any()


def test_a_text_is_the_direction_of_the_mean_of_its_words(model):
    vectors = dict(zip(WORDS, model.word_vectors, strict=True))
    mean = np.mean([vectors[word] for word in ("dog", "sat", "on", "the", "mat")], axis=0)
    found = model.embed(TEXTS)
    np.testing.assert_allclose(found[1].embedding, mean / np.linalg.norm(mean), atol=1e-6)
    assert [row.error for row in found] == [
        "", "", "no word of the text is in the vocabulary",
        "no word of the text is in the vocabulary", "",
    ]  # fmt: skip
    assert found[2].embedding == [0.0] * 6
    for text, row in zip(TEXTS, found, strict=True):
        assert model.embed(text) == row


def test_neighbours_are_the_nearest_by_cosine(model):
    vectors = model.word_vectors
    unit = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
    cosines = unit @ unit[WORDS.index("dog")]
    order = [i for i in np.argsort(-cosines) if WORDS[i] != "dog"]
    found = model.neighbours("Dogs", 3)
    assert [word for word, _ in found] == [WORDS[i] for i in order[:3]]
    np.testing.assert_allclose([cosine for _, cosine in found], cosines[order[:3]], atol=1e-6)
    assert len(model.neighbours("dog", 99)) == len(WORDS) - 1
    np.testing.assert_array_equal(model.word_vectors, vectors)
    for word in ("zebra", "cat dog"):
        with pytest.raises(UserError, match=f"takes one word of the vocabulary .* got '{word}'"):
            model.neighbours(word)


def test_a_preset_brings_back_the_model(model, tmp_path):
    model.save_to_preset(tmp_path / "preset")
    again = tfllm.models.from_preset(tmp_path / "preset")
    assert type(again) is SkipGram
    assert again.words == WORDS
    assert again.embed(TEXTS) == model.embed(TEXTS)
    for one, other in zip(again.get_weights(), model.get_weights(), strict=True):
        np.testing.assert_array_equal(one, other)


def test_an_export_answers_as_the_live_model_does(model, tmp_path):
    folder = for_serving(model, tmp_path / "words")  # which compares every signature
    loaded = tf.saved_model.load(folder)
    assert set(loaded.signatures) == set(contract.EMBEDDER_SIGNATURES)
    with Server({"words": str(folder.parent)}, port=0) as server:
        server.wait_until_available(60)
        with Client(f"localhost:{server.port}", "words") as client:
            for ours, theirs in zip(client.embed(TEXTS), model.embed(TEXTS), strict=True):
                np.testing.assert_allclose(ours.embedding, theirs.embedding, atol=1e-6)
                assert ours.error == theirs.error
            assert client.detokenize(client.tokenize("Dogs ran")) == "dog ran"


def test_what_a_skip_gram_cannot_do_is_refused(new_skip_gram, batch):
    model = new_skip_gram()
    model.compile(keras.optimizers.SGD(0.1), label_smoothing=0.1)
    with pytest.raises(UserError, match="no classes: label_smoothing must be 0"):
        model.fit(tf.data.Dataset.from_tensors(batch), verbose=0)
    with pytest.raises(UserError, match="trained on prepared words"):
        model.fit(tf.data.Dataset.from_tensors((tf.constant(["the cat"]), [0])), verbose=0)
    small = SkipGram(SkipGramBackbone(3, 4), model.preprocessor)
    with pytest.raises(UserError, match="of 3 words needs a WordTokenizer .* of 9"):
        small.embed("cat")
