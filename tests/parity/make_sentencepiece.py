"""Writes what transformers makes of small tokenizers of T5 and Marian: `python THIS FILE.json`."""

import base64
import json
import random
import sys
import tempfile
from pathlib import Path

from sentencepiece.sentencepiece_model_pb2 import ModelProto, TrainerSpec
from transformers import AutoTokenizer

_Piece = ModelProto.SentencePiece
LETTERS = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ.,!?'-<>/_0123456789"
ENGLISH = [
    "▁the",
    "▁a",
    "▁cat",
    "▁sat",
    "▁on",
    "▁mat",
    "▁is",
    "▁of",
    "ing",
    "er",
    "ed",
    "▁s",
    "▁c",
    "th",
    "at",
    "he",
    "in",
    "▁",
    "..",
    "...",
    "00",
]
FRENCH = [
    "▁le",
    "▁la",
    "▁un",
    "▁chat",
    "▁est",
    "▁sur",
    "▁tapis",
    "▁de",
    "é",
    "à",
    "è",
    "ç",
    "ent",
    "er",
    "es",
    "▁s",
    "▁c",
    "le",
    "▁",
    "..",
    "...",
    "00",
]
SPECIAL = ["</s>", "<pad>", "<unk>", "<s>", "<extra_id_0>", "<extra_id_3>", ">>fra<<", ">>xyz<<"]
WORDS = ["the", "cat", "le chat", "é", "中", "日本", " ", "  ", "<<", ">>"]
RUNS = ["a..", "....", "0000000"]


def spm(pieces: list[str], control: dict[str, int]) -> bytes:
    """A unigram model without a normalization of characters."""
    proto = ModelProto()
    trainer = proto.trainer_spec
    trainer.model_type = TrainerSpec.UNIGRAM
    trainer.unk_id, trainer.bos_id = control["<unk>"], control.get("<s>", -1)
    trainer.eos_id, trainer.pad_id = control["</s>"], control.get("<pad>", -1)
    names = sorted(control, key=control.__getitem__)
    for name in names:
        kind = _Piece.UNKNOWN if name == "<unk>" else _Piece.CONTROL
        proto.pieces.add(piece=name, score=0.0, type=kind)
    for number, piece in enumerate([*pieces, *LETTERS]):
        proto.pieces.add(piece=piece, score=-1.0 - number / 7)
    return proto.SerializeToString(deterministic=True)


def folders() -> dict[str, dict]:
    """Files by the name of a folder: bytes of models, JSON of the others."""
    marian = {"<unk>": 0, "<s>": 1, "</s>": 2}
    source, target = spm(ENGLISH, marian), spm(FRENCH, marian)
    sides = [list(dict.fromkeys([*side, *LETTERS])) for side in (ENGLISH, FRENCH)]
    both = list(dict.fromkeys([*sides[0], *sides[1], ">>fra<<", ">>deu<<"]))
    both.remove("Q")  # a piece without an id
    separate = {
        name: _ids(side) for name, side in zip(("vocab", "target_vocab"), sides, strict=True)
    }
    t5 = {"spiece.model": spm(ENGLISH, {"<pad>": 0, "</s>": 1, "<unk>": 2})}
    marian_models = {
        "source.spm": source,
        "target.spm": target,
        "config.json": {"model_type": "marian"},
    }
    return {
        "marian": {**marian_models, "vocab.json": _ids(both)},
        "marian_separate": {
            **marian_models,
            **{f"{name}.json": ids for name, ids in separate.items()},
            "tokenizer_config.json": {"separate_vocabs": True},
        },
        "t5": {
            **t5,
            "config.json": {"model_type": "t5"},
            "tokenizer_config.json": {"extra_ids": 4},
        },
    }


def _ids(pieces):
    return {piece: id for id, piece in enumerate(["</s>", "<unk>", *pieces, "<pad>"])}


def write_folder(files: dict, folder: Path) -> None:
    """The files of one of `folders()`, written."""
    for name, content in files.items():
        if isinstance(content, bytes):
            (folder / name).write_bytes(content)
        else:
            (folder / name).write_text(json.dumps(content), encoding="utf-8")


def texts(name: str) -> list[str]:
    """With special tokens, codes of languages, unknown characters, and for Marian runs.

    Of runs transformers and SentencePiece make different pieces under T5.
    """
    draw = random.Random(0)
    words = [*SPECIAL, *WORDS, *(RUNS if "marian" in name else ())]
    made = ["".join(draw.choices(words, k=draw.randrange(1, 7))) for _ in range(120)]
    return ["", " ", ">>fra<< the cat", ">>fra<<", ">><<", ">>a b<<c</s>>>fra<<d", "Quiet", *made]


def answers(name: str, folder: Path, size: int) -> dict:
    """What transformers answers: ids of texts, and texts of random ids."""
    tokenizer = AutoTokenizer.from_pretrained(folder)
    draw = random.Random(1)
    rows = [[draw.randrange(size) for _ in range(draw.randrange(9))] for _ in range(200)]
    return {
        "texts": texts(name),
        "ids": tokenizer(texts(name), add_special_tokens=False).input_ids,
        "target_ids": tokenizer(text_target=texts(name), add_special_tokens=False).input_ids,
        "rows": rows,
        "decoded": [
            tokenizer.decode(row, skip_special_tokens=True, clean_up_tokenization_spaces=False)
            for row in rows
        ],
        "special_ids": [tokenizer.pad_token_id, tokenizer.unk_token_id, tokenizer.eos_token_id],
    }


def cases() -> dict[str, dict]:
    """For each folder its files and the answers; T5 also as the one file that is saved now."""
    found = {}
    for name, files in folders().items():
        with tempfile.TemporaryDirectory() as folder, tempfile.TemporaryDirectory() as saved:
            write_folder(files, Path(folder))
            tokenizer = AutoTokenizer.from_pretrained(folder)
            size = 1 + max(tokenizer.get_vocab().values())
            found[name] = {"files": files, **answers(name, Path(folder), size)}
            if name == "t5":
                tokenizer.save_pretrained(saved)
                fast = json.loads(Path(saved, "tokenizer.json").read_text())
                found["t5_fast"] = {**found[name], "files": {"tokenizer.json": fast}}
    return found


def _plain(content: bytes) -> str:
    return base64.b64encode(content).decode()


if __name__ == "__main__":
    content = json.dumps(cases(), ensure_ascii=False, default=_plain, separators=(",", ":"))
    Path(sys.argv[1]).write_text(content + "\n", encoding="utf-8")
