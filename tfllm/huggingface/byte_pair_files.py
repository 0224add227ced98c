"""Files of byte-level BPE tokenizers: tokenizer.json, or vocab.json with merges.txt."""

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tfllm.errors import UserError
from tfllm.huggingface.byte_pair_spec import (
    composes_of,
    first_token_of,
    model_of,
    spec_of,
    split_of,
)
from tfllm.huggingface.json_files import read_json
from tfllm.huggingface.special_tokens import SpecialTokens
from tfllm.tokenizers.byte_pair import BytePairTokenizer, read_merges, read_vocabulary

_END = "<|endoftext|>"
_ROBERTA = {"bos": "<s>", "eos": "</s>", "sep": "</s>", "cls": "<s>", "mask": "<mask>"}
_ROBERTA |= {"unk": "<unk>", "pad": "<pad>"}

# What a class of transformers takes for granted: its special tokens, and what its tokenizer.json
# would say.
_CLASSES: dict[str, tuple[dict[str, str], dict[str, Any] | None]] = {
    "GPT2Tokenizer": ({"bos": _END, "eos": _END, "unk": _END}, {"split": "gpt2"}),
    "RobertaTokenizer": (_ROBERTA, {"split": "gpt2", "first_token": "<s>"}),
    "BartTokenizer": (_ROBERTA, {"split": "gpt2", "first_token": "<s>"}),
    "Qwen2Tokenizer": (
        {"eos": _END, "unk": _END, "pad": _END},
        {"split": "qwen2", "composes": True},
    ),
}
# The class where none is named.
_BY_MODEL = {
    "gpt2": "GPT2Tokenizer",
    "gpt_neo": "GPT2Tokenizer",
    "gptj": "GPT2Tokenizer",
    "roberta": "RobertaTokenizer",
    "bart": "RobertaTokenizer",
    "qwen2": "Qwen2Tokenizer",
    "qwen3": "Qwen2Tokenizer",
}


def read_byte_pair(folder: str | os.PathLike[str]) -> BytePairTokenizer:
    """Reads the tokenizer of a folder that transformers wrote.

    tokenizer.json is what counts; without it, vocab.json and merges.txt are read as the class
    named in tokenizer_config.json, or else that of the model in config.json, does; without any of
    these, as GPT-2's. What a tokenizer puts at the end of a text is not read: models do that.

    Raises:
        UserError: a file is missing or damaged, or the tokenizer does something that is not
            supported; the message names it.

    Source:
        https://github.com/huggingface/tokenizers (tokenizer.json); transformers 5.23,
        tokenization_utils_tokenizers.py.
    """
    try:
        return _read(Path(folder))
    except (AttributeError, IndexError, KeyError, TypeError) as error:
        raise UserError(
            f"The tokenizer files in {folder} are damaged: {type(error).__name__} {error}."
        ) from error


def _read(folder: Path) -> BytePairTokenizer:
    config = _json_if_there(folder / "tokenizer_config.json")
    model_config = _json_if_there(folder / "config.json")
    spec = _json_if_there(folder / "tokenizer.json")
    kind = model_config.get("model_type", "" if spec else "gpt2")
    name = config.get("tokenizer_class") or model_config.get("tokenizer_class")
    name = (name or _BY_MODEL.get(kind, "")).removesuffix("Fast")
    defaults, settings = _CLASSES.get(name, ({}, None))
    spec = spec or _spec_of_class(folder, name, settings)
    model = model_of(spec, folder)
    split, add_prefix_space = split_of(spec.get("pre_tokenizer"), folder)
    if settings and split == "gpt2":  # these classes overrule the file
        add_prefix_space = bool(config.get("add_prefix_space"))
    composes = composes_of(spec.get("normalizer"), folder)
    special = SpecialTokens(
        folder,
        model["vocab"],
        spec.get("added_tokens") or (),
        normalizes=composes,
        defaults=defaults,
    )
    ids = {**model["vocab"], **{token.text: token.id for token in special.added_tokens}}
    first = first_token_of(spec.get("post_processor"), folder)
    if "add_bos_token" in config or "add_eos_token" in config:  # overrules the file, too
        begins = bool(config.get("add_bos_token")) and special.ids["bos"] >= 0
        first = None
    else:
        begins = first is not None
    return BytePairTokenizer(
        model["vocab"],
        [pair.split(" ") if isinstance(pair, str) else pair for pair in model["merges"]],
        split=split,
        composes=composes,
        add_prefix_space=add_prefix_space,
        ignore_merges=bool(model.get("ignore_merges")),
        bos_id=special.ids["bos"] if first is None else ids[first],
        eos_id=special.ids["eos"],
        pad_id=special.ids["pad"],
        unk_id=special.ids["unk"],
        added_tokens=special.added_tokens,
        begins_with_bos=begins,
    )


