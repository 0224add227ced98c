"""The chat template of a folder of Hugging Face, in both directions."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tfllm.chat import ChatTemplate
from tfllm.errors import UserError
from tfllm.huggingface.json_files import read_json
from tfllm.tokenizers import Tokenizer

_FILE = "chat_template.jinja"
_CONFIG = "tokenizer_config.json"


def read_chat_template(folder: Path, tokenizer: Tokenizer) -> ChatTemplate | None:
    """The template that belongs to a tokenizer; None where the folder has none.

    Its special tokens are the tokenizer's, and those of its added tokens that the template writes.

    Args:
        folder: With chat_template.jinja, or an entry `chat_template` in tokenizer_config.json.
        tokenizer: Of that folder.

    Raises:
        UserError: a file is damaged, or holds several templates of which none is the default.

    Source:
        `PreTrainedTokenizerBase` of `transformers` 5.23: a file goes before the entry.
    """
    config = read_json(folder / _CONFIG) if (folder / _CONFIG).exists() else {}
    template: str | None
    if (folder / _FILE).exists():
        try:
            template = (folder / _FILE).read_text(encoding="utf-8")
        except ValueError as error:
            raise UserError(f"{folder / _FILE} is damaged: {error}.") from None
    else:
        template = _default(folder, config.get("chat_template"))
    if not template:
        return None
    marks = [token for token in tokenizer.added_tokens if token.text.strip()]
    # Such as <think>, which a template looks for in what the assistant wrote.
    written = tuple(token.text for token in marks if not token.hidden and token.text in template)
    return ChatTemplate(
        template,
        bos_token=_named(config, "bos", tokenizer),
        eos_token=_named(config, "eos", tokenizer),
        special_tokens=(*(token.text for token in marks if token.hidden), *written),
        assistant_tokens=written,
    )


def write_chat_template(tokenizer: Tokenizer, folder: Path) -> None:
    """Writes chat_template.jinja, beside the tokenizer's other files, if there is a template."""
    template = tokenizer.chat_template
    if template is None:
        return
    (folder / _FILE).write_text(template.template, encoding="utf-8")
    path = folder / _CONFIG
    config = read_json(path) if path.exists() else {}
    for name in ("bos", "eos"):
        config.setdefault(f"{name}_token", getattr(template, f"{name}_token") or None)
    path.write_text(json.dumps(config, ensure_ascii=False, indent=2) + "\n", encoding="utf-8")


def _default(folder: Path, found: Any) -> str | None:
    """The entry is a template, or a list of several with their names."""
    if found is None or isinstance(found, str):
        return found
    try:
        several = {entry["name"]: entry["template"] for entry in found}
    except (KeyError, TypeError):
        several = {}
    if not isinstance(several.get("default"), str):
        raise UserError(
            f"{folder / _CONFIG}: expected chat_template to be a text, or a list of templates with "
            f"one named default; got {repr(found)[:60]}."
        )
    return several["default"]


def _named(config: Mapping[str, Any], name: str, tokenizer: Tokenizer) -> str:
    """What the file says, also that there is none; else the tokenizer's own."""
    if f"{name}_token" in config:
        token = config[f"{name}_token"]
        return (token["content"] if isinstance(token, Mapping) else token) or ""
    token_id = getattr(tokenizer, f"{name}_id")
    return tokenizer.id_to_token(token_id) if token_id >= 0 else ""
