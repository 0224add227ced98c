"""The loss of a vocabulary a part of the tokens at a time, in every task that has one."""

import keras
import numpy as np
import pytest

from tfllm.models import (
    GPTBackbone,
    GPTCausalLM,
    LSTMSeq2SeqBackbone,
    LSTMSeq2SeqLM,
    MarianBackbone,
    MarianSeq2SeqLM,
    MaskedLM,
    T5Backbone,
    T5Seq2SeqLM,
)

VOCABULARY, ROWS, LENGTH = 40, 4, 6
LAYERS = {"num_layers": 1, "hidden_dim": 16}
SIZES = {**LAYERS, "num_heads": 2, "intermediate_dim": 24, "max_sequence_length": LENGTH}
TASKS = {
    "gpt": lambda _: GPTCausalLM(GPTBackbone(VOCABULARY, **SIZES)),
    "t5": lambda _: T5Seq2SeqLM(T5Backbone(VOCABULARY, **SIZES)),
    "t5, not tied": lambda _: T5Seq2SeqLM(T5Backbone(VOCABULARY, tie_embeddings=False, **SIZES)),
    "marian": lambda _: MarianSeq2SeqLM(MarianBackbone(VOCABULARY, **SIZES)),
    "lstm": lambda _: LSTMSeq2SeqLM(LSTMSeq2SeqBackbone(VOCABULARY, **LAYERS)),
    "bert": lambda new: new(MaskedLM, backbone={"dropout": 0.0}),
}


def batch(kind):
    draw = np.random.default_rng(0)
    ids, y = draw.integers(1, VOCABULARY, (2, ROWS, LENGTH)).astype("int32")
    places = np.broadcast_to(np.arange(LENGTH, dtype="int32"), ids.shape)
    weight = draw.integers(0, 3, (ROWS, LENGTH)).astype("float32")
    ones = np.ones_like(ids)
    if kind == "gpt":
        x = {"token_ids": ids, "segment_ids": ones, "positions": places}
    elif kind == "bert":
        x = {"token_ids": ids, "padding_mask": ones, "segment_ids": ones, "mask_positions": places}
    else:
        x = {
            f"{stack}_{name}": values
            for stack in ("encoder", "decoder")
            for name, values in (("token_ids", ids), ("padding_mask", ones))
        }
    return x, y, weight


@pytest.mark.parametrize("kind", TASKS)
def test_steps_by_parts_of_the_tokens_are_those_by_all_logits(kind, new_encoder, monkeypatch):
    monkeypatch.setattr("tfllm.layers.vocabulary_loss._LOGITS_AT_ONCE", 3 * VOCABULARY)

    def trained(**settings):
        keras.utils.set_random_seed(0)
        model = TASKS[kind](new_encoder)
        if kind == "marian":  # training leaves it as it is, and a translator's is not 0
            model.backbone.logits_bias.bias.assign(np.linspace(-1, 1, VOCABULARY)[None])
        if kind == "bert":
            model.output_bias.bias.assign(np.linspace(-1, 1, model.backbone.vocabulary_size))
        optimizer = keras.optimizers.SGD(0.5)
        model.compile(optimizer, microbatches=2, label_smoothing=0.1, **settings)
        logs = [model.train_on_batch(*batch(kind), return_dict=True) for _ in range(2)]
        return logs, [variable.numpy() for variable in model.trainable_variables]

    # Metrics look at all logits.
    (parts, weights), (whole, expected) = trained(), trained(weighted_metrics=["accuracy"])
    for found, log in zip(parts, whole, strict=True):
        for name, value in found.items():
            np.testing.assert_allclose(value, log[name], rtol=1e-5)
    for found, weight in zip(weights, expected, strict=True):
        np.testing.assert_allclose(found, weight, atol=1e-5)
