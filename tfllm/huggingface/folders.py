"""Writing the folder of a checkpoint, whole or not at all."""

import os
from collections.abc import Callable
from pathlib import Path

from tfllm.aside import write_folder


def write_checkpoint(folder: str | os.PathLike[str], write: Callable[[str], None]) -> None:
    """Lets `write` fill a folder beside `folder`, which then takes its place.

    Args:
        folder: Where the checkpoint shall be; an older checkpoint there is replaced.
        write: Called with the path to write config.json, weights and tokenizer into.

    Raises:
        UserError: there is something at `folder` that is not a checkpoint of Hugging Face.
    """
    write_folder(folder, write, "checkpoint of Hugging Face", _is_checkpoint)


def _is_checkpoint(folder: Path) -> bool:
    """A preset has a config.json too: it is never replaced by a checkpoint."""
    config = folder / "config.json"
    return config.is_file() and '"registered_name"' not in config.read_text(errors="replace")
