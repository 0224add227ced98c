"""The folder of a run: which recipe and data it belongs to, and whether it is finished."""

import contextlib
import dataclasses
import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from tfllm.aside import locked, make_folder, write_file
from tfllm.errors import UserError
from tfllm.trainers.recipe import Recipe

RECIPE = "recipe.json"
DATA = "data.json"
RESULT = "result.json"
CHECKPOINTS = "checkpoints"
BEST = "best"
PRESET = "preset"

# What may differ when a run goes on, because no weight depends on it. The data's folder may have
# moved; what is in it may not have changed.
_FREE = (
    "name",
    "data",
    "validate_every",
    "validation_steps",
    "checkpoint_every",
    "keep_checkpoints",
    "sample_prompts",
)
# What decides which weights are the best ones, where they are looked for.
_DECIDES_BEST = ("validate_every", "validation_steps")


@contextlib.contextmanager
def open_run(folder: Path, recipe: Recipe, meta: dict[str, Any]) -> Iterator[None]:
    """Writes what the run is trained by, or holds it against what it was begun by.

    While the block runs, no other process can open the run.

    Args:
        folder: The run's folder; made if it is not there.
        recipe: The recipe to train by.
        meta: The meta.json of the data.

    Raises:
        UserError: if the folder cannot be made, if another process has the run open, or if the
            folder has weights that were trained by another recipe or on other data, with the
            differences.
    """
    busy = f"Another process trains in {folder}: wait for it to end, or take another run folder."
    with locked(make_folder(folder), busy):
        for stray in folder.glob(f".{PRESET}-*"):  # of a process that was killed
            shutil.rmtree(stray)
        _check_begun(folder, recipe, meta)
        write_json(folder / RECIPE, dataclasses.asdict(recipe))
        write_json(folder / DATA, meta)
        yield


def _check_begun(folder: Path, recipe: Recipe, meta: dict[str, Any]) -> None:
    if any((folder / CHECKPOINTS).glob("step-*")) or (folder / PRESET).exists():
        for name in (RECIPE, DATA):
            if not (folder / name).is_file():
                raise UserError(
                    f"{folder} has weights but no {name}, so nobody can tell what they were "
                    "trained by: train in another run folder."
                )
        begun = Recipe.from_json((folder / RECIPE).read_text(encoding="utf-8"))
        different = _differences(_decisive(begun), _decisive(recipe))
        different += _differences(json.loads((folder / DATA).read_text(encoding="utf-8")), meta)
        if different:
            raise UserError(
                f"{folder} was begun by another recipe ({'; '.join(different)}). "
                "Put it back to go on, or train in another run folder."
            )


def write_json(path: Path, values: dict[str, Any]) -> None:
    """Writes a file aside and renames it: the old one or the new one is there, whole."""
    write_file(path, json.dumps(values, indent=2, ensure_ascii=False) + "\n")


def _decisive(recipe: Recipe) -> dict[str, Any]:
    free = set(_FREE) - set(_DECIDES_BEST if recipe.patience else ())
    return {k: v for k, v in dataclasses.asdict(recipe).items() if k not in free}


def _differences(old: dict[str, Any], new: dict[str, Any], prefix: str = "") -> list[str]:
    """As in "optimizer.beta_2 was 0.95, is 0.99"."""
    found = []
    for name in sorted(old.keys() | new.keys()):
        before, after = old.get(name), new.get(name)
        if isinstance(before, dict) and isinstance(after, dict):
            found += _differences(before, after, f"{prefix}{name}.")
        elif before != after:
            found.append(f"{prefix}{name} was {before}, is {after}")
    return found
