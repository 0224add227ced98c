"""KerasHub's language models with our loop: their own logits and texts, row by row."""

import re
import sys

import keras
import numpy as np
import pytest
import tensorflow as tf
from tiny_kerashub import (
    GROUPED,
    SIZES,
    TEXTS,
    WINDOW,
    byte_pairs,
    gemma,
    gemma3,
    gpt2,
    gpt_neox,
    hub,
    llama,
    phi3,
    qwen,
    with_clear_preferences,
)

from tfllm.chat import chatml
from tfllm.errors import UserError
from tfllm.huggingface.kerashub import KerasHubCausalLM, from_keras_hub, load_keras_hub
from tfllm.huggingface.kerashub_converted import corrected
from tfllm.tokenizers import train_sentencepiece


@pytest.fixture(scope="module")
def some_tokenizer():
    return train_sentencepiece(TEXTS * 3, vocabulary_size=290)


@pytest.fixture(scope="module")
def gpt2_with_text():
    tokenizer = byte_pairs(hub.GPT2Tokenizer, "<|endoftext|>")
    model = with_clear_preferences(
        gpt2(num_layers=1, vocabulary_size=tokenizer.vocabulary_size(), max_sequence_length=24)
    )
    model.preprocessor = hub.GPT2CausalLMPreprocessor(tokenizer, sequence_length=24)
    return model


FAMILIES = [gemma, gpt2, gpt_neox]


def full_pass(model, token_ids):
    return model({"token_ids": token_ids, "padding_mask": np.ones_like(token_ids)}).numpy()


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("lengths", [[3, 9, 6], [7, 7, 7]], ids=["ragged", "even"])
def test_steps_give_the_logits_of_the_model_itself(family, lengths, some_tokenizer, stepped):
    model = with_clear_preferences(family())
    ours = KerasHubCausalLM(model, some_tokenizer, 40)
    token_ids = np.random.default_rng(0).integers(1, 300, [3, 12]).astype("int32")
    expected = full_pass(model, token_ids)
    lengths = np.array(lengths, "int32")
    prompt = np.where(np.arange(9) < lengths[:, None], token_ids[:, :9], 0)
    more = np.stack([row[n : n + 2] for row, n in zip(token_ids, lengths, strict=True)])
    found = stepped(ours, prompt, lengths, more)
    for row, n in enumerate(lengths):
        np.testing.assert_allclose(found[row], expected[row, n - 1 : n + 2], atol=2e-5)


@pytest.mark.parametrize("family", FAMILIES)
def test_texts_that_go_on_from_one_prompt_have_the_logits_of_each(family, some_tokenizer, stepped):
    model = with_clear_preferences(family())
    random = np.random.default_rng(0)
    lengths, prompt = [5, 2], random.integers(1, 300, [2, 6]).astype("int32")
    texts = random.integers(1, 300, [2, 3, 4]).astype("int32")
    found = stepped(KerasHubCausalLM(model, some_tokenizer, 40), prompt, lengths, texts)
    for row, n in enumerate(lengths):
        for text, logits in zip(texts[row], found[row], strict=True):
            whole = np.concatenate([prompt[row, :n], text])[None]
            expected = full_pass(model, whole)[0, n - 1 :]
            np.testing.assert_allclose(logits, expected, atol=2e-5)


@pytest.fixture(scope="module")
def decoded(gpt2_with_text):
    return from_keras_hub(gpt2_with_text)


def test_each_row_of_a_batch_says_what_keras_hub_says_of_it_alone(gpt2_with_text, decoded):
    model, ours = gpt2_with_text, decoded
    prompts = ["the cat sat", "on", "why not? é"]
    answers = ours.generate(prompts, max_new_tokens=7)
    model.compile(sampler="greedy")
    for prompt, answer in zip(prompts, answers, strict=True):
        length = 1 + len(ours.tokenize(prompt)) + 7  # KerasHub counts the begin token too
        expected = model.generate([prompt], max_length=length, strip_prompt=True)[0]
        # Of bytes that are no text KerasHub makes another number of replacement characters.
        assert re.sub("�+", "�", answer.text) == re.sub("�+", "�", expected)
        assert ours.generate(prompt, max_new_tokens=7).text == answer.text


def test_the_graph_needs_neither_xla_nor_python(decoded):
    graph = decoded.text_functions()["generate"].get_concrete_function().graph.as_graph_def()
    ops = {node.op for node in graph.node}
    ops |= {node.op for function in graph.library.function for node in function.node_def}
    assert "InplaceUpdate" in ops  # of the steps, so all of them were looked at
    assert not [op for op in ops if "Xla" in op or "PyFunc" in op]


def test_tracing_leaves_keras_as_it_was(some_tokenizer, stepped):
    kept = keras.ops.slice_update, tf.nn.softmax
    ours = KerasHubCausalLM(gpt2(), some_tokenizer, 40)
    stepped(ours, [[1, 2]], [2], [[3]])
    assert (keras.ops.slice_update, tf.nn.softmax) == kept


def test_a_saved_model_loads_again_with_its_settings(gpt2_with_text, tmp_path):
    ours = from_keras_hub(gpt2_with_text, 20, generation={"temperature": 0.5, "end_token_ids": [7]})
    ours.preprocessor.tokenizer.chat_template = chatml()
    ours.save_to_preset(tmp_path / "preset")
    again = KerasHubCausalLM.from_preset(tmp_path / "preset")
    assert again.chat_template() == ours.chat_template()
    assert again.generation == ours.generation
    assert again.generation.end_token_ids == (7, 263)
    assert again.backbone.max_sequence_length == 20
    token_ids = tf.constant([[5, 6, 7]])
    np.testing.assert_array_equal(again.hidden_states(token_ids), ours.hidden_states(token_ids))
    theirs = hub.CausalLM.from_preset(str(tmp_path / "preset"))
    assert isinstance(theirs, hub.GPT2CausalLM)


