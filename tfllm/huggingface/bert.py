"""BERT of Hugging Face and of sentence-transformers, in both directions."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from tfllm.errors import UserError
from tfllm.huggingface.activations import THEIRS
from tfllm.huggingface.checkpoint import Checkpoint
from tfllm.huggingface.configuration import activation, fraction, positive, require, size
from tfllm.huggingface.json_files import read_json
from tfllm.huggingface.mapping import Entry, linear, load, norm, same, stored
from tfllm.huggingface.sentence_transformers import load_projections, read_modules, write_modules
from tfllm.huggingface.tied import are_the_same
from tfllm.models import (
    BertBackbone,
    EncoderPreprocessor,
    MaskedLM,
    SpanQA,
    Task,
    TextClassifier,
    TextEmbedder,
)
from tfllm.tokenizers import Tokenizer

ARCHITECTURES = (
    "BertModel",
    "BertForMaskedLM",
    "BertForPreTraining",
    "BertForSequenceClassification",
    "BertForQuestionAnswering",
)
_POOLER = "pooler.dense"
_NEXT_SENTENCE = "cls.seq_relationship"
_WORDS = "embeddings.word_embeddings.weight"
_DECODER = "cls.predictions.decoder.weight"


def read(checkpoint: Checkpoint, tokenizer: Tokenizer, dtype: str | None = None) -> Task:
    """The model of a checkpoint; a `BertModel` becomes a `TextEmbedder`.

    Args:
        checkpoint: With one of `ARCHITECTURES`.
        tokenizer: Its tokenizer.
        dtype: Policy of the layers.

    Raises:
        UserError: the configuration or the tensors are not those of a BERT.
    """
    require(
        checkpoint, position_embedding_type="absolute", is_decoder=False, add_cross_attention=False
    )
    # Names of the first BERTs, and those of a model with a head around it.
    checkpoint.rename(r"LayerNorm\.gamma$", "LayerNorm.weight")
    checkpoint.rename(r"LayerNorm\.beta$", "LayerNorm.bias")
    checkpoint.rename(r"^bert\.", "")
    # Constants.
    checkpoint.ignore(r"embeddings\.(position_ids|token_type_ids)")
    kind = next(name for name in checkpoint.config["architectures"] if name in ARCHITECTURES)
    backbone = _backbone(checkpoint, kind, dtype)
    modules = read_modules(checkpoint.folder) if kind == "BertModel" else None
    preprocessor = EncoderPreprocessor(
        tokenizer, _sequence_length(checkpoint, modules and modules.max_seq_length)
    )
    if kind == "BertForSequenceClassification":
        model = TextClassifier(
            backbone,
            preprocessor,
            labels=_labels(checkpoint),
            problem_type=checkpoint.config.get("problem_type"),
            dropout=_classifier_dropout(checkpoint),
        )
    elif kind == "BertForQuestionAnswering":
        model = SpanQA(backbone, preprocessor)
    elif kind == "BertModel" and modules is None:
        model = TextEmbedder(backbone, preprocessor)
    elif modules is not None:
        model = TextEmbedder(
            backbone, preprocessor, pooling=modules.pooling, projections=modules.projections
        )
        load_projections(model, modules)
    else:
        _require_tied(checkpoint)
        has_head = kind == "BertForPreTraining" or f"{_NEXT_SENTENCE}.weight" in checkpoint
        model = MaskedLM(backbone, preprocessor, next_sentence=has_head)
    load(checkpoint, _entries(model, prefix=""))
    return model


def _backbone(checkpoint: Checkpoint, kind: str, dtype: str | None) -> BertBackbone:
    needs_pooler = kind in ("BertForPreTraining", "BertForSequenceClassification")
    return BertBackbone(
        vocabulary_size=size(checkpoint, "vocab_size", 30522),
        num_layers=size(checkpoint, "num_hidden_layers", 12),
        num_heads=size(checkpoint, "num_attention_heads", 12),
        hidden_dim=size(checkpoint, "hidden_size", 768),
        intermediate_dim=size(checkpoint, "intermediate_size", 3072),
        max_sequence_length=size(checkpoint, "max_position_embeddings", 512),
        num_segments=size(checkpoint, "type_vocab_size", 2),
        dropout=fraction(checkpoint, "hidden_dropout_prob", 0.1),
        attention_dropout=fraction(checkpoint, "attention_probs_dropout_prob", 0.1),
        activation=activation(checkpoint, "hidden_act", "gelu"),
        layer_norm_epsilon=positive(checkpoint, "layer_norm_eps", 1e-12),
        has_pooler=needs_pooler or f"{_POOLER}.weight" in checkpoint,
        dtype=dtype,
    )


def _sequence_length(checkpoint: Checkpoint, said: int | None) -> int:
    """Tokens that a text is cut to: what the model, the tokenizer and `said` allow."""
    path = checkpoint.folder / "tokenizer_config.json"
    config = read_json(path) if path.exists() else {}
    for name in ("truncation_side", "padding_side"):
        if config.get(name, "right") != "right":
            raise UserError(f"{path}: {name} is {config[name]!r}, only 'right' is supported.")
    limits = [size(checkpoint, "max_position_embeddings", 512)]
    # sentence-transformers gives the tokenizer its own limit.
    limits.append(said or config.get("model_max_length") or limits[0])
    return int(min(limits))


def _labels(checkpoint: Checkpoint) -> list[str]:
    found = checkpoint.config.get("id2label")
    if not found:
        return [f"LABEL_{i}" for i in range(size(checkpoint, "num_labels", 2))]
    if not isinstance(found, dict) or not all(str(number).isdecimal() for number in found):
        raise UserError(
            f"{checkpoint.folder}/config.json: id2label must be an object of numbers and labels, "
            f"got {found!r}."
        )
    labels = {int(number): str(label) for number, label in found.items()}
    if sorted(labels) != list(range(len(labels))):
        raise UserError(
            f"{checkpoint.folder}/config.json: id2label must name the labels 0 to "
            f"{len(labels) - 1}, got {found}."
        )
    return [labels[i] for i in range(len(labels))]


def _classifier_dropout(checkpoint: Checkpoint) -> float:
    name = "classifier_dropout"
    if checkpoint.config.get(name) is None:
        name = "hidden_dropout_prob"
    return fraction(checkpoint, name, 0.1)


def _require_tied(checkpoint: Checkpoint) -> None:
    """Refuses a masked language model that scores with other vectors than it reads with."""
    untied = checkpoint.config.get("tie_word_embeddings") is False and _DECODER in checkpoint
    if untied and not are_the_same(checkpoint, _WORDS, _DECODER):
        raise UserError(
            f"{checkpoint.folder}: {_DECODER} is not {_WORDS}; only a head that is tied to the "
            "embeddings is supported."
        )
    # With the bias that transformers stores twice.
    checkpoint.ignore(r"cls\.predictions\.decoder\.(weight|bias)")


def write(model: Task) -> tuple[dict[str, Any], Iterator[tuple[str, np.ndarray]]]:
    """config.json of a model, and its tensors by name, one at a time."""
    backbone = model.backbone
    attention_dropout = backbone.attention_dropout
    config = {
        "architectures": [_architecture(model)],
        "model_type": "bert",
        "vocab_size": backbone.vocabulary_size,
        "num_hidden_layers": backbone.num_layers,
        "num_attention_heads": backbone.num_heads,
        "hidden_size": backbone.hidden_dim,
        "intermediate_size": backbone.intermediate_dim,
        "max_position_embeddings": backbone.max_sequence_length,
        "type_vocab_size": backbone.num_segments,
        "hidden_dropout_prob": backbone.dropout,
        "attention_probs_dropout_prob": (
            backbone.dropout if attention_dropout is None else attention_dropout
        ),
        "hidden_act": THEIRS[backbone.activation],
        "layer_norm_eps": backbone.layer_norm_epsilon,
        "position_embedding_type": "absolute",
        "pad_token_id": model.preprocessor.tokenizer.padding_id,
        "dtype": "float32",
    }
    if isinstance(model, TextClassifier):
        config |= {
            "id2label": {str(i): label for i, label in enumerate(model.labels)},
            "label2id": {label: i for i, label in enumerate(model.labels)},
            "problem_type": model.problem_type,
            "classifier_dropout": model.dropout,
        }
    prefix = "" if isinstance(model, TextEmbedder) else "bert."
    return config, stored(_entries(model, prefix))


def write_more(model: Task, folder: Path) -> None:
    """Adds what `transformers` has in other files: where texts are cut, pooling, projections.

    Args:
        model: A task of a BERT.
        folder: Where the files of its tokenizer are already.
    """
    path = folder / "tokenizer_config.json"
    config = read_json(path) | {"model_max_length": model.preprocessor.sequence_length}
    path.write_text(json.dumps(config, ensure_ascii=False, indent=2) + "\n", encoding="utf-8")
    if isinstance(model, TextEmbedder):
        write_modules(model, folder)


def _architecture(model: Task) -> str:
    if isinstance(model, MaskedLM):
        has_head = model.next_sentence_head is not None
        return "BertForPreTraining" if has_head else "BertForMaskedLM"
    return {
        TextEmbedder: "BertModel",
        TextClassifier: "BertForSequenceClassification",
        SpanQA: "BertForQuestionAnswering",
    }[type(model)]


def _entries(model: Task, prefix: str) -> Iterator[Entry]:
    """Every tensor of a model; those of the encoder under a prefix."""
    backbone = model.backbone
    yield same(f"{prefix}{_WORDS}", backbone.token_embedding.embeddings)
    yield same(
        f"{prefix}embeddings.position_embeddings.weight", backbone.position_embedding.embeddings
    )
    yield same(
        f"{prefix}embeddings.token_type_embeddings.weight", backbone.segment_embedding.embeddings
    )
    yield from norm(f"{prefix}embeddings.LayerNorm", backbone.embedding_norm)
    for i, block in enumerate(backbone.blocks):
        layer, attention = f"{prefix}encoder.layer.{i}", block.attention
        yield from linear(f"{layer}.attention.self.query", attention.query)
        yield from linear(f"{layer}.attention.self.key", attention.key)
        yield from linear(f"{layer}.attention.self.value", attention.value)
        yield from linear(f"{layer}.attention.output.dense", attention.output_projection)
        yield from norm(f"{layer}.attention.output.LayerNorm", block.attention_norm)
        yield from linear(f"{layer}.intermediate.dense", block.feed_forward.inner)
        yield from linear(f"{layer}.output.dense", block.feed_forward.outer)
        yield from norm(f"{layer}.output.LayerNorm", block.feed_forward_norm)
    pooler = backbone.pooler
    if isinstance(model, TextClassifier):
        pooler = pooler or model.pooler
        yield from linear("classifier", model.head)
    if isinstance(model, SpanQA):
        yield from linear("qa_outputs", model.head)
    if isinstance(model, MaskedLM):
        yield same("cls.predictions.bias", model.output_bias.bias)
        yield from linear("cls.predictions.transform.dense", model.head.dense)
        yield from norm("cls.predictions.transform.LayerNorm", model.head.norm)
        if model.next_sentence_head is not None:
            yield from linear(_NEXT_SENTENCE, model.next_sentence_head)
    if pooler is not None:
        yield from linear(f"{prefix}{_POOLER}", pooler)
