"""Pretraining on masked tokens and on pairs of pieces: the two losses, what is shown, replicas."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from tfllm.data.objectives import MaskedLM as Objective
from tfllm.errors import UserError
from tfllm.models import MaskedLM

ROWS, SIZE = 8, 9
RANDOM = np.random.default_rng(0)
COLUMNS = {name: RANDOM.integers(5, 43, (ROWS, SIZE)) for name in ("first", "second")}
COLUMNS["second"][:3] = -1  # replicas get other numbers of pairs


@pytest.fixture(scope="module")
def batches(pieces):
    """Masked batches of three steps, with pairs."""
    objective = Objective(pieces, rate=0.3, whole_words=True, pair="next_sentence")
    columns = {name: tf.constant(values) for name, values in COLUMNS.items()}
    steps = tf.data.Dataset.range(3)
    return steps.map(lambda step: objective(columns, tf.stack([tf.constant(1, tf.int64), step])))


@pytest.fixture(scope="module")
def new_judge(new_encoder):
    def make(**settings):
        return new_encoder(MaskedLM, next_sentence=True, backbone={"dropout": 0.0}, **settings)

    return make


def by_hand(model, x, y, weight):
    """Sums and counts of the losses and of the right answers, by NumPy."""
    hidden = model.backbone({name: x[name] for name in model.backbone.input})
    logits = {"tokens": model(x), "pair": model.next_sentence_head(hidden["pooled_output"])}
    found = {}
    for name, target in y.items():
        logp = tf.nn.log_softmax(logits[name]).numpy()
        w, target = weight[name].numpy(), target.numpy()
        losses = -np.take_along_axis(logp, target[..., None], -1)[..., 0]
        found[f"{name}_loss"] = np.array([(losses * w).sum(), w.sum()])
        found[f"{name}_hits"] = np.array([((logp.argmax(-1) == target) * w).sum(), w.sum()])
    return found


def shown(found):
    means = {name: total / count for name, (total, count) in found.items()}
    return {
        "loss": means["tokens_loss"] + means["pair_loss"],
        "masked_perplexity": np.exp(means["tokens_loss"]),
        "masked_accuracy": means["tokens_hits"],
        "pair_accuracy": means["pair_hits"],
    }


def test_the_loss_is_the_sum_of_two_means_and_the_masks_are_those_of_the_batch(new_judge, batches):
    model = new_judge()
    model.compile(keras.optimizers.SGD(0.1))
    batch = next(iter(batches))
    expected = shown(by_hand(model, *batch))
    assert 0 < tf.reduce_sum(batch[2]["pair"]) < ROWS
    one = tf.data.Dataset.from_tensors(batch)
    found = model.evaluate(one, return_dict=True, verbose=0)
    assert found == pytest.approx(expected, rel=1e-4)
    history = model.fit(one, verbose=0).history
    assert {name: values[0] for name, values in history.items()} == pytest.approx(
        expected, rel=1e-4
    )


def test_an_evaluation_takes_the_means_over_all_batches_for_what_it_shows(new_judge, batches):
    model = new_judge()
    model.compile(keras.optimizers.SGD(0.1))
    every = [by_hand(model, *batch) for batch in batches]
    expected = shown({name: sum(found[name] for found in every) for name in every[0]})
    found = model.evaluate(batches, return_dict=True, verbose=0)
    for name in ("masked_perplexity", "masked_accuracy", "pair_accuracy"):
        np.testing.assert_allclose(found[name], expected[name], rtol=1e-4)


def test_weights_may_be_left_out(new_judge, batches):
    model = new_judge()
    model.compile(keras.optimizers.SGD(0.1))
    x, y, weight = next(iter(batches))
    ones = {name: tf.ones_like(values) for name, values in weight.items()}
    expected = shown(by_hand(model, x, y, ones))
    found = model.evaluate(tf.data.Dataset.from_tensors((x, y)), return_dict=True, verbose=0)
    assert found == pytest.approx(expected, rel=1e-4)


def test_texts_have_no_pairs_to_judge(new_judge):
    model = new_judge()
    model.compile(keras.optimizers.SGD(0.1))
    texts = tf.data.Dataset.from_tensors(np.array(["the cat sat on the mat", "a dog"]))
    names = {"loss", "masked_perplexity", "masked_accuracy"}
    assert set(model.fit(texts, verbose=0).history) == names
    found = model.evaluate(texts, return_dict=True, verbose=0)
    assert set(found) == names
    np.testing.assert_allclose(np.log(found["masked_perplexity"]), found["loss"], rtol=1e-5)


def test_pairs_need_a_head_that_judges_them(new_encoder, batches):
    model = new_encoder(MaskedLM)
    model.compile(keras.optimizers.SGD(0.1))
    with pytest.raises(UserError, match="pairs to judge, and this model was made with next_sent"):
        model.fit(batches, verbose=0)


def test_two_replicas_and_their_microbatches_train_as_one_device_does(new_judge, batches):
    found = []
    for strategy in (
        tf.distribute.get_strategy(),
        tf.distribute.MirroredStrategy(["CPU:0", "CPU:1"]),
    ):
        with strategy.scope():
            model = new_judge()
            parts = 1 if len(found) == 0 else 2
            model.compile(keras.optimizers.SGD(0.5), microbatches=parts)
        history = model.fit(batches, epochs=2, shuffle=False, verbose=0).history
        found.append((history, [variable.numpy() for variable in model.trainable_variables]))
    (one, ones), (two, twos) = found
    assert one.keys() == two.keys()
    for name in one:
        np.testing.assert_allclose(one[name], two[name], rtol=1e-5)
    for ours, theirs in zip(ones, twos, strict=True):
        np.testing.assert_allclose(ours, theirs, atol=1e-5)


def test_a_preset_that_judges_no_pairs_gets_a_new_head_for_them(new_encoder, tmp_path):
    plain = new_encoder(MaskedLM)
    plain.output_bias.variables[0].assign_add(plain.output_bias.variables[0] + 1.0)
    plain.save_to_preset(tmp_path / "preset")
    judge = MaskedLM.from_preset(tmp_path / "preset", next_sentence=True)
    assert 0 <= judge.next_sentence("a cat", "a dog") <= 1
    for layer in ("head", "output_bias"):
        for ours, theirs in zip(
            getattr(judge, layer).variables, getattr(plain, layer).variables, strict=True
        ):
            np.testing.assert_array_equal(ours, theirs)
    judge.save_to_preset(tmp_path / "again")
    again = MaskedLM.from_preset(tmp_path / "again", next_sentence=True)
    assert again.next_sentence("a cat", "a dog") == judge.next_sentence("a cat", "a dog")
