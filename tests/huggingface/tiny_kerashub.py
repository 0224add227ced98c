"""Tiny models and tokenizers of KerasHub, with random weights."""

from io import BytesIO

import keras_hub
import numpy as np
import sentencepiece

from tfllm.tokenizers.byte_alphabet import ALPHABET

hub = keras_hub.models
TEXTS = [
    "the cat sat on the mat and the dog sat on the log",
    "one two three four five six seven eight nine ten",
    "why not? because! who? me, and you; and them.",
]
SIZES = {"vocabulary_size": 300, "num_layers": 2, "hidden_dim": 32, "intermediate_dim": 48}
GROUPED = SIZES | {"num_query_heads": 4, "num_key_value_heads": 2}
WINDOW = {"use_sliding_window_attention": True, "sliding_window_size": 4}
LEARNED = SIZES | {"num_heads": 4, "max_sequence_length": 48}
EXPERTS = {"num_experts": 4, "top_k": 2}


def gemma(**sizes):
    sizes = GROUPED | WINDOW | {"head_dim": 8, "attention_logit_soft_cap": 20.0} | sizes
    return hub.GemmaCausalLM(hub.GemmaBackbone(**sizes))


def gemma3(**sizes):
    sizes = GROUPED | WINDOW | {"head_dim": 8, "image_size": 8} | sizes
    return hub.Gemma3CausalLM(backbone=hub.Gemma3Backbone(**sizes), preprocessor=None)


def llama(**sizes):
    return hub.Llama3CausalLM(hub.Llama3Backbone(**GROUPED | sizes))


def mistral():
    return hub.MistralCausalLM(hub.MistralBackbone(**GROUPED, sliding_window=4))


def mixtral():
    return hub.MixtralCausalLM(hub.MixtralBackbone(**GROUPED, **EXPERTS, sliding_window=4))


def phi3():
    su = {"short_factor": [1.1] * 4, "long_factor": [2.0] * 4, "type": "su"}
    su = {f"rope_scaling_{name}": value for name, value in su.items()}
    lengths = {"max_sequence_length": 96, "pretraining_sequence_length": 40}
    return hub.Phi3CausalLM(hub.Phi3Backbone(**GROUPED, **su, **lengths))


def qwen(**sizes):
    return hub.QwenCausalLM(hub.QwenBackbone(**GROUPED, **sizes))


def qwen_moe():
    experts = EXPERTS | {"moe_intermediate_dim": 16, "shared_expert_intermediate_dim": 32}
    return hub.QwenMoeCausalLM(hub.QwenMoeBackbone(**GROUPED, **experts))


def qwen3():
    return hub.Qwen3CausalLM(hub.Qwen3Backbone(**GROUPED, head_dim=8))


def qwen3_moe():
    experts = EXPERTS | {"moe_intermediate_dim": 16, "head_dim": 8}
    return hub.Qwen3MoeCausalLM(hub.Qwen3MoeBackbone(**GROUPED, **experts))


def smollm3():
    layers = {
        "attention_bias": False, "attention_dropout": 0.0, "mlp_bias": False,
        "rope_layer_enabled_list": [True, False], "layer_types": ["full_attention"] * 2,
        "layer_norm_epsilon": 1e-5, "max_position_embeddings": 48, "rope_theta": 10000.0,
        "partial_rotary_factor": 1.0, "num_attention_heads": 4, "num_key_value_heads": 2,
    }  # fmt: skip
    return hub.SmolLM3CausalLM(hub.SmolLM3Backbone(**SIZES, **layers))


def gpt_oss():
    sizes = GROUPED | EXPERTS | {"head_dim": 8, "sliding_window": 4}
    return hub.GptOssCausalLM(hub.GptOssBackbone(**sizes))


def gpt2(**sizes):
    return hub.GPT2CausalLM(hub.GPT2Backbone(**LEARNED | sizes))


def opt():
    return hub.OPTCausalLM(hub.OPTBackbone(**LEARNED))


def bloom():
    return hub.BloomCausalLM(hub.BloomBackbone(**LEARNED))


def falcon():
    return hub.FalconCausalLM(hub.FalconBackbone(**SIZES, num_attention_heads=4))


def gpt_neox():
    return hub.GPTNeoXCausalLM(hub.GPTNeoXBackbone(**LEARNED))


FAMILIES = [
    bloom, falcon, gemma, gemma3, gpt2, gpt_neox, gpt_oss, llama, mistral, mixtral, opt, phi3,
    qwen, qwen3, qwen3_moe, qwen_moe, smollm3,
]  # fmt: skip


def with_clear_preferences(model):
    """Random weights under which no two tokens are nearly as good."""
    random = np.random.default_rng(1)
    for variable in model.trainable_variables:
        variable.assign(variable + random.normal(size=variable.shape, scale=0.3))
    return model


def sentence_piece(bos="<bos>", eos="<eos>", pad="<pad>", user=(), prefix=False):
    """A serialized model of 300 pieces at most, with the rules of Gemma unless it is said so."""
    model = BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(TEXTS * 3), model_writer=model, model_type="bpe",
        vocab_size=300, hard_vocab_limit=False, byte_fallback=True, remove_extra_whitespaces=False,
        add_dummy_prefix=prefix, normalization_rule_name="identity",
        pad_id=0, eos_id=1, bos_id=2, unk_id=3, pad_piece=pad, eos_piece=eos, bos_piece=bos,
        user_defined_symbols=list(user), minloglevel=2,
    )  # fmt: skip
    return model.getvalue()


def byte_pairs(kind, *special):
    """A tokenizer of that class, of the 256 bytes, seven merges and then the special tokens."""
    merges = ["Ġ t", "h e", "Ġt he", "a t", "o n", "Ġ s", "Ġs at"]
    tokens = [*ALPHABET, *(merge.replace(" ", "") for merge in merges), *special]
    return kind(vocabulary={token: i for i, token in enumerate(tokens)}, merges=merges)
