"""KerasHub's models against `transformers`, through KerasHub's converters; and every family."""

import json
import sys
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")
tokenizers = pytest.importorskip("tokenizers")
pytest.importorskip("safetensors")
sys.path.insert(0, str(Path(__file__).parents[1] / "huggingface"))
from tiny_kerashub import (  # noqa: E402
    FAMILIES,
    TEXTS,
    byte_pairs,
    gemma,
    gpt2,
    hub,
    opt,
    qwen3,
    sentence_piece,
    with_clear_preferences,
)

from tfllm.errors import UserError  # noqa: E402
from tfllm.export import for_serving, inspect_export  # noqa: E402
from tfllm.huggingface.kerashub import (  # noqa: E402
    KerasHubCausalLM,
    from_keras_hub,
    load_keras_hub,
)
from tfllm.tokenizers import train_sentencepiece  # noqa: E402

SIZES = {
    "vocab_size": 300, "hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2,
    "num_attention_heads": 4, "num_key_value_heads": 2, "max_position_embeddings": 128,
    "bos_token_id": 1, "eos_token_id": 2, "pad_token_id": 0, "initializer_range": 0.3,
}  # fmt: skip
GEMMA = {"head_dim": 8, "query_pre_attn_scalar": 8, "sliding_window": 5}
LLAMA3 = {
    "rope_type": "llama3", "rope_theta": 10000.0, "factor": 8.0, "low_freq_factor": 1.0,
    "high_freq_factor": 4.0, "original_max_position_embeddings": 16,
}  # fmt: skip
LINEAR = {"rope_type": "linear", "rope_theta": 10000.0, "factor": 8.0}
PLAIN = {"rope_type": "default", "rope_theta": 10000.0}
TWO_KINDS = {"full_attention": LINEAR, "sliding_attention": PLAIN}
CONFIGS = {
    "gemma": transformers.GemmaConfig(**SIZES, head_dim=8),
    "gemma2": transformers.Gemma2Config(**SIZES, **GEMMA),
    "gemma3": transformers.Gemma3TextConfig(**SIZES, **GEMMA, rope_parameters=TWO_KINDS),
    "llama": transformers.LlamaConfig(**SIZES, rms_norm_eps=1e-5),
    "llama3": transformers.LlamaConfig(**SIZES, rms_norm_eps=1e-5, rope_parameters=LLAMA3),
    "mistral": transformers.MistralConfig(**SIZES, sliding_window=5),
    "mixtral": transformers.MixtralConfig(**SIZES, num_local_experts=4, num_experts_per_tok=2),
    "qwen2": transformers.Qwen2Config(**SIZES),
    "qwen3": transformers.Qwen3Config(**SIZES, head_dim=8),
    "smollm3": transformers.SmolLM3Config(**SIZES),
}
# KerasHub rounds a Mistral's weights to float16, and norms the queries and keys of a Qwen 3 with an
# epsilon of 1e-5 whatever its configuration says.
TOLERANCE = {"mistral": 2e-2, "qwen3": 2e-3}
BYTE_PAIRS = {
    "llama": ["<|begin_of_text|>", "<|end_of_text|>", "<|eot_id|>"],
    "llama3": ["<|begin_of_text|>", "<|end_of_text|>", "<|eot_id|>"],
    "qwen2": ["<|endoftext|>", "<|im_start|>", "<|im_end|>"],
    "qwen3": ["<|endoftext|>", "<|im_start|>", "<|im_end|>"],
    "smollm3": ["<|begin_of_text|>", "<|end_of_text|>", "<think>", "</think>"],
}


@pytest.fixture(scope="module", autouse=True)
def _inference():
    torch.set_num_threads(1)
    with torch.inference_mode():
        yield


@pytest.fixture(scope="module", params=CONFIGS)
def checkpoint(request, tmp_path_factory):
    """A random model of `transformers`, and its folder."""
    folder = tmp_path_factory.mktemp(request.param)
    torch.manual_seed(0)
    model = transformers.AutoModelForCausalLM.from_config(CONFIGS[request.param]).eval()
    model.save_pretrained(folder)
    if request.param in BYTE_PAIRS:
        write_byte_pairs(folder, BYTE_PAIRS[request.param])
    else:
        gemma_names = request.param.startswith("gemma")
        names = {} if gemma_names else {"bos": "<s>", "eos": "</s>"}
        (folder / "tokenizer.model").write_bytes(sentence_piece(**names))
    return model, folder


def write_byte_pairs(folder, special):
    level = tokenizers.pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer = tokenizers.Tokenizer(tokenizers.models.BPE())
    tokenizer.pre_tokenizer = level
    trainer = tokenizers.trainers.BpeTrainer(
        vocab_size=300 - len(special), initial_alphabet=level.alphabet()
    )
    tokenizer.train_from_iterator(TEXTS, trainer)
    tokenizer.add_special_tokens(special)
    tokenizer.save(str(folder / "tokenizer.json"))
    config = {"bos_token": special[0], "eos_token": special[1]}
    (folder / "tokenizer_config.json").write_text(json.dumps(config))


def test_a_converted_checkpoint_has_the_logits_of_transformers(checkpoint):
    theirs, folder = checkpoint
    ours = load_keras_hub(folder)
    token_ids = np.random.default_rng(0).integers(3, 290, [2, 24]).astype("int32")
    logits = ours.logits(ours.hidden_states(tf.constant(token_ids)))
    expected = theirs(torch.tensor(token_ids.astype("int64"))).logits.numpy()
    tolerance = TOLERANCE.get(theirs.config.model_type, 2e-4)
    np.testing.assert_allclose(logits, expected, atol=tolerance)
    assert ours.backbone.max_sequence_length == 128


