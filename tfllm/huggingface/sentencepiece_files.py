"""Files of the tokenizers of T5 and Marian, read and written as `transformers` does."""

import json
import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from sentencepiece.sentencepiece_model_pb2 import ModelProto  # type: ignore[attr-defined]

from tfllm.errors import UserError
from tfllm.huggingface.json_files import read_json
from tfllm.huggingface.special_tokens import SpecialTokens
from tfllm.huggingface.unigram_file import unigram_model
from tfllm.tokenizers import SentencePieceTokenizer
from tfllm.tokenizers.marian import MarianTokenizer
from tfllm.tokenizers.spm import SpmModel

_DEFAULTS = {"eos": "</s>", "unk": "<unk>", "pad": "<pad>"}
_EXTRA_ID = re.compile(r"<extra_id_(\d+)>")
_LLAMA = ("tokenizer.model", "tokenizer.model.v1")
_Piece = ModelProto.SentencePiece


def read_t5(folder: str | os.PathLike[str]) -> SentencePieceTokenizer:
    """The tokenizer of a T5 folder: spiece.model, or a tokenizer.json that says the same.

    Its ids are SentencePiece's. `transformers` differs from SentencePiece where two segmentations
    are equally likely, and in a few rare characters (U+0085, and some after a line break); the
    strings of special tokens are recognised in a text as it does. `<extra_id_0>` has the highest
    id, and the extra ids add nothing to a decoded text.

    Raises:
        UserError: a file is missing or damaged, or asks for what is not supported.

    Source:
        `T5Tokenizer` of `transformers` 5.23.
    """
    folder = Path(folder)
    fast = _optional(folder / "tokenizer.json")
    config = _optional(folder / "tokenizer_config.json")
    if (folder / "spiece.model").exists():
        model = SpmModel.read(folder / "spiece.model")
    elif fast:
        model = SpmModel(unigram_model(fast, folder / "tokenizer.json"))
    else:
        raise UserError(
            f"{folder} has no tokenizer of T5: expected spiece.model, or a tokenizer.json."
        )
    vocabulary = {piece: id for id, piece in enumerate(model.pieces)}
    if fast:
        pieces = [piece for piece, _ in fast["model"]["vocab"]]
        if pieces[: len(vocabulary)] != model.pieces:
            raise UserError(f"{folder}: spiece.model and tokenizer.json hold other vocabularies.")
        vocabulary |= {piece: id for id, piece in enumerate(pieces)}
    else:
        count = config.get("extra_ids", 100)
        for number in reversed(range(count)):
            vocabulary.setdefault(f"<extra_id_{number}>", len(vocabulary))
    added = [
        {"content": piece, "id": id, "special": True, "normalized": False}
        for piece, id in vocabulary.items()
        if _EXTRA_ID.fullmatch(piece) or model.spec.pieces[id].type == _Piece.CONTROL
    ]
    special = SpecialTokens(
        folder,
        vocabulary,
        [*added, *fast.get("added_tokens", ())],
        normalizes=True,
        defaults=_DEFAULTS,
    )
    return SentencePieceTokenizer(
        model.proto,
        loses_one_space=True,
        added_tokens=special.added_tokens,
        begins_with_bos=False,
    )


def write_t5(tokenizer: SentencePieceTokenizer, folder: str | os.PathLike[str]) -> None:
    """Writes files of which `AutoTokenizer` makes the same tokenizer.

    Raises:
        UserError: `transformers` has no such tokenizer.
    """
    model = SpmModel(tokenizer.proto)
    if not model.spec.normalizer_spec.escape_whitespaces:
        raise UserError(
            "transformers has no tokenizer that keeps every text as it is, as those of "
            "train_sentencepiece do: only T5's own can be written."
        )
    extra = [token for token in tokenizer.added_tokens if _EXTRA_ID.fullmatch(token.text)]
    beyond = sorted(token.id for token in extra if token.id >= len(model.pieces))
    Path(folder, "spiece.model").write_bytes(tokenizer.proto)
    _write_json(
        Path(folder, "tokenizer_config.json"),
        {
            "tokenizer_class": "T5Tokenizer",
            "extra_ids": len(beyond),
            "additional_special_tokens": [token.text for token in extra],
            **{f"{name}_token": text for name, text in _DEFAULTS.items()},
            "added_tokens_decoder": _decoder(tokenizer),
        },
    )


