"""Encoder–decoder models: what they compute, what they write, how they are trained and kept."""

import keras
import numpy as np
import pytest
import tensorflow as tf

import tfllm.models
from tfllm.decoding import Rules, beam_search
from tfllm.errors import UserError
from tfllm.models import (
    MarianBackbone,
    MarianSeq2SeqLM,
    MarianSeq2SeqLMPreprocessor,
    Seq2SeqLM,
    T5Backbone,
    T5Seq2SeqLM,
    T5Seq2SeqLMPreprocessor,
)

PAIRS = {
    "one two three": "three two one",
    "the cat sat on the mat": "a dog",
    "a cat is not a dog": "你好，世界。",
    "你好，世界。今天天气很好": "hello, world",
    "red green blue": "blue green red and red green blue",
    "": "nothing",
    "smile 🙂": "🙂 wave 👋",
    "if x": "else y",
}
SOURCES, TARGETS = list(PAIRS), list(PAIRS.values())
CONTEXT = 48


def new_model(kind, tokenizer, *, seed=0, length=24, generation=None, **sizes):
    keras.utils.set_random_seed(seed)
    shared = {
        "vocabulary_size": tokenizer.vocabulary_size() + 3,
        "num_layers": 2,
        "num_heads": 2,
        "hidden_dim": 32,
        "intermediate_dim": 48,
        "num_decoder_layers": 1,
        "max_sequence_length": CONTEXT,
    } | sizes
    classes = {
        "t5": (T5Backbone, T5Seq2SeqLMPreprocessor, T5Seq2SeqLM),
        "marian": (MarianBackbone, MarianSeq2SeqLMPreprocessor, MarianSeq2SeqLM),
    }
    backbone, reads, task = classes[kind]
    preprocessor = reads(tokenizer, length, length, decoder_start_token_id=tokenizer.eos_id)
    return task(backbone(**shared), preprocessor, generation=generation)


def dataset():
    return tf.data.Dataset.from_tensor_slices((SOURCES, TARGETS)).batch(len(PAIRS))


def taught(model, rate):
    model.compile(keras.optimizers.Adam(rate))
    model.fit(dataset().repeat(160), verbose=0)
    return model


@pytest.fixture(scope="module")
def t5(tokenizer):
    sizes = {"key_value_dim": 12, "use_gated_activation": True, "activation": "gelu_tanh"}
    return taught(new_model("t5", tokenizer, tie_embeddings=False, **sizes), 5e-3)


@pytest.fixture(scope="module")
def marian(tokenizer):
    sizes = {"source_vocabulary_size": 400, "num_decoder_heads": 4, "decoder_intermediate_dim": 40}
    return taught(new_model("marian", tokenizer, **sizes), 1e-2)


@pytest.fixture(scope="module", params=["t5", "marian"])
def model(request):
    """Both of them, one after the other; tests share them and do not change them."""
    return request.getfixturevalue(request.param)