def test_the_context_is_that_of_the_backbone_or_else_of_the_preprocessor(gpt2_with_text):
    assert from_keras_hub(gpt2_with_text).backbone.max_sequence_length == 24
    reads = hub.QwenCausalLMPreprocessor(
        byte_pairs(hub.QwenTokenizer, "<|endoftext|>"), sequence_length=32
    )
    model = hub.QwenCausalLM(qwen().backbone, reads)
    assert from_keras_hub(model).backbone.max_sequence_length == 32
    assert from_keras_hub(model, 500).backbone.max_sequence_length == 500


@pytest.mark.parametrize(("family", "most"), [(gpt2, 48), (phi3, 40)])
def test_a_context_that_the_positions_are_not_made_for_is_refused(family, most, some_tokenizer):
    words = f"context_length is {most + 1}, this model reads {most} at most"
    with pytest.raises(UserError, match=words):
        KerasHubCausalLM(family(), some_tokenizer, most + 1)


class Other(hub.CausalLM):
    """A cache that nothing is known of."""

    def __init__(self):
        inputs = keras.Input([None])
        super().__init__(inputs=inputs, outputs=inputs)

    def call_with_cache(self, token_ids, cache, cache_update_index):
        raise NotImplementedError


def seq2seq():
    sizes = SIZES | {"num_layers": 1}
    return hub.BartSeq2SeqLM(hub.BartBackbone(**sizes, num_heads=4))


def reads_images():
    encoder = hub.Gemma3VisionEncoder(
        image_size=8, patch_size=4, pool_size=2, num_layers=1, num_heads=2, hidden_dim=8,
        intermediate_dim=8, output_dim=32,
    )  # fmt: skip
    return gemma3(vision_encoder=encoder)


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (gpt2, "no preprocessor, so it cannot read or write text"),
        (keras.Sequential, "A Sequential cannot be decoded here: it has no `call_with_cache`"),
        (Other, "it keeps a cache of a kind that is not known here. Known are BloomCausalLM"),
        (seq2seq, "it is a sequence-to-sequence model"),
        (reads_images, "it reads images; without its vision encoder it can be"),
        (lambda: gemma3(use_bidirectional_attention=True), "a model of embeddings"),
        (lambda: qwen(**WINDOW), "which KerasHub decodes only outside of a graph"),
    ],
)
def test_what_cannot_be_decoded_is_refused_with_the_reason(make, words):
    with pytest.raises(UserError, match=re.escape(words)):
        from_keras_hub(make())


def test_what_reads_each_text_anew_has_no_sessions(some_tokenizer):
    with pytest.raises(UserError, match="KerasHubCausalLM cannot be exported with sessions"):
        KerasHubCausalLM(gpt_neox(), some_tokenizer, 40).text(sessions=2)


@pytest.mark.parametrize("folder", ["hf://google/gemma", "kaggle://keras/gemma", "gemma_2b_en"])
def test_nothing_is_downloaded(folder):
    with pytest.raises(UserError, match="read from this disk, never downloaded"):
        load_keras_hub(folder)


def test_a_folder_that_keras_hub_cannot_read_is_refused(tmp_path, monkeypatch):
    (tmp_path / "config.json").write_text('{"registered_name": "keras_hub>NoBackbone"}')
    with pytest.raises(UserError, match="KerasHub cannot read"):
        load_keras_hub(tmp_path)
    (tmp_path / "config.json").write_text('{"model_type": "llama"}')
    monkeypatch.setitem(sys.modules, "safetensors", None)
    with pytest.raises(UserError, match="package safetensors, which is not installed"):
        load_keras_hub(tmp_path)


LLAMA = {"model_type": "llama", "rms_norm_eps": 1e-6}


def test_the_settings_that_keras_hub_forgets_are_put_right():
    model = with_clear_preferences(llama())
    assert corrected(model, LLAMA) is model
    rope = {
        "rope_type": "llama3", "rope_theta": 10000.0, "factor": 8.0, "low_freq_factor": 1.0,
        "high_freq_factor": 4.0, "original_max_position_embeddings": 16,
    }  # fmt: skip
    again = corrected(model, LLAMA | {"rms_norm_eps": 1e-5, "rope_parameters": rope})
    expected = hub.Llama3Backbone(
        **GROUPED, layer_norm_epsilon=1e-5, rope_frequency_adjustment_factor=8.0,
        rope_low_freq_factor=1.0, rope_high_freq_factor=4.0, rope_pretraining_sequence_length=16,
    )  # fmt: skip
    expected.set_weights(model.backbone.get_weights())
    token_ids = np.arange(1, 25)[None]
    inputs = {"token_ids": token_ids, "padding_mask": np.ones_like(token_ids)}
    np.testing.assert_array_equal(again.backbone(inputs), expected(inputs))
    assert np.abs(again.backbone(inputs) - model.backbone(inputs)).max() > 1e-3


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"rope_parameters": {"rope_type": "yarn"}}, "scaled (yarn in config.json)"),
        ({"rope_scaling": {"type": "linear"}}, "does not know for the model type llama"),
        (
            {"model_type": "qwen2", "rope_parameters": {"full": {"rope_type": "llama3"}}},
            "does not know for the model type qwen2",
        ),
        ({"attention_bias": True}, "attention_bias is set in config.json"),
        ({"mlp_bias": True}, "mlp_bias is set in config.json"),
    ],
)
def test_settings_that_keras_hub_does_not_have_are_refused(settings, words):
    with pytest.raises(UserError, match=re.escape(words)):
        corrected(llama(), LLAMA | settings)