def read_llama(folder: str | os.PathLike[str]) -> SentencePieceTokenizer:
    """The tokenizer of a folder of Llama, Mistral or Gemma: tokenizer.model or tokenizer.model.v1.

    With a tokenizer.json beside it, the dummy prefix is put where that says; without one, where
    SentencePiece puts it.

    Raises:
        UserError: a file is missing or damaged, or asks for what is not supported.

    Source:
        `LlamaTokenizer` and `GemmaTokenizer` of `transformers` 5.23.
    """
    folder = Path(folder)
    names = [name for name in _LLAMA if (folder / name).exists()]
    if not names:
        raise UserError(f"{folder} has no SentencePiece model: expected {' or '.join(_LLAMA)}.")
    model = SpmModel.read(folder / names[0])
    config, fast = (_optional(folder / f"{n}.json") for n in ("tokenizer_config", "tokenizer"))
    vocabulary = {piece: id for id, piece in enumerate(model.pieces)}
    kinds = {_Piece.CONTROL: True, _Piece.UNKNOWN: True, _Piece.USER_DEFINED: False}
    added = [
        {"content": piece.piece, "id": id, "special": kinds[piece.type], "normalized": False}
        for id, piece in enumerate(model.spec.pieces)
        if piece.type in kinds
    ]
    special = SpecialTokens(
        folder, vocabulary, [*added, *fast.get("added_tokens", ())], normalizes=False, defaults={}
    )
    splits = fast.get("pre_tokenizer") or {}
    return SentencePieceTokenizer(
        model.proto,
        loses_one_space=model.spec.normalizer_spec.add_dummy_prefix,
        prefix_once=splits.get("prepend_scheme") == "first",
        added_tokens=special.added_tokens,
        begins_with_bos=config.get("add_bos_token", True),
    )


def read_marian(folder: str | os.PathLike[str]) -> MarianTokenizer:
    """The tokenizer of a Marian folder.

    Raises:
        UserError: a file is missing or damaged, or asks for what is not supported.

    Source:
        `MarianTokenizer` of `transformers` 5.23.
    """
    folder = Path(folder)
    config = _optional(folder / "tokenizer_config.json")
    source, target = (SpmModel.read(folder / name) for name in ("source.spm", "target.spm"))
    vocabulary = _vocabulary(folder / "vocab.json")
    separate = config.get("separate_vocabs", False)
    special = SpecialTokens(folder, vocabulary, (), normalizes=False, defaults=_DEFAULTS)
    names = {token.id: token.text for token in special.added_tokens}
    return MarianTokenizer(
        source.proto,
        target.proto,
        vocabulary,
        _vocabulary(folder / "target_vocab.json") if separate else None,
        unk_token=names[special.ids["unk"]],
        eos_token=names[special.ids["eos"]],
        pad_token=names[special.ids["pad"]],
        added_tokens=special.added_tokens,
    )


def write_marian(tokenizer: MarianTokenizer, folder: str | os.PathLike[str]) -> None:
    """Writes files of which `AutoTokenizer` makes the same tokenizer."""
    vocabulary, target_vocabulary = tokenizer.vocabularies
    for name, proto in zip(("source.spm", "target.spm"), tokenizer.models, strict=True):
        Path(folder, name).write_bytes(proto)
    _write_json(Path(folder, "vocab.json"), vocabulary)
    if target_vocabulary is not None:
        _write_json(Path(folder, "target_vocab.json"), target_vocabulary)
    _write_json(
        Path(folder, "tokenizer_config.json"),
        {
            "tokenizer_class": "MarianTokenizer",
            "separate_vocabs": target_vocabulary is not None,
            **{f"{name}_token": getattr(tokenizer, f"{name}_token") for name in _DEFAULTS},
            "added_tokens_decoder": _decoder(tokenizer),
        },
    )


def _optional(path: Path) -> dict[str, Any]:
    return read_json(path) if path.exists() else {}


def _vocabulary(path: Path) -> dict[str, int]:
    vocabulary = read_json(path)
    wrong = [id for id in vocabulary.values() if type(id) is not int or id < 0]
    if wrong or not vocabulary:
        raise UserError(f"{path} must give each piece an id, a whole number; got {wrong[:1]}.")
    return vocabulary


def _decoder(tokenizer) -> dict[str, Mapping[str, Any]]:
    return {
        str(token.id): {
            "content": token.text,
            "lstrip": token.lstrip,
            "rstrip": token.rstrip,
            "normalized": False,
            "single_word": False,
            "special": token.hidden,
        }
        for token in tokenizer.added_tokens
    }


def _write_json(path: Path, content: Mapping[str, Any]) -> None:
    path.write_text(json.dumps(content, ensure_ascii=False, indent=2) + "\n", encoding="utf-8")
