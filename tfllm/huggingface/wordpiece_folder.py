"""The files that describe BERT's tokenizer, read as `transformers` reads them."""

from pathlib import Path
from typing import Any

from tfllm.errors import UserError
from tfllm.huggingface.json_files import read_json
from tfllm.tokenizers.added_tokens import AddedToken
from tfllm.tokenizers.wordpiece import SPECIAL_TOKENS, WordPieceTokenizer
from tfllm.tokenizers.wordpiece_model import CONTINUATION

# Classes that `transformers` takes for BertTokenizer.
_BERT_CLASSES = {
    "BertTokenizer",
    "DistilBertTokenizer",
    "ElectraTokenizer",
    "LayoutLMTokenizer",
    "MobileBertTokenizer",
    "SqueezeBertTokenizer",
}

# The order in which special tokens that have no id get one.
_NAMES = ("bos", "eos", "unk", "sep", "pad", "cls", "mask")

DECODER = {"type": "WordPiece", "prefix": CONTINUATION, "cleanup": True}


class WordPieceFolder:
    """One folder with tokenizer files; what is wrong in their structure raises as Python has it.

    Args:
        folder: Path of the folder.

    Source:
        `PreTrainedTokenizerBase._from_pretrained`, `TokenizersBackend` and `BertTokenizer` of
        `transformers` 5.23.
    """

    def __init__(self, folder: Path):
        self.folder = folder
        self.fast = self._json("tokenizer.json")
        self.config = self._json("tokenizer_config.json")
        self.is_checkpoint = bool(self.config) or (folder / "config.json").exists()
        self.has_ids = "added_tokens_decoder" in self.config
        if not self.has_ids:
            self.config |= self._json("special_tokens_map.json")

    def _json(self, name: str) -> dict[str, Any]:
        path = self.folder / name
        return read_json(path) if path.exists() else {}

    def tokenizer(self) -> WordPieceTokenizer:
        pieces = self._fast_pieces() if self.fast else self._listed_pieces()
        kind = (self.config.get("tokenizer_class") or "").removesuffix("Fast")
        settings: dict[str, Any]
        if kind in _BERT_CLASSES or (not kind and (self.is_checkpoint or not self.fast)):
            special = self._special_tokens(SPECIAL_TOKENS)
            known = []
            settings = {
                "lowercase": self.config.get("do_lower_case", True),
                "strip_accents": self.config.get("strip_accents"),
                "tokenize_chinese_chars": self.config.get("tokenize_chinese_chars", True),
            }
        elif self.fast:
            special = self._special_tokens({})
            known = self.fast["added_tokens"]
            settings = self._fast_settings()
        else:
            raise UserError(
                f"{self.folder} is for a {kind}; without a tokenizer.json expected is one of "
                f"{', '.join(sorted(_BERT_CLASSES))}."
            )
        texts = {name: text for name, text in special.items() if name in SPECIAL_TOKENS}
        return WordPieceTokenizer(
            pieces,
            added_tokens=self._added_tokens(pieces, special, known),
            **{"special_tokens": texts} | settings,
        )

    def _fast_pieces(self) -> list[str]:
        model = self.fast["model"]
        if model.get("type", "WordPiece") != "WordPiece":
            raise UserError(
                f"{self.folder / 'tokenizer.json'} holds a {model['type']} model; expected a "
                "WordPiece model."
            )
        ids = model["vocab"]
        pieces = sorted(ids, key=ids.__getitem__)
        if [ids[piece] for piece in pieces] != list(range(len(pieces))):
            raise UserError(
                f"The ids of the vocabulary in {self.folder / 'tokenizer.json'} must be 0 to "
                f"{len(pieces) - 1}, each once."
            )
        return pieces

    def _listed_pieces(self) -> list[str]:
        try:
            text = (self.folder / "vocab.txt").read_text(encoding="utf-8")
        except OSError as error:
            raise UserError(
                f"{self.folder} holds no WordPiece tokenizer: it has no tokenizer.json, and its "
                f"vocab.txt cannot be read ({error.strerror})."
            ) from error
        return [line.rstrip() for line in text.removesuffix("\n").split("\n")]

    def _fast_settings(self) -> dict[str, Any]:
        model, rules = self.fast["model"], self.fast["normalizer"] or {}
        before = self.fast["pre_tokenizer"] or {}
        for name, found, expected in (
            ("normalizer", rules.get("type"), "BertNormalizer"),
            ("normalizer's clean_text", rules.get("clean_text"), True),
            ("pre_tokenizer", before.get("type"), "BertPreTokenizer"),
            ("model's prefix", model["continuing_subword_prefix"], CONTINUATION),
            ("decoder", self.fast["decoder"], DECODER),
        ):
            if found != expected:
                raise UserError(
                    f"The {name} in {self.folder / 'tokenizer.json'} is {found!r}; a "
                    f"WordPieceTokenizer has {expected!r}."
                )
        return {
            "lowercase": rules["lowercase"],
            "strip_accents": rules["strip_accents"],
            "tokenize_chinese_chars": rules["handle_chinese_chars"],
            "max_characters_per_word": model["max_input_chars_per_word"],
            "special_tokens": self._special_tokens({}) | {"unk": model["unk_token"]},
        }

    def _special_tokens(self, defaults) -> dict[str, str]:
        """Texts of the tokens that have a name."""
        found = {name: self.config.get(f"{name}_token", defaults.get(name)) for name in _NAMES}
        return {name: _text_of(token) for name, token in found.items() if token}

    def _added_tokens(self, pieces, special, known) -> list[AddedToken]:
        """What is recognised in texts, in the order in which tokens get ids."""
        extra = self.config.get("extra_special_tokens") or []
        extra = extra or self.config.get("additional_special_tokens") or []
        extra = list(extra.values()) if isinstance(extra, dict) else extra
        hidden = {*special.values(), *map(_text_of, extra)}
        named = [self.config[f"{name}_token"] for name in special if f"{name}_token" in self.config]
        listed = [*known, *self._listed_tokens(hidden)]
        flags: dict[str, dict] = {}
        for token in [*listed, *named, *extra]:
            if isinstance(token, dict):
                flags.setdefault(token["content"], token)
        ids = {piece: i for i, piece in enumerate(pieces)}
        added: dict[str, AddedToken] = {}
        for text in [*map(_text_of, listed), *special.values(), *map(_text_of, extra)]:
            given = flags.get(text, {})
            if given.get("single_word"):
                raise UserError(
                    f"{self.folder}: the added token {text!r} is for whole words only "
                    "(single_word), which a WordPieceTokenizer does not know."
                )
            is_special = bool(given.get("special")) or text in hidden
            next_id = max([len(pieces), *(token.id + 1 for token in added.values())])
            token = AddedToken(
                text,
                ids.get(text, next_id),
                lstrip=given.get("lstrip", False),
                rstrip=given.get("rstrip", False),
                hidden=is_special,
                normalized=given.get("normalized", not is_special),
            )
            added.setdefault(text, token)
        return list(added.values())

    def _listed_tokens(self, hidden) -> list[dict]:
        """Tokens that the files list with an id, in the order of the ids."""
        if self.has_ids:
            listed = {int(i): token for i, token in self.config["added_tokens_decoder"].items()}
        else:
            listed = {
                i: {"content": text, "special": text in hidden, "normalized": text not in hidden}
                for text, i in self._json("added_tokens.json").items()
            }
            listed |= {token["id"]: token for token in self.fast.get("added_tokens", [])}
        return [token for _, token in sorted(listed.items())]


def _text_of(token: str | dict) -> str:
    return token["content"] if isinstance(token, dict) else token
