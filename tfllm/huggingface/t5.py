"""T5 and mT5 of Hugging Face, in both directions."""

from collections.abc import Iterator
from typing import Any

import numpy as np

from tfllm.errors import UserError
from tfllm.huggingface.checkpoint import Checkpoint
from tfllm.huggingface.configuration import fraction, positive, size
from tfllm.huggingface.generation_settings import generation_settings
from tfllm.huggingface.json_files import read_json
from tfllm.huggingface.mapping import Entry, linear, load, same, stored
from tfllm.huggingface.tied import are_the_same, first_of
from tfllm.models.t5 import T5Backbone, T5Seq2SeqLM, T5Seq2SeqLMPreprocessor
from tfllm.tokenizers import Tokenizer

# The second is what old checkpoints call the first.
ARCHITECTURES = ("T5ForConditionalGeneration", "T5WithLMHeadModel", "MT5ForConditionalGeneration")

# What `feed_forward_proj` says: whether there is a gate, and the activation. "gated-gelu" stands
# for the tanh form, as in `T5Config`.
_NETWORKS = {
    "relu": (False, "relu"),
    "gelu": (False, "gelu"),
    "gelu_new": (False, "gelu_tanh"),
    "silu": (False, "silu"),
    "gated-relu": (True, "relu"),
    "gated-gelu": (True, "gelu_tanh"),
    "gated-silu": (True, "silu"),
}
_LEAST_CONTEXT = 2048
_NO_LIMIT = 1_000_000  # transformers writes 1e30 for a tokenizer without a maximum

_TABLES = ("shared.weight", "encoder.embed_tokens.weight", "decoder.embed_tokens.weight")
_HEAD = "lm_head.weight"


def read(checkpoint: Checkpoint, tokenizer: Tokenizer, dtype: str | None = None) -> T5Seq2SeqLM:
    """The model of a checkpoint.

    Relative positions know no limit, so the longest source and target are a choice: the largest of
    `n_positions`, the tokenizer's `model_max_length` and 2,048.

    Args:
        checkpoint: With one of `ARCHITECTURES`.
        tokenizer: Its tokenizer.
        dtype: Policy of the layers.

    Raises:
        UserError: the configuration or the tensors are not those of a T5.
    """
    config = checkpoint.config
    is_mt5 = config.get("model_type") == "mt5"
    gated, activation = _network(checkpoint, "gated-gelu" if is_mt5 else "relu")
    table = _table(checkpoint)
    num_layers = size(checkpoint, "num_layers", 8 if is_mt5 else 6)
    backbone = T5Backbone(
        vocabulary_size=size(checkpoint, "vocab_size", 250112 if is_mt5 else 32128),
        num_layers=num_layers,
        num_heads=size(checkpoint, "num_heads", 6 if is_mt5 else 8),
        hidden_dim=size(checkpoint, "d_model", 512),
        intermediate_dim=size(checkpoint, "d_ff", 1024 if is_mt5 else 2048),
        num_decoder_layers=size(checkpoint, "num_decoder_layers", num_layers),
        key_value_dim=size(checkpoint, "d_kv", 64),
        activation=activation,
        use_gated_activation=gated,
        tie_embeddings=_HEAD not in checkpoint or are_the_same(checkpoint, table, _HEAD),
        # As transformers 5 has it; it never scales those of an mT5.
        scale_logits=not is_mt5
        and config.get("scale_decoder_outputs", config.get("tie_word_embeddings") is not False),
        num_buckets=size(checkpoint, "relative_attention_num_buckets", 32),
        max_distance=size(checkpoint, "relative_attention_max_distance", 128),
        max_sequence_length=_context(checkpoint),
        dropout=fraction(checkpoint, "dropout_rate", 0.1),
        layer_norm_epsilon=positive(checkpoint, "layer_norm_epsilon", 1e-6),
        dtype=dtype,
    )
    load(checkpoint, _entries(backbone, table))
    checkpoint.ignore(r"decoder\.block\.0\.layer\.1\.EncDecAttention\.relative_attention_bias.*")
    preprocessor = T5Seq2SeqLMPreprocessor(
        tokenizer, decoder_start_token_id=start_token(checkpoint)
    )
    generation = generation_settings(checkpoint, encoder_decoder=True)
    return T5Seq2SeqLM(backbone, preprocessor, generation=generation)


