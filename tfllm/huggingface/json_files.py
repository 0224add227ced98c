"""Reading the JSON files of a checkpoint, which come from anywhere."""

import json
import os
from pathlib import Path
from typing import Any

from tfllm.errors import UserError


def read_json(path: str | os.PathLike[str]) -> dict[str, Any]:
    """Reads a file that holds one JSON object.

    Raises:
        UserError: it is not there, is no UTF-8 or no JSON, or holds something else than an object.
    """
    try:
        text = Path(path).read_bytes()
    except OSError as error:
        raise UserError(f"Cannot read {path}: {error.strerror}.") from None
    return parse_json(text, path)


def parse_json(text: bytes, where: object) -> dict[str, Any]:
    """Parses one JSON object; `where` names it in errors.

    Raises:
        UserError: `text` is no UTF-8, no JSON or no object, or a key comes twice.
    """
    try:
        found = json.loads(text.decode("utf-8"), object_pairs_hook=_without_doubles)
    except (ValueError, RecursionError) as error:
        raise UserError(f"{where} is damaged, it is no JSON: {error}") from None
    if not isinstance(found, dict):
        raise UserError(f"{where} must hold a JSON object, not a {type(found).__name__}.")
    return found


def _without_doubles(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        raise ValueError("a key comes twice")
    return found
