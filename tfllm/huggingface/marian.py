"""Marian translation models of Hugging Face, in both directions."""

import re
from collections.abc import Iterator
from typing import Any

import numpy as np

from tfllm.huggingface.activations import THEIRS
from tfllm.huggingface.checkpoint import Checkpoint
from tfllm.huggingface.configuration import activation, fraction, size
from tfllm.huggingface.generation_settings import generation_settings
from tfllm.huggingface.mapping import Entry, linear, load, norm, same, stored
from tfllm.huggingface.t5 import start_token
from tfllm.huggingface.tied import are_the_same, first_of
from tfllm.models.marian import MarianBackbone, MarianSeq2SeqLM, MarianSeq2SeqLMPreprocessor
from tfllm.tokenizers import Tokenizer

ARCHITECTURES = ("MarianMTModel",)

_SHARED = "model.shared.weight"
_SOURCE = "model.encoder.embed_tokens.weight"
_TARGET = "model.decoder.embed_tokens.weight"
_HEAD = "lm_head.weight"
_BIAS = "final_logits_bias"


def read(checkpoint: Checkpoint, tokenizer: Tokenizer, dtype: str | None = None) -> MarianSeq2SeqLM:
    """The model of a checkpoint.

    Args:
        checkpoint: With the architecture `MarianMTModel`.
        tokenizer: Its tokenizer.
        dtype: Policy of the layers.

    Raises:
        UserError: the configuration or the tensors are not those of a Marian.
    """
    config = checkpoint.config
    source, target = first_of(checkpoint, _SOURCE, _SHARED), first_of(checkpoint, _TARGET, _SHARED)
    shares = config.get("share_encoder_decoder_embeddings", True)
    source_size = size(checkpoint, "vocab_size", 58101)
    backbone = MarianBackbone(
        vocabulary_size=(
            source_size if shares else size(checkpoint, "decoder_vocab_size", source_size)
        ),
        num_layers=size(checkpoint, "encoder_layers", 12),
        num_heads=size(checkpoint, "encoder_attention_heads", 16),
        hidden_dim=size(checkpoint, "d_model", 1024),
        intermediate_dim=size(checkpoint, "encoder_ffn_dim", 4096),
        source_vocabulary_size=(
            None if shares and are_the_same(checkpoint, source, target) else source_size
        ),
        num_decoder_layers=size(checkpoint, "decoder_layers", 12),
        num_decoder_heads=size(checkpoint, "decoder_attention_heads", 16),
        decoder_intermediate_dim=size(checkpoint, "decoder_ffn_dim", 4096),
        activation=activation(checkpoint, "activation_function", "gelu"),
        tie_embeddings=_HEAD not in checkpoint or are_the_same(checkpoint, _HEAD, target),
        scale_embedding=config.get("scale_embedding", False),
        max_sequence_length=size(checkpoint, "max_position_embeddings", 1024),
        dropout=fraction(checkpoint, "dropout", 0.1),
        attention_dropout=fraction(checkpoint, "attention_dropout", 0.0),
        activation_dropout=fraction(checkpoint, "activation_dropout", 0.0),
        dtype=dtype,
    )
    load(checkpoint, _entries(backbone, source, target, _BIAS in checkpoint))
    # The positions are computed, whatever an old checkpoint says of them.
    checkpoint.ignore(r"model\.(en|de)coder\.embed_positions\.weight", re.escape(_SHARED))
    length = min(256, backbone.max_sequence_length)
    preprocessor = MarianSeq2SeqLMPreprocessor(
        tokenizer,
        encoder_sequence_length=length,
        decoder_sequence_length=length,
        decoder_start_token_id=start_token(checkpoint),
    )
    generation = generation_settings(checkpoint, encoder_decoder=True)
    return MarianSeq2SeqLM(backbone, preprocessor, generation=generation)


def write(model: MarianSeq2SeqLM) -> tuple[dict[str, Any], Iterator[tuple[str, np.ndarray]]]:
    """config.json of a model, and its tensors by name, one at a time."""
    backbone, preprocessor = model.backbone, model.preprocessor
    config = {
        "architectures": list(ARCHITECTURES),
        "model_type": "marian",
        "vocab_size": backbone.source_vocabulary_size,
        "decoder_vocab_size": backbone.vocabulary_size,
        "d_model": backbone.hidden_dim,
        "encoder_layers": backbone.num_layers,
        "encoder_attention_heads": backbone.num_heads,
        "encoder_ffn_dim": backbone.intermediate_dim,
        "decoder_layers": backbone.num_decoder_layers,
        "decoder_attention_heads": backbone.num_decoder_heads,
        "decoder_ffn_dim": backbone.decoder_intermediate_dim,
        "activation_function": THEIRS[backbone.activation],
        "max_position_embeddings": backbone.max_sequence_length,
        "scale_embedding": backbone.scale_embedding,
        "share_encoder_decoder_embeddings": backbone.shares_vocabulary,
        "tie_word_embeddings": backbone.tie_embeddings,
        "dropout": backbone.dropout,
        "attention_dropout": backbone.attention_dropout,
        "activation_dropout": backbone.activation_dropout,
        "is_encoder_decoder": True,
        "decoder_start_token_id": preprocessor.start_id,
        "pad_token_id": preprocessor.tokenizer.padding_id,
        "eos_token_id": preprocessor.tokenizer.eos_id,
        "dtype": "float32",
    }
    return config, stored(_written(backbone))


def _written(backbone: MarianBackbone) -> Iterator[Entry]:
    if not backbone.shares_vocabulary:
        yield from _entries(backbone, _SOURCE, _TARGET)
        return
    yield from _entries(backbone, _SHARED, _SHARED)
    if not backbone.tie_embeddings:
        # transformers 5 ties nothing at all where it does not tie the output.
        yield same(_SOURCE, backbone.source_embedding.embeddings)
        yield same(_TARGET, backbone.source_embedding.embeddings)


def _entries(
    backbone: MarianBackbone, source: str, target: str, has_bias: bool = True
) -> Iterator[Entry]:
    yield same(source, backbone.source_embedding.embeddings)
    if not backbone.shares_vocabulary:
        yield same(target, backbone.token_embedding.embeddings)
    if not backbone.tie_embeddings:
        yield same(_HEAD, backbone.token_embedding.output_embeddings)
    if has_bias:
        yield same(_BIAS, backbone.logits_bias.bias)
    for stack, blocks in (("en", backbone.encoder_blocks), ("de", backbone.decoder_blocks)):
        for i, block in enumerate(blocks):
            yield from _block(f"model.{stack}coder.layers.{i}", block)


def _block(name: str, block) -> Iterator[Entry]:
    yield from _attention(f"{name}.self_attn", block.attention)
    yield from norm(f"{name}.self_attn_layer_norm", block.attention_norm)
    if hasattr(block, "memory_attention"):
        yield from _attention(f"{name}.encoder_attn", block.memory_attention)
        yield from norm(f"{name}.encoder_attn_layer_norm", block.memory_attention_norm)
    yield from linear(f"{name}.fc1", block.feed_forward.inner)
    yield from linear(f"{name}.fc2", block.feed_forward.outer)
    yield from norm(f"{name}.final_layer_norm", block.feed_forward_norm)


def _attention(name: str, attention) -> Iterator[Entry]:
    yield from linear(f"{name}.q_proj", attention.query)
    yield from linear(f"{name}.k_proj", attention.key)
    yield from linear(f"{name}.v_proj", attention.value)
    yield from linear(f"{name}.out_proj", attention.output_projection)