def write(model: T5Seq2SeqLM) -> tuple[dict[str, Any], Iterator[tuple[str, np.ndarray]]]:
    """config.json of a model, and its tensors by name, one at a time."""
    backbone, preprocessor = model.backbone, model.preprocessor
    network = (backbone.use_gated_activation, backbone.activation)
    scaled, tied = backbone.scale_logits, backbone.tie_embeddings
    config = {
        "architectures": ["T5ForConditionalGeneration"],
        "model_type": "t5",
        "vocab_size": backbone.vocabulary_size,
        "d_model": backbone.hidden_dim,
        "d_kv": backbone.key_value_dim,
        "d_ff": backbone.intermediate_dim,
        "num_layers": backbone.num_layers,
        "num_decoder_layers": backbone.num_decoder_layers,
        "num_heads": backbone.num_heads,
        "relative_attention_num_buckets": backbone.num_buckets,
        "relative_attention_max_distance": backbone.max_distance,
        "n_positions": backbone.max_sequence_length,
        "dropout_rate": backbone.dropout,
        "layer_norm_epsilon": backbone.layer_norm_epsilon,
        "feed_forward_proj": next(name for name in _NETWORKS if _NETWORKS[name] == network),
        # transformers 4 reads the first alone and scales where it ties; 5 ties by the tensors.
        "tie_word_embeddings": scaled and tied,
        "scale_decoder_outputs": scaled,
        "is_encoder_decoder": True,
        "decoder_start_token_id": preprocessor.start_id,
        "pad_token_id": preprocessor.tokenizer.padding_id,
        "eos_token_id": preprocessor.tokenizer.eos_id,
        "dtype": "float32",
    }
    # What is tied and not scaled has both tables, for transformers 4.
    return config, stored(_entries(backbone, _TABLES[0], both=tied and not scaled))


def start_token(checkpoint: Checkpoint) -> int | None:
    """What the decoder reads first; None if the checkpoint does not say.

    Raises:
        UserError: it is no token id.
    """
    found = (
        settings.get("decoder_start_token_id")
        for settings in (checkpoint.generation_config, checkpoint.config)
    )
    token = next((token for token in found if token is not None), None)
    if token is not None and (type(token) is not int or token < 0):
        raise UserError(
            f"{checkpoint.folder}: decoder_start_token_id must be a token id, got {token!r}."
        )
    return token


def _network(checkpoint: Checkpoint, default: str) -> tuple[bool, str]:
    name = checkpoint.config.get("feed_forward_proj", default)
    if name not in _NETWORKS:
        raise UserError(
            f"{checkpoint.folder}/config.json: feed_forward_proj is {name!r}; known are "
            f"{', '.join(_NETWORKS)}."
        )
    return _NETWORKS[name]


def _table(checkpoint: Checkpoint) -> str:
    """The name of the one table of token embeddings."""
    table = first_of(checkpoint, *_TABLES)
    for name in _TABLES:
        if name in checkpoint and not are_the_same(checkpoint, table, name):
            raise UserError(
                f"{checkpoint.folder} has different numbers in {table} and {name}: only one table "
                "for encoder and decoder is supported."
            )
    return table


def _context(checkpoint: Checkpoint) -> int:
    path = checkpoint.folder / "tokenizer_config.json"
    stated = [checkpoint.config.get("n_positions")]
    if path.exists():
        stated.append(read_json(path).get("model_max_length"))
    sane = [int(n) for n in stated if isinstance(n, int | float) and n < _NO_LIMIT]
    return max([_LEAST_CONTEXT, *sane])


def _entries(backbone: T5Backbone, table: str, both: bool = False) -> Iterator[Entry]:
    """Every tensor; the table of the logits too where it is not the other, or if `both`."""
    embedding = backbone.token_embedding
    yield same(table, embedding.embeddings)
    if both or not embedding.tied:
        yield same(_HEAD, embedding.output_embeddings)
    stacks = (
        ("encoder", backbone.encoder_blocks, backbone.encoder_positions, backbone.encoder_norm),
        ("decoder", backbone.decoder_blocks, backbone.decoder_positions, backbone.decoder_norm),
    )
    for stack, blocks, positions, norm in stacks:
        yield same(
            f"{stack}.block.0.layer.0.SelfAttention.relative_attention_bias.weight",
            positions.embeddings,
        )
        for i, block in enumerate(blocks):
            yield from _block(f"{stack}.block.{i}.layer", block)
        yield same(f"{stack}.final_layer_norm.weight", norm.scale)


def _block(name: str, block) -> Iterator[Entry]:
    yield from _attention(f"{name}.0.SelfAttention", block.attention)
    yield same(f"{name}.0.layer_norm.weight", block.attention_norm.scale)
    last = 1
    if hasattr(block, "memory_attention"):
        yield from _attention(f"{name}.1.EncDecAttention", block.memory_attention)
        yield same(f"{name}.1.layer_norm.weight", block.memory_attention_norm.scale)
        last = 2
    inner, network = f"{name}.{last}.DenseReluDense", block.feed_forward
    if block.gated:
        yield from linear(f"{inner}.wi_0", network.gate)
        yield from linear(f"{inner}.wi_1", network.inner)
    else:
        yield from linear(f"{inner}.wi", network.inner)
    yield from linear(f"{inner}.wo", network.outer)
    yield same(f"{name}.{last}.layer_norm.weight", block.feed_forward_norm.scale)


def _attention(name: str, attention) -> Iterator[Entry]:
    yield from linear(f"{name}.q", attention.query)
    yield from linear(f"{name}.k", attention.key)
    yield from linear(f"{name}.v", attention.value)
    yield from linear(f"{name}.o", attention.output_projection)
