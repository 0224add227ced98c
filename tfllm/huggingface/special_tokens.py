"""Added and special tokens, which are spread over the files of a tokenizer of Hugging Face."""

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from tfllm.errors import UserError
from tfllm.huggingface.json_files import read_json
from tfllm.tokenizers.added_tokens import AddedToken

# In the order in which transformers gives ids to those that have none yet.
NAMES = ("bos", "eos", "unk", "sep", "pad", "cls", "mask")


class SpecialTokens:
    """The tokens that are recognised in a text before anything else.

    Args:
        folder: With any of tokenizer_config.json, special_tokens_map.json, added_tokens.json.
        vocabulary: Id of each token of the model.
        added: `added_tokens` of tokenizer.json.
        normalizes: Whether the tokenizer changes texts before it cuts them.
        defaults: Of the tokenizer's class: the token of a name that no file mentions.

    Attributes:
        added_tokens: All of them, by id.
        ids: The id of each name of `NAMES`; -1 where there is none.

    Raises:
        UserError: a file is damaged, or a token has a flag that is not supported and matters.
    """

    def __init__(
        self,
        folder: Path,
        vocabulary: Mapping[str, int],
        added: Iterable[Mapping[str, Any]],
        *,
        normalizes: bool,
        defaults: Mapping[str, str],
    ):
        config = _read(folder / "tokenizer_config.json")
        named = {**defaults, **_named(_read(folder / "special_tokens_map.json")), **_named(config)}
        entries: dict[str, dict] = {}
        for token, token_id in _read(folder / "added_tokens.json").items():
            entries[token] = {"content": token, "id": token_id}
        decoder = config.get("added_tokens_decoder") or {}
        for entry in (*added, *({**entry, "id": int(i)} for i, entry in decoder.items())):
            entries[entry["content"]] = dict(entry)
        extra = [token for key in _EXTRA for token in config.get(key) or ()]
        self._taken = {token_id: token for token, token_id in vocabulary.items()}
        for entry in entries.values():
            entry["id"] = vocabulary.get(entry["content"], entry["id"])
            if self._taken.setdefault(entry["id"], entry["content"]) != entry["content"]:
                raise UserError(
                    f"{folder} gives the id {entry['id']} to two tokens, "
                    f"{self._taken[entry['id']]!r} and {entry['content']!r}."
                )
        for token in (*(named.get(name) for name in NAMES), *extra):
            if token:
                flags = token if isinstance(token, Mapping) else {"content": token}
                entry = entries.setdefault(flags["content"], {"normalized": False, **flags})
                entry["special"] = True
                if "id" not in entry:
                    entry["id"] = vocabulary.get(flags["content"], 1 + max(self._taken, default=-1))
                    self._taken[entry["id"]] = flags["content"]
        _refuse_what_matters(list(entries.values()), normalizes)
        self.added_tokens = sorted(
            (
                AddedToken(
                    entry["content"],
                    entry["id"],
                    bool(entry.get("lstrip")),
                    bool(entry.get("rstrip")),
                    bool(entry.get("special")),
                )
                for entry in entries.values()
            ),
            key=lambda token: token.id,
        )
        ids = {token.text: token.id for token in self.added_tokens}
        self.ids = {name: ids.get(_content(named.get(name)), -1) for name in NAMES}


_EXTRA = ("additional_special_tokens", "extra_special_tokens")


def _read(path: Path) -> dict[str, Any]:
    return read_json(path) if path.exists() else {}


def _named(config: Mapping[str, Any]) -> dict[str, Any]:
    return {name: config[f"{name}_token"] for name in NAMES if f"{name}_token" in config}


def _content(token) -> str:
    return token["content"] if isinstance(token, Mapping) else token or ""


def _refuse_what_matters(entries: list[dict], normalizes: bool) -> None:
    """Refuses flags by which transformers would read some text otherwise than we do."""
    late = [entry for entry in entries if entry.get("normalized", not entry.get("special"))]
    early = [entry for entry in entries if entry not in late]
    for entry in entries:
        if entry.get("single_word"):
            raise UserError(
                f"The added token {entry['content']!r} is recognised as a word of its own only "
                "(single_word), which is not supported."
            )
    changed = [entry["content"] for entry in late if _composition_matters(entry["content"])]
    if changed and normalizes:
        raise UserError(
            f"The added token {changed[0]!r} is looked for in the normalized text (normalized), "
            "which is not supported for a tokenizer that normalizes."
        )
    for one, other in ((one, other) for one in early for other in late):
        if _overlap(one["content"], other["content"]):
            raise UserError(
                f"The added tokens {one['content']!r} and {other['content']!r} overlap, and the "
                "one is looked for before the other (normalized), which is not supported."
            )
    blank = [entry["content"] for entry in entries if entry["content"] != entry["content"].strip()]
    for entry in entries:
        if blank and (entry.get("lstrip") or entry.get("rstrip")):
            raise UserError(
                f"The added token {entry['content']!r} takes white space beside it (lstrip, "
                f"rstrip), and {blank[0]!r} begins or ends with some, which is not supported."
            )


def _composition_matters(token: str) -> bool:
    """Whether the normalization form C of a text may hold the token more often, or less.

    Not if all of it is ASCII, no other character becomes one of it (as the Kelvin sign becomes K),
    and its last one takes no mark.
    """
    last = token[-1:]
    return not token.isascii() or bool(set(token) & set("K;`")) or last.isalpha() or last in "<=>"


def _overlap(one: str, other: str) -> bool:
    """Whether there is a text in which the two share a character."""
    if one in other or other in one:
        return True
    return any(
        first.endswith(second[:size])
        for first, second in ((one, other), (other, one))
        for size in range(1, min(len(one), len(other)))
    )
