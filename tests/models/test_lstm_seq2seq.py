"""LSTMs with attention over the source: what they read, write and keep.

That packed pairs do not meet is tested in test_packed_pairs.py.
"""

import keras
import keras_hub
import numpy as np
import pytest
import tensorflow as tf

import tfllm.models
from tfllm.errors import UserError
from tfllm.models import (
    LSTMSeq2SeqBackbone,
    LSTMSeq2SeqLM,
    LSTMSeq2SeqLMPreprocessor,
    Seq2SeqLM,
    build,
)

SOURCES = ["one two three", "the cat sat on the mat", "a cat is not a dog", "", "smile 🙂"]
TARGETS = ["three two one", "a dog", "你好，世界。", "nothing", "🙂 wave 👋"]
CONTEXT = 48


def new_model(tokenizer, *, scale=0.0, **sizes):
    """With `scale` the weights are far from where they begin, so that everything matters."""
    keras.utils.set_random_seed(0)
    sizes = {
        "vocabulary_size": tokenizer.vocabulary_size() + 3,
        "num_layers": 1,
        "hidden_dim": 32,
        "num_heads": 2,
        "num_decoder_layers": 2,
        "max_sequence_length": CONTEXT,
    } | sizes
    preprocessor = LSTMSeq2SeqLMPreprocessor(
        tokenizer, 24, 24, decoder_start_token_id=tokenizer.eos_id
    )
    model = LSTMSeq2SeqLM(LSTMSeq2SeqBackbone(**sizes), preprocessor)
    random = np.random.default_rng(0)
    for variable in model.trainable_variables:
        variable.assign(variable + scale * random.normal(size=variable.shape))
    return model


@pytest.fixture(scope="module")
def model(tokenizer):
    """Tests share it and do not change it."""
    return new_model(tokenizer, scale=0.2)


def dataset():
    return tf.data.Dataset.from_tensor_slices((SOURCES[:4], TARGETS[:4])).batch(4)


@pytest.fixture(scope="module")
def ids(tokenizer):
    """Sources and beginnings of targets of different lengths, padded with other tokens."""
    random = np.random.default_rng(0)
    lengths = np.array([7, 20, 1], "int32")
    return {
        "source": random.integers(0, tokenizer.vocabulary_size(), (3, 20)).astype("int32"),
        "target": random.integers(0, tokenizer.vocabulary_size(), (3, 9)).astype("int32"),
        "lengths": lengths,
        "present": (np.arange(20) < lengths[:, None]).astype("int32"),
    }


def full_pass(model, ids):
    return model(
        {
            "encoder_token_ids": ids["source"],
            "encoder_padding_mask": ids["present"],
            "decoder_token_ids": ids["target"],
            "decoder_padding_mask": np.ones_like(ids["target"]),
        }
    ).numpy()


@pytest.mark.parametrize(("begin", "layers"), [(1, 3), (5, 1)])
def test_stepping_equals_one_full_pass_also_where_texts_share_a_source(
    tokenizer, ids, stepped, begin, layers
):
    model = new_model(tokenizer, scale=0.2, num_decoder_layers=layers)
    expected, target = full_pass(model, ids), ids["target"]
    more = target[:, begin:]
    other = np.concatenate([more[:, :1], np.full_like(more[:, 1:], 7)], 1)
    reading = model.reading(ids["source"], ids["lengths"])
    # What stands behind the beginning is not read, whatever the width.
    found = stepped(reading, target, [begin] * 3, more)
    np.testing.assert_allclose(found, expected[:, begin - 1 :], atol=2e-5)
    both = stepped(reading, target, [begin] * 3, np.stack([more, other], 1))
    np.testing.assert_allclose(both[:, 0], expected[:, begin - 1 :], atol=2e-5)
    changed = np.concatenate([target[:, :begin], other], 1)
    expected = full_pass(model, ids | {"target": changed})
    np.testing.assert_allclose(both[:, 1], expected[:, begin - 1 :], atol=2e-5)


def test_beginnings_of_different_lengths_step_as_one_full_pass(model, ids, stepped):
    expected, target, begins = full_pass(model, ids), ids["target"], [4, 1, 3]
    more = np.stack([row[begin : begin + 5] for row, begin in zip(target, begins, strict=True)])
    found = stepped(model.reading(ids["source"], ids["lengths"]), target, begins, more)
    for row, begin in enumerate(begins):
        np.testing.assert_allclose(found[row], expected[row, begin - 1 : begin + 5], atol=2e-5)


