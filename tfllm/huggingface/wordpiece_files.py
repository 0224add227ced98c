"""BERT's tokenizer in the files of Hugging Face."""

import json
import os
from pathlib import Path
from typing import Any

from tfllm.errors import UserError
from tfllm.huggingface.wordpiece_folder import DECODER, WordPieceFolder
from tfllm.tokenizers.added_tokens import AddedToken
from tfllm.tokenizers.wordpiece import SPECIAL_TOKENS, WordPieceTokenizer
from tfllm.tokenizers.wordpiece_model import CONTINUATION

_LONGEST_WORD = 100  # of BertTokenizer
_ANY_CLASS = "PreTrainedTokenizerFast"  # takes tokenizer.json as it is


def read_wordpiece(folder: str | os.PathLike[str]) -> WordPieceTokenizer:
    """The tokenizer of a checkpoint of the BERT family, as `AutoTokenizer` makes it.

    The vocabulary is that of tokenizer.json, or of vocab.txt where there is none. For BERT's
    classes, and where none is named, tokenizer_config.json says how texts are normalized (lower
    case, if it says nothing), whatever tokenizer.json says; for others it is tokenizer.json.
    Special tokens that the vocabulary has not get the next ids.

    Raises:
        UserError: if there is no vocabulary, a file is damaged, or it asks for what
            `WordPieceTokenizer` does not do.
    """
    try:
        return WordPieceFolder(Path(folder)).tokenizer()
    except (KeyError, TypeError, AttributeError, ValueError) as error:
        raise UserError(
            f"The tokenizer files in {folder} are not as `transformers` writes them: "
            f"{type(error).__name__} {error}."
        ) from error


def write_wordpiece(
    tokenizer: WordPieceTokenizer, folder: str | os.PathLike[str], *, max_length: int | None = None
) -> None:
    """Writes vocab.txt, tokenizer.json and tokenizer_config.json, for `AutoTokenizer`.

    The class is BertTokenizer where that can be the same tokenizer: with its five special tokens
    and its longest word.

    Args:
        tokenizer: What to write.
        folder: An existing one.
        max_length: Of the model, in tokens; None to say nothing about it.

    Source:
        The format of tokenizer.json is that of Hugging Face `tokenizers` 0.23.
    """
    folder = Path(folder)
    added = sorted(tokenizer.added_tokens, key=lambda token: token.id)
    known = {token.text for token in added}
    special = {name: text for name, text in tokenizer.special_tokens.items() if text in known}
    is_bert = len(special) == len(SPECIAL_TOKENS) and (
        tokenizer.max_characters_per_word == _LONGEST_WORD
    )
    listed = {token.id: _listed(token) for token in added}
    config: dict[str, Any] = {
        "tokenizer_class": "BertTokenizer" if is_bert else _ANY_CLASS,
        "do_lower_case": tokenizer.lowercase,
        "strip_accents": tokenizer.strip_accents,
        "tokenize_chinese_chars": tokenizer.tokenize_chinese_chars,
        **{f"{name}_token": text for name, text in special.items()},
        "added_tokens_decoder": {str(i): token for i, token in listed.items()},
    }
    if max_length is not None:
        config["model_max_length"] = max_length
    fast = {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": [{"id": i, **token} for i, token in listed.items()],
        "normalizer": {
            "type": "BertNormalizer",
            "clean_text": True,
            "handle_chinese_chars": tokenizer.tokenize_chinese_chars,
            "strip_accents": tokenizer.strip_accents,
            "lowercase": tokenizer.lowercase,
        },
        "pre_tokenizer": {"type": "BertPreTokenizer"},
        "post_processor": _template(tokenizer),
        "decoder": DECODER,
        "model": {
            "type": "WordPiece",
            "unk_token": tokenizer.special_tokens["unk"],
            "continuing_subword_prefix": CONTINUATION,
            "max_input_chars_per_word": tokenizer.max_characters_per_word,
            "vocab": {piece: i for i, piece in enumerate(tokenizer.pieces)},
        },
    }
    tokenizer.save_assets(os.fspath(folder))
    for name, content in (("tokenizer_config.json", config), ("tokenizer.json", fast)):
        (folder / name).write_text(
            json.dumps(content, ensure_ascii=False, indent=2) + "\n", encoding="utf-8"
        )


def _listed(token: AddedToken) -> dict[str, Any]:
    return {
        "content": token.text,
        "single_word": False,
        "lstrip": token.lstrip,
        "rstrip": token.rstrip,
        "normalized": token.normalized,
        "special": token.hidden,
    }


def _template(tokenizer) -> dict[str, Any] | None:
    """What stands around one text and around two."""
    if min(tokenizer.cls_id, tokenizer.sep_id) < 0:
        return None

    def sequence(letter, segment):
        return {"Sequence": {"id": letter, "type_id": segment}}

    def special(name, segment):
        return {"SpecialToken": {"id": tokenizer.special_tokens[name], "type_id": segment}}

    one = [special("cls", 0), sequence("A", 0), special("sep", 0)]
    return {
        "type": "TemplateProcessing",
        "single": one,
        "pair": [*one, sequence("B", 1), special("sep", 1)],
        "special_tokens": {
            text: {"id": text, "ids": [tokenizer.token_to_id(text)], "tokens": [text]}
            for text in (tokenizer.special_tokens["cls"], tokenizer.special_tokens["sep"])
        },
    }
