"""Where the heads of a Transformer look."""

import json

import numpy as np
import pytest
import tensorflow as tf
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

import tfllm
from tfllm.errors import UserError
from tfllm.reports import attention, attention_weights
from tfllm.reports.attention import looks

TEXT = "the cat sat on the mat"


def mixed(attention, x, weights):
    """What a layer gives when its heads look as the weights float[h, t, t] say."""
    values = attention.value(x)[0]  # [t, h * d]
    heads = tf.reshape(values, [values.shape[0], attention.num_heads, -1])
    y = tf.einsum("hts,shd->thd", weights, heads)
    return attention.output_projection(tf.reshape(y, [1, *values.shape]))


def test_the_weights_of_a_language_model_give_its_hidden_states(gpt):
    tokens, weights = attention_weights(gpt, TEXT)
    ids = [gpt.preprocessor.tokenizer.bos_id, *gpt.tokenize(TEXT)]
    assert weights.shape == (2, 2, len(ids), len(ids))
    assert len(tokens) == len(ids)
    np.testing.assert_allclose(weights.sum(-1), 1, atol=1e-5)
    assert not np.triu(weights, 1).any()  # nobody looks ahead
    backbone = gpt.backbone
    x = backbone.token_embedding(tf.constant([ids]))
    x += backbone.position_embedding(tf.range(len(ids))[None])
    for block, of_block in zip(backbone.blocks, weights, strict=True):
        x += mixed(block.attention, block.attention_norm(x), of_block)
        x += block.feed_forward(block.feed_forward_norm(x))
    expected = gpt.hidden_states(tf.constant([ids]))
    np.testing.assert_allclose(backbone.final_norm(x), expected, atol=1e-4)


def test_the_weights_of_an_encoder_give_its_hidden_states(masked_lm):
    tokens, weights = attention_weights(masked_lm, "she is a nurse .")
    assert tokens == ["[CLS]", "she", "is", "a", "nurse", ".", "[SEP]"]
    np.testing.assert_allclose(weights.sum(-1), 1, atol=1e-5)
    backbone = masked_lm.backbone
    ids = [[masked_lm.preprocessor.tokenizer.token_to_id(token) for token in tokens]]
    x = backbone.token_embedding(tf.constant(ids)) + backbone.segment_embedding(tf.zeros_like(ids))
    x = backbone.embedding_norm(x + backbone.position_embedding(tf.range(7)[None]))
    for block, of_block in zip(backbone.blocks, weights, strict=True):
        x = block.attention_norm(x + mixed(block.attention, x, of_block))
        x = block.feed_forward_norm(x + block.feed_forward(x))
    inputs = {
        "token_ids": tf.constant(ids),
        "segment_ids": tf.zeros_like(ids),
        "padding_mask": tf.ones_like(ids),
    }
    expected = backbone(inputs)["sequence_output"]
    np.testing.assert_allclose(x, expected, atol=1e-4)


def test_the_weights_of_an_encoder_decoder_are_those_of_its_encoder(request):
    fixtures = request.config.rootpath / "tests" / "huggingface" / "fixtures"
    model = tfllm.from_huggingface(fixtures / "t5-relu")  # whose scores have a bias
    tokens, weights = attention_weights(model, "the cat")
    backbone = model.backbone
    ids = model.preprocessor.source_ids(tf.constant(["the cat"])).to_tensor()
    assert len(tokens) == ids.shape[1]
    assert weights.shape[0] == len(backbone.encoder_blocks)
    np.testing.assert_allclose(weights.sum(-1), 1, atol=1e-5)
    x = backbone.embed_source(ids, backbone.positions(ids))
    block = backbone.encoder_blocks[0]
    read = block.attention_norm(x) if block.norm_first else x
    expected = block.attention(read, bias=backbone.encoder_bias(backbone.positions(ids)))
    np.testing.assert_allclose(mixed(block.attention, read, weights[0]), expected, atol=1e-4)


def test_a_model_of_one_layer_has_the_weights_of_one(new_model):
    assert attention_weights(new_model("gpt", num_layers=1), TEXT).weights.shape[:2] == (1, 2)


def test_the_numbers_of_a_head_are_those_of_its_weights():
    found = looks(np.array([[1.0, 0.0, 0.0], [0.5, 0.5, 0.0], [0.25, 0.25, 0.5]]))
    assert found == pytest.approx(
        {
            "entropy_bits": (0 + 1 + 1.5) / 3,
            "to_first": 1.75 / 3,
            "to_itself": 2 / 3,
            "to_before": 0.75 / 2,
            "to_behind": 0,
        }
    )
    assert looks(np.ones([1, 1]))["to_behind"] == 0


def test_the_command_writes_weights_and_pictures(gpt, run, tmp_path):
    gpt.save_to_preset(str(tmp_path / "preset"))
    code, found, err = run(
        "report", "attention", tmp_path / "preset", "--text", TEXT, "--out", tmp_path / "out",
        "--tensorboard", tmp_path / "logs", "--step", 7,
    )  # fmt: skip
    assert code == 0
    assert len(found["heads"]) == 4
    assert found["does_not_show"][0] in err
    with np.load(tmp_path / "out" / "attention.npz") as stored:
        np.testing.assert_allclose(stored["weights"], attention_weights(gpt, TEXT)[1], atol=1e-5)
        assert stored["tokens"].tolist() == found["tokens"]
    assert json.loads((tmp_path / "out" / "report.json").read_text())["text"] == TEXT
    events = EventAccumulator(str(tmp_path / "logs")).Reload()
    tags = sorted(events.Tags()["tensors"])
    assert tags == ["attention/layer_0", "attention/layer_1"]
    assert events.Tensors(tags[0])[0].step == 7


def test_models_without_attention_and_long_texts_are_refused(new_model, gpt, masked_lm):
    for model, text, words in [
        (new_model("lstm"), "a", "LSTMBackbone has no self-attention"),
        (None, "a", "NoneType has no self-attention"),
        (gpt, "cat " * 99, "tokens, the model takes 64"),
        (masked_lm, "x" * 99_999, "The model refused the text"),
    ]:
        with pytest.raises(UserError, match=words):
            attention(model, text)
