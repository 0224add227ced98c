"""Parts that do not fit together are refused in words, or fit after all."""

import functools

import pytest
import tensorflow as tf

from tfllm.errors import UserError
from tfllm.models import (
    CausalLM,
    GPTBackbone,
    GPTCausalLM,
    GPTCausalLMPreprocessor,
    LSTMBackbone,
)


@pytest.fixture(scope="module")
def small(tokenizer):
    """Makes an untrained GPT with that many rows in its table of tokens."""

    def make(vocabulary_size):
        backbone = GPTBackbone(vocabulary_size, 1, 1, 8, max_sequence_length=32)
        return GPTCausalLM(backbone, GPTCausalLMPreprocessor(tokenizer, sequence_length=32))

    return make


def test_a_table_with_more_rows_than_there_are_tokens_fails_no_row(small, tokenizer):
    known = tokenizer.vocabulary_size()
    model = small(known + 70)
    # Whatever is read, the best next token is one that the tokenizer does not know.
    table = model.backbone.token_embedding.embeddings
    model.backbone.final_norm.gamma.assign(tf.zeros(8))
    model.backbone.final_norm.beta.assign(tf.ones(8))
    table.assign(tf.concat([tf.zeros([known, 8]), tf.ones([70, 8])], 0))
    answer = model.generate("a cat", max_new_tokens=3)
    assert (answer.text, answer.finish_reason, answer.num_tokens) == ("", "length", 3)


def test_a_tokenizer_with_more_tokens_than_the_model_is_refused(small, tokenizer):
    model = small(tokenizer.vocabulary_size() - 1)
    words = f"has {tokenizer.vocabulary_size()} tokens, more than the model"
    with pytest.raises(UserError, match=words):
        model.generate("a cat")
    with pytest.raises(UserError, match=words):
        model.fit(tf.data.Dataset.from_tensors(["a cat"]))


def test_rows_longer_than_the_backbone_takes_are_refused(tokenizer):
    backbone = GPTBackbone(tokenizer.vocabulary_size(), 1, 1, 8, max_sequence_length=32)
    with pytest.raises(UserError, match="rows of 256 tokens, the backbone takes 32"):
        GPTCausalLM(backbone, GPTCausalLMPreprocessor(tokenizer))


@pytest.mark.parametrize("size", ["vocabulary_size", "num_layers", "hidden_dim"])
@pytest.mark.parametrize("backbone", [functools.partial(GPTBackbone, num_heads=1), LSTMBackbone])
@pytest.mark.parametrize("value", [0, -1, 1.5, True])
def test_a_size_that_no_model_has_is_refused_by_name(backbone, size, value):
    sizes = {"vocabulary_size": 9, "num_layers": 1, "hidden_dim": 8} | {size: value}
    with pytest.raises(
        UserError, match=f"{size} must be a whole number of at least 1, got {value}"
    ):
        backbone(**sizes)


def test_no_heads_are_refused_by_name():
    with pytest.raises(UserError, match="num_heads must be a whole number of at least 1, got 0"):
        GPTBackbone(9, 1, 0, 8)


def test_a_model_that_was_never_compiled_has_metrics(small, tokenizer):
    model = small(tokenizer.vocabulary_size())
    bare = GPTCausalLM(model.backbone, model.preprocessor, compile=False)
    assert [metric.name for metric in bare.metrics] == ["loss"]


def test_a_preset_with_damaged_weights_is_refused(small, tokenizer, tmp_path):
    small(tokenizer.vocabulary_size()).save_to_preset(tmp_path / "preset")
    weights = tmp_path / "preset" / "model.weights.h5"
    weights.write_bytes(weights.read_bytes()[:1000])
    with pytest.raises(UserError, match="preset cannot be loaded"):
        CausalLM.from_preset(tmp_path / "preset")


def test_a_huge_prompt_is_refused_before_it_is_tokenized(gpt, tokenizer, monkeypatch):
    text, seen = gpt.text(), []

    def watched(_, texts):
        seen.append(texts)
        return tokenizer.tokenize_rows(texts)

    monkeypatch.setattr(type(tokenizer), "tokenize", watched)
    huge = tf.constant(["a cat " * 100_000, "a cat"])
    out = text.score(huge, tf.constant(["", " is"]))
    assert out["error"][0].numpy().startswith(b"the prompt with its completion is too long: above ")
    assert out["error"][0].numpy().endswith(b"the model takes 65")
    assert out["error"][1] == b""
    assert max(len(x) for texts in seen for x in texts.numpy()) < 10


def test_stops_of_another_width_fail_rather_than_reach_other_rows(gpt):
    text = gpt.text()
    settings = (tf.constant([x]) for x in (1, 0.0, 0, 1.0, 0.0, 1.0, 0.0, 0.0))
    with pytest.raises(tf.errors.InvalidArgumentError):
        text.generate(
            tf.constant(["a"] * 4), *settings, tf.constant([0], tf.int64), tf.constant([["b"]] * 4)
        )
