"""The parts of a tokenizer.json of byte-level BPE, and what they mean here."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from tfllm.errors import UserError
from tfllm.tokenizers.byte_alphabet import ALPHABET
from tfllm.tokenizers.splitting import PATTERNS

_Part = Mapping[str, Any] | None


def model_of(spec: Mapping[str, Any], folder: Path) -> Mapping[str, Any]:
    model = spec.get("model") or {}
    if model.get("type", "BPE") != "BPE" or not {"vocab", "merges"} <= model.keys():
        raise UserError(f"The tokenizer of {folder} is no BPE: {model.get('type')!r}.")
    for key in ("dropout", "continuing_subword_prefix", "end_of_word_suffix", "byte_fallback"):
        if model.get(key):
            raise UserError(f"{key}={model[key]!r} of the BPE model in {folder} is not supported.")
    if model.get("unk_token") and not set(ALPHABET) <= model["vocab"].keys():
        raise UserError(
            f"The BPE model in {folder} has an unk_token and lacks some of the 256 bytes, so it is "
            "not a byte-level one, which is not supported."
        )
    if (spec.get("decoder") or {}).get("type") != "ByteLevel":
        raise UserError(f"The tokenizer of {folder} has no ByteLevel decoder; it is no byte BPE.")
    return model


def split_of(pre_tokenizer: _Part, folder: Path) -> tuple[str, bool]:
    """The name of the pattern, and whether a prefix space is added."""
    steps = [pre_tokenizer or {}]
    if steps[0].get("type") == "Sequence":
        steps = steps[0]["pretokenizers"]
    *first, last = steps or [{}]
    spaced = last.get("add_prefix_space", True)
    kind = [step.get("type") for step in steps]
    if kind == ["ByteLevel"] and last.get("use_regex", True):
        return "gpt2", spaced
    if kind == ["Digits", "ByteLevel"] and last.get("use_regex", True) and not spaced:
        if first[0].get("individual_digits"):
            return "starcoder", False
    elif kind == ["Split", "ByteLevel"] and not last.get("use_regex", True):
        pattern = first[0].get("pattern", {}).get("Regex")
        isolated = first[0].get("behavior") == "Isolated" and not first[0].get("invert")
        for name in ("gpt2", "llama3", "qwen2"):
            if isolated and pattern == PATTERNS[name] and not last.get("add_prefix_space"):
                return name, False
    known = "\n".join(f"  {name}: {pattern}" for name, pattern in PATTERNS.items())
    raise UserError(
        f"The way in which the tokenizer of {folder} cuts texts is not known: {pre_tokenizer}. "
        f"Known are\n{known}"
    )


def composes_of(normalizer: _Part, folder: Path) -> bool:
    steps = [normalizer] if normalizer else []
    if normalizer and normalizer.get("type") == "Sequence":
        steps = normalizer["normalizers"]
    if any(step != {"type": "NFC"} for step in steps):
        raise UserError(
            f"The normalizer of the tokenizer of {folder} is not known: {normalizer}. Known are "
            "none, and NFC."
        )
    return bool(steps)


def first_token_of(post_processor: _Part, folder: Path) -> str | None:
    """The token that begins every text, if one does."""
    steps = [post_processor] if post_processor else []
    if post_processor and post_processor.get("type") == "Sequence":
        steps = post_processor["processors"]
    before: list[str] = []
    for step in steps:
        if step["type"] == "TemplateProcessing":
            kinds = [next(iter(item.items())) for item in step["single"]]
            place = [kind for kind, _ in kinds].index("Sequence")
            before += [item["id"] for _, item in kinds[:place]]
        elif step["type"] in ("RobertaProcessing", "BertProcessing"):
            before.append(step["cls"][0])
        elif step["type"] != "ByteLevel":
            raise UserError(
                f"The post-processor of the tokenizer of {folder} is not known: {step['type']}."
            )
    if len(before) > 1:
        raise UserError(
            f"The tokenizer of {folder} begins every text with {len(before)} tokens, {before}; "
            "supported is one."
        )
    return before[0] if before else None


def spec_of(
    vocabulary: Mapping[str, int],
    merges: Sequence[tuple[str, ...]],
    *,
    split: str,
    composes: bool = False,
    add_prefix_space: bool = False,
    ignore_merges: bool = False,
    first_token: str | None = None,
    first_id: int = 0,
) -> dict[str, Any]:
    """What tokenizer.json holds for these settings of `BytePairTokenizer`, but for added tokens."""
    bytes_only = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True}
    bytes_only["use_regex"] = False
    by_pattern = bytes_only | {"use_regex": True, "add_prefix_space": add_prefix_space}
    if split == "gpt2":
        cut = by_pattern
    else:
        first = {"type": "Digits", "individual_digits": True}
        if split != "starcoder":
            pattern = {"Regex": PATTERNS[split]}
            first = {"type": "Split", "pattern": pattern, "behavior": "Isolated", "invert": False}
        last = by_pattern if split == "starcoder" else bytes_only
        cut = {"type": "Sequence", "pretokenizers": [first, last]}
    template = None
    if first_token is not None:
        special = {"SpecialToken": {"id": first_token, "type_id": 0}}
        one, two = ({"Sequence": {"id": name, "type_id": i}} for i, name in enumerate("AB"))
        template = {
            "type": "TemplateProcessing",
            "single": [special, one],
            "pair": [special, one, special, two],
            "special_tokens": {
                first_token: {"id": first_token, "ids": [first_id], "tokens": [first_token]}
            },
        }
    return {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": [],
        "normalizer": {"type": "NFC"} if composes else None,
        "pre_tokenizer": cut,
        "post_processor": template or by_pattern,
        "decoder": {**bytes_only, "use_regex": True},
        "model": {
            "type": "BPE",
            "dropout": None,
            "unk_token": None,
            "continuing_subword_prefix": None,
            "end_of_word_suffix": None,
            "fuse_unk": False,
            "byte_fallback": False,
            "ignore_merges": ignore_merges,
            "vocab": dict(vocabulary),
            "merges": [list(pair) for pair in merges],
        },
    }