@pytest.fixture(scope="module")
def ids(tokenizer):
    """Sources and beginnings of targets of different lengths, padded with other tokens."""
    random = np.random.default_rng(0)
    lengths = np.array([7, 20, 1], "int32")
    return {
        "source": random.integers(0, tokenizer.vocabulary_size(), (3, 20)).astype("int32"),
        "target": random.integers(0, tokenizer.vocabulary_size(), (3, 12)).astype("int32"),
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


@pytest.mark.parametrize("begin", [1, 5])
def test_stepping_through_a_cache_equals_one_full_pass(model, ids, stepped, begin):
    reading, target = model.reading(ids["source"], ids["lengths"]), ids["target"]
    found = stepped(reading, target[:, :begin], [begin] * 3, target[:, begin:])
    np.testing.assert_allclose(found, full_pass(model, ids)[:, begin - 1 :], atol=2e-5)


def test_beginnings_of_different_lengths_step_as_one_full_pass(model, ids, stepped):
    reading, target = model.reading(ids["source"], ids["lengths"]), ids["target"]
    expected = full_pass(model, ids)
    begins = [5, 1, 3]
    more = np.stack([row[begin : begin + 7] for row, begin in zip(target, begins, strict=True)])
    found = stepped(reading, target[:, :6], begins, more)
    for row, begin in enumerate(begins):
        np.testing.assert_allclose(found[row], expected[row, begin - 1 : begin + 7], atol=2e-5)


def test_what_fills_a_source_is_not_read(model, ids):
    expected = full_pass(model, ids)
    changed = np.where(ids["present"], ids["source"], 5)
    np.testing.assert_array_equal(full_pass(model, ids | {"source": changed}), expected)
    shorter = {name: value[:1] for name, value in ids.items()}
    shorter |= {name: shorter[name][:, :7] for name in ("source", "present")}
    np.testing.assert_allclose(full_pass(model, shorter), expected[:1], atol=2e-5)


def test_texts_that_share_a_source_step_as_if_each_had_its_own(model, ids, stepped):
    source, lengths = ids["source"][:2], ids["lengths"][:2]
    begins = np.array([3, 1])
    prompt = np.full([2, 4], 4)  # what is behind the beginnings is not read
    prompt[0, :3] = ids["target"][0, :3]
    texts = np.concatenate([ids["target"], ids["target"][::-1]]).reshape(2, 3, 12)
    shared = stepped(model.reading(source, lengths), prompt, begins, texts)
    own = stepped(
        model.reading(np.repeat(source, 3, 0), np.repeat(lengths, 3)),
        np.repeat(prompt, 3, 0), np.repeat(begins, 3), texts.reshape(6, 12),
    )  # fmt: skip
    np.testing.assert_allclose(shared.reshape(own.shape), own, atol=2e-5)
    assert np.abs(shared[:, 0, 2:] - shared[:, 1, 2:]).max() > 0.1


def test_a_target_is_read_from_its_start_and_only_backwards(model, ids):
    expected = full_pass(model, ids)
    changed = ids["target"].copy()
    changed[:, 6] = 7
    found = full_pass(model, ids | {"target": changed})
    np.testing.assert_array_equal(found[:, :6], expected[:, :6])
    assert np.abs(found[:, 6:] - expected[:, 6:]).max() > 0.1


def test_it_writes_what_it_was_taught(model):
    answers = model.generate(SOURCES)
    assert [answer.text for answer in answers] == TARGETS
    assert {answer.finish_reason for answer in answers} == {"stop"}
    assert [beams.text[0] for beams in model.beam_search(SOURCES)] == TARGETS


def test_a_row_does_not_depend_on_its_neighbours(model):
    together = model.generate([*SOURCES, "x" * 10_000, "cat " * 15], max_new_tokens=20)
    for source, answer in zip(SOURCES, together, strict=False):
        alone = model.generate(source, max_new_tokens=20)
        assert alone.text == answer.text
        assert alone.logprob == pytest.approx(answer.logprob, abs=1e-4)


def test_a_source_that_is_too_long_is_refused_in_its_row(model):
    short, long = model.generate(["if x", "one " * 60])
    assert short.text == "else y"
    assert long.finish_reason.startswith("error: the prompt is too long: 1")
    assert long.finish_reason.endswith(f"tokens, the model takes {CONTEXT}")
    fits, too_long = model.score(["one", "one"], ["two", "two " * 60])
    assert fits.error == ""
    assert too_long.error.startswith("the prompt or the completion is too long: 1")


def test_there_is_room_for_as_many_tokens_as_there_are_positions(model):
    text = model.text()
    assert text.start(text.read(tf.constant(SOURCES))).room.numpy().tolist() == [CONTEXT] * 8


def test_the_score_of_what_was_written_is_its_log_probability(model):
    written = model.generate(SOURCES)
    scores = model.score(SOURCES, [answer.text for answer in written])
    for answer, score in zip(written, scores, strict=True):
        assert score.num_tokens == answer.num_tokens
        assert score.logprob == pytest.approx(answer.logprob, abs=1e-3)
        assert score.is_greedy
    other = model.score("if x", "blue")
    assert not other.is_greedy
    assert other.logprob < -5


def test_a_beam_search_of_one_beam_is_greedy(model, tokenizer):
    ids = model.preprocessor.source_ids(SOURCES)
    reading = model.reading(ids.to_tensor(), tf.cast(ids.row_lengths(), tf.int32))
    start = tf.fill([len(SOURCES), 1], tokenizer.eos_id)
    found = beam_search(
        reading, start, tf.ones([len(SOURCES)], tf.int32), limit=tf.fill([len(SOURCES)], 20),
        num_beams=1, length_penalty=tf.ones([len(SOURCES)]), early_stopping=False,
        rules=Rules((tokenizer.eos_id,)),
    )  # fmt: skip
    written = model.generate(SOURCES, max_new_tokens=20)
    assert found.num_tokens[:, 0].numpy().tolist() == [answer.num_tokens for answer in written]


@pytest.mark.parametrize("kind", ["t5", "marian"])
def test_the_loss_is_the_mean_over_the_tokens_of_the_targets(tokenizer, kind):
    model = new_model(kind, tokenizer)
    inputs, wanted, weight = model.preprocessor(tf.constant(SOURCES), tf.constant(TARGETS))
    logits = tf.nn.log_softmax(model(inputs)).numpy()
    losses = -np.take_along_axis(logits, wanted.numpy()[..., None], -1)[..., 0]
    expected = np.average(losses, weights=weight)
    model.compile(keras.optimizers.SGD(0.0), run_eagerly=True)
    assert model.fit(dataset(), verbose=0).history["loss"][0] == pytest.approx(expected, abs=1e-5)
    assert model.evaluate(dataset(), verbose=0) == pytest.approx(expected, abs=1e-5)


def test_two_replicas_train_as_one_device_does(tokenizer):
    def losses(strategy):
        with strategy.scope():
            model = new_model("t5", tokenizer, num_layers=1, dropout=0.1)
            model.compile(keras.optimizers.Adam(1e-2))
        steps = model.fit(dataset().repeat(2), epochs=2, steps_per_epoch=1, verbose=0)
        return steps.history["loss"]

    one = losses(tf.distribute.OneDeviceStrategy("/cpu:0"))
    two = losses(tf.distribute.MirroredStrategy(["/cpu:0", "/cpu:1"]))
    np.testing.assert_allclose(two, one, atol=2e-5)


@pytest.mark.parametrize("kind", ["t5", "marian"])
def test_in_mixed_precision_the_logits_come_close(tokenizer, ids, stepped, kind):
    full = new_model(kind, tokenizer)
    mixed = new_model(kind, tokenizer, dtype="mixed_bfloat16")
    logits = full_pass(mixed, ids)
    assert logits.dtype == np.float32
    np.testing.assert_allclose(logits, full_pass(full, ids), atol=0.1)
    assert {weight.dtype for weight in mixed.weights} == {"float32"}
    target = ids["target"]
    found = stepped(
        mixed.reading(ids["source"], ids["lengths"]), target[:, :1], [1] * 3, target[:, 1:]
    )
    np.testing.assert_allclose(found, full_pass(full, ids), atol=0.1)


def test_lora_trains_queries_and_values_of_all_attention(tokenizer, ids):
    model = new_model("marian", tokenizer)
    before = full_pass(model, ids)
    model.backbone.enable_lora(2)
    factors = [weight.path for weight in model.trainable_weights if "lora" in weight.path]
    # Two blocks of one attention, one of two; queries and values; two factors each.
    assert len(factors) == (2 + 2) * 2 * 2
    np.testing.assert_allclose(full_pass(model, ids), before, atol=1e-6)
    model.compile(keras.optimizers.Adam(0.1), run_eagerly=True)
    model.fit(dataset().repeat(2), verbose=0)
    assert np.abs(full_pass(model, ids) - before).max() > 0.01


def test_a_preset_of_it_computes_alike(model, ids, tmp_path):
    model.save_to_preset(tmp_path / "preset")
    for again in (
        Seq2SeqLM.from_preset(tmp_path / "preset"),
        tfllm.models.from_preset(tmp_path / "preset"),
    ):
        assert type(again) is type(model)
        assert again.backbone.get_config() == model.backbone.get_config()
        assert again.preprocessor.start_id == model.preprocessor.start_id
        np.testing.assert_array_equal(full_pass(again, ids), full_pass(model, ids))
        assert again.tokenize(SOURCES) == model.tokenize(SOURCES)


def test_settings_for_writing_are_kept_and_used(tokenizer, tmp_path):
    settings = {"max_new_tokens": 3, "num_beams": 2, "suppressed_token_ids": [5, 6]}
    new_model("t5", tokenizer, generation=settings).save_to_preset(tmp_path / "preset")
    again = Seq2SeqLM.from_preset(tmp_path / "preset")
    assert again.generation.suppressed_token_ids == (5, 6)
    text = again.text()
    assert (text.beams, text.rules.suppressed_token_ids) == (2, (5, 6))
    [limit] = [f.default for f in text.signatures["generate"].inputs if f.name == "max_new_tokens"]
    assert limit == 3


def test_rows_that_are_longer_than_the_model_takes_are_refused(tokenizer):
    with pytest.raises(UserError, match="makes rows of 49 tokens, the backbone takes 48"):
        new_model("t5", tokenizer, length=49)


@pytest.mark.parametrize(
    ("sizes", "words"),
    [
        ({"vocabulary_size": 100}, r"\d+ source tokens, more than the model's 100"),
        ({"vocabulary_size": 100, "source_vocabulary_size": 500}, r"target tokens, .* model's 100"),
    ],
)
def test_a_tokenizer_that_is_too_large_is_refused(tokenizer, sizes, words):
    model = new_model("marian", tokenizer, **sizes)
    with pytest.raises(UserError, match=words):
        model.generate("one")
    model.compile()
    with pytest.raises(UserError, match=words):
        model.fit(dataset(), verbose=0)


@pytest.mark.parametrize("kind", ["t5", "marian"])
def test_a_size_below_one_is_refused_by_name(tokenizer, kind):
    with pytest.raises(UserError, match="num_decoder_layers must be a whole number of at least 1"):
        new_model(kind, tokenizer, num_decoder_layers=0)
