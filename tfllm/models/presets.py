"""Presets: folders that hold a whole model. Written aside and renamed, read from disk only."""

import json
import os
import re
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path

from tfllm.aside import install, make_folder
from tfllm.errors import UserError


def save_aside(folder: str | os.PathLike, write: Callable[[str], None]) -> None:
    """Lets `write` fill a folder beside `folder`, which then takes its place.

    A kill while `write` works leaves the old folder as it was. Folders cannot be exchanged in one
    step: a kill between the two renames leaves the old one beside, in `.NAME-old-…/preset`.

    Args:
        folder: Where the preset shall be; an older preset there is replaced.
        write: Called with the path to write into.

    Raises:
        UserError: there is something at `folder` that is not a preset.
    """
    target = Path(folder)
    if target.exists() and not (target / "config.json").is_file() and any(_entries(target)):
        raise UserError(
            f"{target} exists and is no preset (it has no config.json): choose another folder."
        )
    parent = make_folder(target.parent)
    aside = Path(tempfile.mkdtemp(prefix=f".{target.name}-", dir=parent))
    try:
        aside.chmod(0o755)
        write(str(aside))
        if target.exists():
            old = Path(tempfile.mkdtemp(prefix=f".{target.name}-old-", dir=parent))
            install(aside, target, replaced=old / "preset")
            shutil.rmtree(old)
        else:
            install(aside, target)
    finally:
        shutil.rmtree(aside, ignore_errors=True)


def _entries(target: Path):
    return target.iterdir() if target.is_dir() else [target]


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