def _json_if_there(path: Path) -> dict[str, Any]:
    return read_json(path) if path.exists() else {}


def _spec_of_class(folder: Path, name: str, settings: Mapping[str, Any] | None) -> dict[str, Any]:
    if settings is None:
        raise UserError(
            f"{folder} has no tokenizer.json, and its tokenizer is of the class {name or 'unknown'}"
            f": vocab.json and merges.txt are read for {', '.join(_CLASSES)}. Let transformers "
            "write a tokenizer.json: AutoTokenizer.from_pretrained(folder).save_pretrained(folder)."
        )
    vocabulary = read_vocabulary(folder / "vocab.json")
    return spec_of(vocabulary, read_merges(folder / "merges.txt"), **settings)


def write_byte_pair(tokenizer: BytePairTokenizer, folder: str | os.PathLike[str]) -> None:
    """Writes the files from which transformers reads the same tokenizer, into an existing folder.

    They are vocab.json, merges.txt, tokenizer.json, tokenizer_config.json and
    special_tokens_map.json.

    Raises:
        UserError: if a special id is no added token: transformers would make it one.
    """
    folder = Path(folder)
    added_ids = {token.id for token in tokenizer.added_tokens}
    for name in ("bos", "eos", "pad", "unk"):
        if getattr(tokenizer, f"{name}_id") not in {-1, *added_ids}:
            raise UserError(
                f"{name}_id={getattr(tokenizer, f'{name}_id')} is none of the added tokens, which "
                "transformers expects of it: name it in `added_tokens`."
            )
    tokenizer.save_assets(os.fspath(folder))
    begins = tokenizer.begins_with_bos and tokenizer.bos_id >= 0
    names = {
        f"{name}_token": tokenizer.id_to_token(getattr(tokenizer, f"{name}_id"))
        for name in ("bos", "eos", "pad", "unk")
        if getattr(tokenizer, f"{name}_id") >= 0
    }
    added = [
        {
            "id": token.id,
            "content": token.text,
            "single_word": False,
            "lstrip": token.lstrip,
            "rstrip": token.rstrip,
            "normalized": False,
            "special": token.hidden,
        }
        for token in sorted(tokenizer.added_tokens, key=lambda token: token.id)
    ]
    spec = spec_of(
        tokenizer.vocabulary,
        tokenizer.merges,
        split=tokenizer.split,
        composes=tokenizer.composes,
        add_prefix_space=tokenizer.add_prefix_space,
        ignore_merges=tokenizer.ignore_merges,
        first_token=names["bos_token"] if begins else None,
        first_id=tokenizer.bos_id,
    )
    plain = (tokenizer.split, tokenizer.composes, tokenizer.ignore_merges, begins)
    config = {
        "tokenizer_class": "PreTrainedTokenizerFast",  # reads tokenizer.json as it stands
        "add_prefix_space": tokenizer.add_prefix_space,
        "added_tokens_decoder": {
            str(entry["id"]): {key: entry[key] for key in entry if key != "id"} for entry in added
        },
        "clean_up_tokenization_spaces": False,
        **dict.fromkeys(("bos_token", "eos_token", "pad_token", "unk_token")),
        **names,
    }
    if plain == ("gpt2", False, False, False):
        config["tokenizer_class"] = "GPT2Tokenizer"
    for name, content in (
        ("tokenizer.json", {**spec, "added_tokens": added}),
        ("tokenizer_config.json", config),
        ("special_tokens_map.json", names),
    ):
        (folder / name).write_text(
            json.dumps(content, ensure_ascii=False, indent=2) + "\n", encoding="utf-8"
        )
