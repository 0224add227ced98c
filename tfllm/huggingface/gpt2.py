"""GPT-2 of Hugging Face: its configuration and tensors, in both directions."""

import re
from collections.abc import Iterator
from typing import Any

import keras
import numpy as np

from tfllm.huggingface.activations import THEIRS
from tfllm.huggingface.checkpoint import Checkpoint
from tfllm.huggingface.configuration import activation, fraction, positive, require, size
from tfllm.huggingface.generation_settings import generation_settings
from tfllm.huggingface.mapping import Entry, load, norm, same, stored
from tfllm.models import GPTBackbone, GPTCausalLM, GPTCausalLMPreprocessor
from tfllm.tokenizers import Tokenizer

ARCHITECTURES = ("GPT2LMHeadModel",)
_HEAD = "lm_head.weight"


def read(checkpoint: Checkpoint, tokenizer: Tokenizer) -> GPTCausalLM:
    """The model of a checkpoint.

    Args:
        checkpoint: With the architecture `GPT2LMHeadModel`.
        tokenizer: Its tokenizer.

    Raises:
        UserError: the configuration or the tensors are not those of a GPT-2.
    """
    require(
        checkpoint,
        scale_attn_weights=True,
        scale_attn_by_inverse_layer_idx=False,
        add_cross_attention=False,
    )
    hidden_dim = size(checkpoint, "n_embd", 768)
    backbone = GPTBackbone(
        vocabulary_size=size(checkpoint, "vocab_size", 50257),
        num_layers=size(checkpoint, "n_layer", 12),
        num_heads=size(checkpoint, "n_head", 12),
        hidden_dim=hidden_dim,
        intermediate_dim=size(checkpoint, "n_inner", 4 * hidden_dim),
        max_sequence_length=size(checkpoint, "n_positions", 1024),
        dropout=fraction(checkpoint, "resid_pdrop", 0.1),
        layer_norm_epsilon=positive(checkpoint, "layer_norm_epsilon", 1e-5),
        activation=activation(checkpoint, "activation_function", "gelu_new"),
        tie_embeddings=checkpoint.config.get("tie_word_embeddings", True),
    )
    checkpoint.rename(r"^transformer\.", "")
    # Constants of old checkpoints: the causal mask of each layer.
    checkpoint.ignore(r"h\.\d+\.attn\.(masked_)?bias")
    if backbone.tie_embeddings:
        checkpoint.ignore(re.escape(_HEAD))
    load(checkpoint, _entries(backbone))
    preprocessor = GPTCausalLMPreprocessor(tokenizer, backbone.max_sequence_length)
    return GPTCausalLM(
        backbone,
        preprocessor,
        generation=generation_settings(checkpoint, encoder_decoder=False),
    )


def write(model: GPTCausalLM) -> tuple[dict[str, Any], Iterator[tuple[str, np.ndarray]]]:
    """config.json of a model, and its tensors by name, one at a time."""
    backbone = model.backbone
    config = {
        "architectures": list(ARCHITECTURES),
        "model_type": "gpt2",
        "vocab_size": backbone.vocabulary_size,
        "n_layer": backbone.num_layers,
        "n_head": backbone.num_heads,
        "n_embd": backbone.hidden_dim,
        "n_inner": backbone.intermediate_dim,
        "n_positions": backbone.max_sequence_length,
        "n_ctx": backbone.max_sequence_length,
        "resid_pdrop": backbone.dropout,
        "embd_pdrop": backbone.dropout,
        "attn_pdrop": backbone.dropout,
        "layer_norm_epsilon": backbone.layer_norm_epsilon,
        "activation_function": THEIRS[backbone.activation],
        "tie_word_embeddings": backbone.tie_embeddings,
        "bos_token_id": model.preprocessor.tokenizer.bos_id,
        "eos_token_id": model.preprocessor.tokenizer.eos_id,
        "dtype": "float32",
    }
    entries = (
        entry._replace(name=f"transformer.{entry.name}") if entry.name != _HEAD else entry
        for entry in _entries(backbone)
    )
    return config, stored(entries)


def _entries(backbone: GPTBackbone) -> Iterator[Entry]:
    yield same("wte.weight", backbone.token_embedding.embeddings)
    yield same("wpe.weight", backbone.position_embedding.embeddings)
    for i, block in enumerate(backbone.blocks):
        attention = block.attention
        yield from norm(f"h.{i}.ln_1", block.attention_norm)
        yield from _conv1d(f"h.{i}.attn.c_attn", attention.query, attention.key, attention.value)
        yield from _conv1d(f"h.{i}.attn.c_proj", attention.output_projection)
        yield from norm(f"h.{i}.ln_2", block.feed_forward_norm)
        yield from _conv1d(f"h.{i}.mlp.c_fc", block.feed_forward.inner)
        yield from _conv1d(f"h.{i}.mlp.c_proj", block.feed_forward.outer)
    yield from norm("ln_f", backbone.final_norm)
    if not backbone.tie_embeddings:
        yield same(_HEAD, backbone.token_embedding.output_embeddings)


def _conv1d(name: str, *layers: keras.layers.Layer) -> Iterator[Entry]:
    """GPT-2 keeps its matrices [in, out], and query, key and value side by side."""
    yield Entry(f"{name}.weight", tuple(layer.kernel for layer in layers))
    yield Entry(f"{name}.bias", tuple(layer.bias for layer in layers))