def test_hidden_states_of_a_whole_target_are_those_of_the_model(model, ids):
    reading = model.reading(ids["source"], ids["lengths"])
    found = reading.logits(reading.hidden_states(ids["target"]))
    np.testing.assert_allclose(found, full_pass(model, ids), atol=2e-5)


def test_all_of_the_source_is_read_and_nothing_of_what_fills_it(model, ids):
    expected = full_pass(model, ids)
    filled = np.where(ids["present"], ids["source"], 5)
    np.testing.assert_array_equal(full_pass(model, ids | {"source": filled}), expected)
    for place in (0, 6):
        changed = ids["source"].copy()
        changed[0, place] = 3
        moved = np.abs(full_pass(model, ids | {"source": changed}) - expected).max(-1)
        assert moved[0].min() > 1e-4
        assert moved[1:].max() == 0


def test_a_target_is_read_backwards_only(model, ids):
    expected = full_pass(model, ids)
    changed = ids["target"].copy()
    changed[:, 6] = 7
    found = full_pass(model, ids | {"target": changed})
    np.testing.assert_array_equal(found[:, :6], expected[:, :6])
    assert np.abs(found[:, 6:] - expected[:, 6:]).max(-1).min() > 1e-3


def test_what_is_seen_reaches_the_upper_layers_and_the_output(model):
    def norm(layer, x):
        mean, variance = tf.nn.moments(x, [-1], keepdims=True)
        return (x - mean) / tf.sqrt(variance + 1e-5) * layer.gamma + layer.beta

    decoder = model.backbone.decoder
    memory = tf.random.stateless_normal([3, 4, 32], (1, 2))
    x = tf.random.stateless_normal([3, 5, 32], (3, 4))
    y, states = decoder(x, memory)
    below, first = decoder.lstms[0](x)
    below = norm(decoder.norms[0], below)
    seen = decoder.attention(below, memory=memory)
    above, second = decoder.lstms[1](tf.concat([below, seen], -1))
    above = norm(decoder.norms[1], below + above)
    expected = tf.tanh(tf.concat([above, seen], -1) @ decoder.combine.kernel)
    for found, wanted in zip(
        tf.nest.flatten((y, states)), tf.nest.flatten((expected, (first, second))), strict=True
    ):
        np.testing.assert_allclose(found, wanted, atol=1e-5)


def test_the_score_of_a_target_is_the_sum_over_one_full_pass(model):
    answers = model.score(SOURCES, TARGETS)
    inputs, wanted, weight = model.preprocessor(tf.constant(SOURCES), tf.constant(TARGETS))
    logprob = tf.gather(tf.nn.log_softmax(model(inputs)), wanted, batch_dims=2)
    expected = tf.reduce_sum(logprob * weight, -1)
    np.testing.assert_allclose([answer.logprob for answer in answers], expected, atol=1e-3)


def test_a_beam_search_of_one_beam_is_greedy(model):
    greedy = model.generate(SOURCES, max_new_tokens=8)
    text = model.text(beams=1)
    found = text.beam_search(tf.constant(SOURCES), tf.constant([8]), tf.constant([0.0]))
    assert [beam.decode() for [beam] in found["text"].numpy()] == [a.text for a in greedy]
    np.testing.assert_allclose(found["score"][:, 0], [a.logprob for a in greedy], atol=1e-4)


def test_a_row_does_not_depend_on_its_neighbours(model):
    together = model.generate([*SOURCES, "cat " * 15], max_new_tokens=12)
    for source, answer in zip(SOURCES, together, strict=False):
        alone = model.generate(source, max_new_tokens=12)
        assert alone.text == answer.text
        assert alone.logprob == pytest.approx(answer.logprob, abs=1e-4)


