"""Frozen blocks and embeddings: which they are, that they stay, and under a strategy."""

import numpy as np
import pytest
import tensorflow as tf

from tfllm.errors import UserError
from tfllm.models import (
    GPTBackbone,
    GPTCausalLM,
    LSTMBackbone,
    LSTMCausalLM,
    LSTMEncoderBackbone,
    LSTMSeq2SeqBackbone,
    LSTMSeq2SeqLM,
    MarianBackbone,
    MarianSeq2SeqLM,
    SkipGram,
    SkipGramBackbone,
    SpanQA,
    T5Backbone,
    T5Seq2SeqLM,
    TextClassifier,
    enable_lora,
    freeze,
)

SIZES = {"vocabulary_size": 30, "num_layers": 2, "hidden_dim": 8}
HEADS = {**SIZES, "num_heads": 2, "intermediate_dim": 12}


def trained(model):
    """The first part of the path of what trains."""
    return {variable.path.split("/")[0] for variable in model.trainable_variables}


@pytest.mark.parametrize(
    ("make", "rest"),
    [
        (lambda: GPTCausalLM(GPTBackbone(**HEADS)), {"block_1", "final_norm"}),
        (
            lambda: T5Seq2SeqLM(T5Backbone(**HEADS, num_decoder_layers=3)),
            {"encoder_block_1", "encoder_norm", "decoder_block_1", "decoder_block_2",
             "decoder_norm"},
        ),
        (
            lambda: MarianSeq2SeqLM(MarianBackbone(**HEADS)),
            {"encoder_block_1", "decoder_block_1"},
        ),
    ],
    ids=["gpt", "t5", "marian"],
)  # fmt: skip
def test_the_embeddings_and_the_first_blocks_are_frozen(make, rest):
    model = make()
    freeze(model, layers=1, embeddings=True)
    assert trained(model) == rest


@pytest.mark.parametrize(
    ("make", "frozen"),
    [
        (lambda: LSTMCausalLM(LSTMBackbone(**SIZES)), {"lstm/lstm_0"}),
        (
            lambda: TextClassifier(LSTMEncoderBackbone(**SIZES), num_classes=2),
            {"lstm/forward_0", "lstm/backward_0", "lstm/norm_0"},
        ),
        (
            lambda: LSTMSeq2SeqLM(LSTMSeq2SeqBackbone(**SIZES)),
            {
                "encoder/forward_0",
                "encoder/backward_0",
                "encoder/norm_0",
                "decoder/lstm_0",
                "decoder/norm_0",
                "decoder/attention",
            },
        ),
    ],
    ids=["causal", "encoder", "seq2seq"],
)
def test_the_layers_of_an_lstm_are_its_blocks(make, frozen):
    model = make()
    before = {variable.path for variable in model.trainable_variables}
    freeze(model, layers=1)
    left = {variable.path for variable in model.trainable_variables}
    assert {"/".join(path.split("/")[:2]) for path in before - left} == frozen


def test_an_untied_output_table_is_not_among_the_embeddings():
    model = GPTCausalLM(GPTBackbone(**HEADS, tie_embeddings=False))
    freeze(model, embeddings=True)
    tables = {v.path for v in model.trainable_variables if "embedding" in v.path}
    assert tables == {"token_embedding/output_embeddings"}


def test_frozen_weights_stay_and_two_replicas_equal_one_device(train_on_one_and_on_two):
    texts = np.array(["the cat sat", "one two", "good film", "who is 你"])
    dataset = tf.data.Dataset.from_tensors((texts, np.array([0, 1, 1, 0]))).repeat(3)
    made = []

    def frozen_classifier(*args, **settings):
        model = TextClassifier(*args, **settings)
        freeze(model, layers=1, embeddings=True)
        made.append((model, [variable.numpy() for variable in model.variables]))
        return model

    losses, weights = train_on_one_and_on_two(
        frozen_classifier, dataset, 0.5, num_classes=2, backbone={"num_layers": 2}
    )
    np.testing.assert_allclose(*losses, rtol=1e-5)
    for one, other in zip(*weights, strict=True):
        np.testing.assert_allclose(one, other, atol=1e-5)
    for model, before in made:
        assert trained(model) == {"block_1", "pooler", "head"}
        for variable, value in zip(model.variables, before, strict=True):
            if variable.path.startswith(
                ("block_0", "token_", "position_", "segment_", "embedding_")
            ):
                np.testing.assert_array_equal(variable, value)
            elif variable.trainable and not variable.path.endswith("key/bias"):
                # Softmax does not see what is added to all keys: that gradient is 0.
                assert np.abs(variable - value).max() > 0, variable.path


def test_lora_of_a_frozen_block_does_not_train(new_encoder):
    model = new_encoder(SpanQA, backbone={"num_layers": 2})
    enable_lora(model, 2)
    freeze(model, layers=1)
    assert trained(model) == {"block_1", "head"}


@pytest.mark.parametrize("layers", [-1, 3])
def test_more_blocks_than_the_shorter_stack_has_are_refused(layers):
    model = T5Seq2SeqLM(T5Backbone(**HEADS, num_decoder_layers=3))
    with pytest.raises(UserError, match=f"must be 0 to 2, .* T5Seq2SeqLM has: got {layers}"):
        freeze(model, layers)


def test_a_skip_gram_has_no_blocks():
    model = SkipGram(SkipGramBackbone(vocabulary_size=9, hidden_dim=4))
    with pytest.raises(UserError, match="must be 0 to 0"):
        freeze(model, 1)
    freeze(model, embeddings=True)
    assert model.trainable_variables == []
