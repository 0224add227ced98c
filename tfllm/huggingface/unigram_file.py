"""A tokenizer.json of Hugging Face that was made from a SentencePiece model, turned back."""

import base64
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from sentencepiece.sentencepiece_model_pb2 import (  # type: ignore[attr-defined]
    ModelProto,
    TrainerSpec,
)

from tfllm.errors import UserError

_Piece = ModelProto.SentencePiece
_SPACES = ("Strip", "Replace")  # of spaces, which SentencePiece always does


def unigram_model(spec: Mapping[str, Any], path: Path) -> bytes:
    """The SentencePiece model of a unigram tokenizer.

    Args:
        spec: The content of tokenizer.json.
        path: Of the file, for messages.

    Returns:
        The model, serialized: without the added tokens at the end of the vocabulary.

    Raises:
        UserError: the tokenizer is not what `transformers` makes of a model that was trained with
            SentencePiece's defaults, so that the original file is needed.
    """
    model = spec.get("model") or {}
    _require(path, "model", model.get("type"), "Unigram")
    _require(path, "byte_fallback", bool(model.get("byte_fallback")), False)
    splits = _steps(spec.get("pre_tokenizer"), "pretokenizers")
    _require(path, "pre_tokenizer", [s["type"] for s in splits][-1:], ["Metaspace"])
    always = splits[-1].get("prepend_scheme") or splits[-1].get("add_prefix_space")
    _require(path, "pre_tokenizer's prefix", always in ("always", True), True)
    proto = ModelProto()
    for step in _steps(spec.get("normalizer"), "normalizers"):
        if step["type"] == "Precompiled":
            charsmap = base64.b64decode(step["precompiled_charsmap"] or "")
            proto.normalizer_spec.precompiled_charsmap = charsmap
        elif step["type"] not in _SPACES:
            _require(path, "normalizer", step["type"], "Precompiled")
    special = {token["id"] for token in spec.get("added_tokens") or ()}
    vocabulary = model["vocab"]
    count = len(vocabulary)
    while count - 1 in special:
        count -= 1
    for id, (piece, score) in enumerate(vocabulary[:count]):
        kind = _Piece.CONTROL if id in special else _Piece.NORMAL
        kind = _Piece.UNKNOWN if id == model["unk_id"] else kind
        proto.pieces.add(piece=piece, score=score, type=kind)
    ids = {piece: id for id, (piece, _) in enumerate(vocabulary[:count])}
    trainer = proto.trainer_spec
    trainer.model_type = TrainerSpec.UNIGRAM
    trainer.vocab_size = count
    trainer.unk_id = model["unk_id"]
    trainer.unk_piece = vocabulary[model["unk_id"]][0]
    trainer.bos_id, trainer.eos_id, trainer.pad_id = (
        ids.get(piece, -1) for piece in ("<s>", "</s>", "<pad>")
    )
    return proto.SerializeToString(deterministic=True)


def _steps(part: Mapping[str, Any] | None, name: str) -> list[Mapping[str, Any]]:
    if not part:
        return []
    return list(part[name]) if part["type"] == "Sequence" else [part]


def _require(path: Path, name: str, found: object, expected: object) -> None:
    if found != expected:
        raise UserError(
            f"The {name} in {path} is {found!r}, expected {expected!r}: the SentencePiece model of "
            "this tokenizer cannot be made from it. Put spiece.model into the folder."
        )