@pytest.mark.parametrize("checkpoint", ["gemma2", "llama3", "qwen2"], indirect=True)
def test_a_converted_checkpoint_writes_the_text_of_transformers(checkpoint):
    theirs, folder = checkpoint
    ours = load_keras_hub(folder)
    prompts = ["the cat sat", "on", "one two three four five six seven eight nine ten 12345", "é你"]
    answers = ours.generate(prompts, max_new_tokens=10)
    begin = [ours.preprocessor.tokenizer.bos_id] * ours.preprocessor.tokenizer.begins_with_bos
    for prompt, answer in zip(prompts, answers, strict=True):
        ids = torch.tensor([begin + ours.tokenize(prompt)])
        ends = list(ours.generation.end_token_ids)
        text = theirs.generate(
            ids, attention_mask=torch.ones_like(ids), max_new_tokens=10, do_sample=False,
            eos_token_id=ends,
        )  # fmt: skip
        assert ours.detokenize(text[0, ids.shape[1] :].tolist()) == answer.text


def test_a_type_that_keras_hub_has_no_converter_for_is_refused(tmp_path):
    config = transformers.Phi3Config(**SIZES)
    transformers.AutoModelForCausalLM.from_config(config).save_pretrained(tmp_path)
    with pytest.raises(UserError, match="KerasHub has no converter"):
        load_keras_hub(tmp_path)


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("lengths", [[3, 9, 6], [7, 7, 7], [5]], ids=["ragged", "even", "one"])
def test_every_family_decodes_to_the_logits_of_the_model_itself(family, lengths, stepped):
    model = with_clear_preferences(family())
    ours = KerasHubCausalLM(model, train_sentencepiece(TEXTS * 3, vocabulary_size=290), 40)
    token_ids = np.random.default_rng(0).integers(1, 300, [len(lengths), 12]).astype("int32")
    expected = model({"token_ids": token_ids, "padding_mask": np.ones_like(token_ids)}).numpy()
    more = np.stack([row[n : n + 2] for row, n in zip(token_ids, lengths, strict=True)])
    found = stepped(ours, token_ids[:, :9], lengths, more)
    # Of two texts that go on from a prompt, one is the same and the other one is not.
    both = stepped(ours, token_ids[:, :9], lengths, np.stack([300 - more, more], 1))[:, 1]
    for row, n in enumerate(lengths):
        np.testing.assert_allclose(found[row], expected[row, n - 1 : n + 2], atol=5e-5)
        np.testing.assert_allclose(both[row], expected[row, n - 1 : n + 2], atol=5e-5)


TASKS = [
    (gemma, hub.GemmaCausalLMPreprocessor, lambda: hub.GemmaTokenizer(sentence_piece())),
    (
        opt,
        hub.OPTCausalLMPreprocessor,
        lambda: byte_pairs(hub.OPTTokenizer, "<s>", "<pad>", "</s>"),
    ),
    (
        qwen3,
        hub.Qwen3CausalLMPreprocessor,
        lambda: byte_pairs(hub.Qwen3Tokenizer, "<|endoftext|>", "<|im_end|>"),
    ),
]


@pytest.mark.parametrize(("family", "preprocessor", "tokenizer"), TASKS)
def test_a_batch_says_what_keras_hub_says_of_each_row(family, preprocessor, tokenizer):
    model = with_clear_preferences(family())
    model.preprocessor = preprocessor(tokenizer(), sequence_length=48)
    ours = from_keras_hub(model)
    theirs = model.preprocessor.tokenizer
    prompts = ["the cat sat", "on", "one two three four five and", "why not?"]
    answers = ours.generate(prompts, max_new_tokens=7)
    model.compile(sampler="greedy")
    for prompt, answer in zip(prompts, answers, strict=True):
        ids = ours.tokenize(prompt)
        length = len(ids) + (theirs.start_token_id is not None) + 7
        inputs = model.preprocessor.generate_preprocess([prompt], sequence_length=length)
        ends = list(ours.generation.end_token_ids)
        out = model.make_generate_function()(inputs, stop_token_ids=ends)
        said = np.array(out["token_ids"])[0, -7:][np.array(out["padding_mask"])[0, -7:] != 0]
        assert ours.detokenize(said.tolist()).strip() == answer.text.strip()


@pytest.mark.parametrize("family", [gemma, gpt2])
def test_an_export_answers_without_keras_hub(family, tmp_path):
    if family is gemma:
        model = with_clear_preferences(gemma(num_layers=1))
        tokenizer = hub.GemmaTokenizer(sentence_piece())
        model.preprocessor = hub.GemmaCausalLMPreprocessor(tokenizer, sequence_length=24)
    else:
        model = with_clear_preferences(gpt2(num_layers=1, max_sequence_length=24))
        tokenizer = byte_pairs(hub.GPT2Tokenizer, "<|endoftext|>")
        model.preprocessor = hub.GPT2CausalLMPreprocessor(tokenizer, sequence_length=24)
    folder = for_serving(from_keras_hub(model), tmp_path / "model")  # holds the two together
    found = inspect_export(folder)
    assert not [op for op in found["ops"] if "Xla" in op or "PyFunc" in op]
    assert found["metadata"]["context_length"] == 24