def test_an_export_writes_what_the_live_model_writes(model, tmp_path):
    functions = {
        name: function
        for name, function in build(model.text(beams=2)).items()
        if name in ("serving_default", "beam_search")
    }
    module = tf.Module()
    module.weights = [variable.value for variable in model.variables]
    tf.saved_model.save(module, str(tmp_path), signatures=functions)
    served = tf.saved_model.load(str(tmp_path)).signatures
    prompts = tf.constant(SOURCES)
    more = {"max_new_tokens": tf.constant([8]), "length_penalty": tf.constant([1.0])}
    for name, options in (("serving_default", {}), ("beam_search", more)):
        live = functions[name](prompts, *options.values())
        for key, values in served[name](prompt=prompts, **options).items():
            if values.dtype == tf.float32:
                np.testing.assert_allclose(values, live[key], atol=1e-4)
            else:
                assert values.numpy().tolist() == live[key].numpy().tolist()


def test_fit_on_strings_trains_every_weight(tokenizer):
    model = new_model(tokenizer, scale=0.2, source_vocabulary_size=400, tie_embeddings=False)
    before = [weight.numpy() for weight in model.trainable_weights]
    model.compile(keras.optimizers.Adam(1e-2))
    model.fit(dataset(), verbose=0)
    names = [weight.path for weight in model.trainable_weights]
    # Three tables, two LSTMs each way, their norms, four projections, and what combines.
    assert len(names) == 3 + 4 * 3 + 3 * 2 + 4 * 2 + 1
    for name, weight, old in zip(names, model.trainable_weights, before, strict=True):
        # Softmax does not see what is added to all keys alike.
        if not name.endswith("attention/key/bias"):
            assert np.abs(weight - old).max() > 1e-3, name


def test_two_replicas_in_two_parts_train_as_one_device_does(tokenizer):
    def losses(strategy, microbatches):
        with strategy.scope():
            model = new_model(tokenizer, num_decoder_layers=1, dropout=0.1, attention_dropout=0.1)
            model.compile(keras.optimizers.SGD(0.5), microbatches=microbatches)
        steps = model.fit(dataset().repeat(2), epochs=2, steps_per_epoch=1, verbose=0)
        return steps.history["loss"]

    one = losses(tf.distribute.get_strategy(), 1)
    two = losses(tf.distribute.MirroredStrategy(["/cpu:0", "/cpu:1"]), 2)
    np.testing.assert_allclose(two, one, atol=1e-5)


def test_mixed_precision_comes_close_and_steps(tokenizer, ids, stepped):
    full, mixed = (new_model(tokenizer, dtype=dtype) for dtype in ("float32", "mixed_bfloat16"))
    logits = full_pass(mixed, ids)
    assert logits.dtype == np.float32
    np.testing.assert_allclose(logits, full_pass(full, ids), atol=0.05)
    assert {weight.dtype for weight in mixed.weights} == {"float32"}
    reading = mixed.reading(ids["source"], ids["lengths"])
    found = stepped(reading, ids["target"][:, :1], [1] * 3, ids["target"][:, 1:2])
    np.testing.assert_allclose(found, logits[:, :2], atol=0.05)


def test_a_preset_of_it_computes_alike(tokenizer, ids, tmp_path):
    model = new_model(tokenizer, scale=0.1, source_vocabulary_size=400, dropout=0.1)
    model.save_to_preset(tmp_path / "preset")
    for load in (
        Seq2SeqLM.from_preset,
        tfllm.models.from_preset,
        keras_hub.models.Seq2SeqLM.from_preset,
    ):
        again = load(str(tmp_path / "preset"))
        assert type(again) is LSTMSeq2SeqLM
        assert again.backbone.get_config() == model.backbone.get_config()
        assert again.preprocessor.start_id == model.preprocessor.start_id
        np.testing.assert_array_equal(full_pass(again, ids), full_pass(model, ids))


def test_tables_are_shared_as_is_asked(tokenizer):
    def size(**settings):
        return new_model(tokenizer, **settings).backbone.count_params()

    table = (tokenizer.vocabulary_size() + 3) * 32
    assert size(tie_embeddings=False) - size() == table
    assert size(source_vocabulary_size=400) - size() == 400 * 32


@pytest.mark.parametrize(
    ("sizes", "words"),
    [
        ({"num_decoder_layers": 0}, "num_decoder_layers must be a whole number of at least 1"),
        ({"hidden_dim": 15}, "hidden_dim must be even, half of it for each .*, got 15"),
    ],
)
def test_a_size_that_no_model_has_is_refused(tokenizer, sizes, words):
    with pytest.raises(UserError, match=words):
        new_model(tokenizer, **sizes)
