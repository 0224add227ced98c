"""Presets: folders that hold a whole model. Written aside and renamed, read from disk only."""

import json
import os
import re
from collections.abc import Callable
from pathlib import Path

from tfllm.aside import write_folder
from tfllm.errors import UserError


def save_aside(folder: str | os.PathLike, write: Callable[[str], None]) -> None:
    """Lets `write` fill a folder beside `folder`, which then takes its place.

    Args:
        folder: Where the preset shall be; an older preset there is replaced.
        write: Called with the path to write into.

    Raises:
        UserError: there is something at `folder` that is not a preset.
    """
    write_folder(folder, write, "preset", _is_preset)


def _is_preset(folder: Path) -> bool:
    """A checkpoint of Hugging Face has a config.json too: it is never replaced by a preset."""
    config = folder / "config.json"
    return config.is_file() and '"registered_name"' in config.read_text(errors="replace")


def compute_in_float32(folder: str | os.PathLike) -> None:
    """Takes the mixed precision of training out of a preset's configuration.

    A mixed policy says how to compute; what is stored is float32 all the same. KerasHub's
    `from_preset` refuses a preset that names one ("Invalid dtype: mixed_bfloat16").

    Args:
        folder: A preset that is being written.
    """
    for path in Path(folder).glob("*.json"):
        text = path.read_text(encoding="utf-8")
        path.write_text(re.sub('"mixed_b?float16"', '"float32"', text), encoding="utf-8")


def require_preset(folder: str | os.PathLike) -> str:
    """Refuses what is not a preset on this disk; nothing is ever downloaded.

    Args:
        folder: A folder that `save_to_preset` wrote.

    Returns:
        Its path.

    Raises:
        UserError: it does not exist, or holds no model of Keras.
    """
    config = Path(folder) / "config.json"
    if not config.is_file():
        raise UserError(
            f"No preset at {folder}: expected a folder with config.json, as `tfllm train` or "
            "`model.save_to_preset` writes it. Presets are read from disk, never downloaded."
        )
    try:
        found = json.loads(config.read_text(encoding="utf-8"))
    except ValueError as error:
        raise UserError(f"{config} is damaged: {error}") from None
    if "registered_name" not in found:
        raise UserError(f"{config} describes no Keras model: it has no `registered_name`.")
    return str(folder)
