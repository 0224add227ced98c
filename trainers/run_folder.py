"""The folder of a run: which recipe and data it belongs to, and whether it is finished."""

import contextlib
import dataclasses
import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

from tfllm.aside import locked, make_folder, write_file
from tfllm.errors import UserError
from tfllm.trainers.recipe import Recipe
from tfllm.trainers.surroundings import record_process

RECIPE = "recipe.json"
DATA = "data.json"
CHANGES = "changes.json"
RESULT = "result.json"
PROGRESS = "progress.json"
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
# What decides which variables there are, and so whether the checkpoints can be read.
_FIXED = ("task", "family", "model", "preset", "objective", "adaptation")
_DROPOUT = "model.dropout"


@contextlib.contextmanager
def open_run(
    folder: Path, recipe: Recipe, meta: dict[str, Any], *, accept_changes: bool = False
) -> Iterator[None]:
    """Writes what the run is trained by, or holds it against what it was begun by.

    Each process that opens it adds a line to its `processes.jsonl`, see `surroundings`.

    While the block runs, no other process can open the run.

    Args:
        folder: The run's folder; made if it is not there.
        recipe: The recipe to train by.
        meta: The meta.json of the data.
        accept_changes: Whether it may be another recipe than before, with the same variables, on
            the same data. What changed after which step is then added to `CHANGES`.

    Raises:
        UserError: if the folder cannot be made, if another process has the run open, or if the
            folder has weights that were trained by another recipe or on other data, with the
            differences.
    """
    busy = f"Another process trains in {folder}: wait for it to end, or take another run folder."
    with locked(make_folder(folder), busy):
        for stray in folder.glob(f".{PRESET}-*"):  # of a process that was killed
            shutil.rmtree(stray)
        changes = _changes(folder, recipe, meta)
        if changes:
            _require_accepted(folder, changes, accept_changes)
            _note(folder, changes)
        write_json(folder / RECIPE, dataclasses.asdict(recipe))
        write_json(folder / DATA, meta)
        record_process(folder)
        yield


class _Change(NamedTuple):
    """Of a value that decides the weights; a missing one is None."""

    before: Any
    after: Any


def _steps(folder: Path) -> list[int]:
    return [int(path.name.split("-")[1]) for path in (folder / CHECKPOINTS).glob("step-*")]


def begun_recipe(folder: Path) -> Recipe | None:
    """What the weights in the folder were trained by; None without weights or without a recipe."""
    path = folder / RECIPE
    if not path.is_file() or not (_steps(folder) or (folder / PRESET).exists()):
        return None
    return Recipe.from_json(path.read_text(encoding="utf-8"))


def _changes(folder: Path, recipe: Recipe, meta: dict[str, Any]) -> dict[str, _Change]:
    """By names such as "optimizer.beta_2" and "the data's splits.train.rows"."""
    if not _steps(folder) and not (folder / PRESET).exists():
        return {}
    for name in (RECIPE, DATA):
        if not (folder / name).is_file():
            raise UserError(
                f"{folder} has weights but no {name}, so nobody can tell what they were "
                "trained by: train in another run folder."
            )
    begun = Recipe.from_json((folder / RECIPE).read_text(encoding="utf-8"))
    data = json.loads((folder / DATA).read_text(encoding="utf-8"))
    return _differences(_decisive(begun), _decisive(recipe)) | _differences(
        data, meta, "the data's "
    )


def _require_accepted(folder: Path, changes: dict[str, _Change], accept: bool) -> None:
    told = "; ".join(f"{name} was {old}, is {new}" for name, (old, new) in changes.items())
    begun = f"{folder} was begun by another recipe ({told})."
    fixed = [name for name, change in changes.items() if _is_fixed(name, change)]
    if fixed:
        raise UserError(
            f"{begun} Put {', '.join(fixed)} back to go on, or train in another run folder."
        )
    if (folder / PRESET).exists():
        raise UserError(f"{begun} It is finished: train in another run folder.")
    if not accept:
        raise UserError(
            f"{begun} Put it back to go on, accept the changes (--accept-changes), or train in "
            "another run folder."
        )


def _is_fixed(name: str, change: _Change) -> bool:
    if name == "ema":  # the averages are variables
        return not (change.before and change.after)
    return name != _DROPOUT and (name.split(".")[0] in _FIXED or name.startswith("the data's "))


def _note(folder: Path, changes: dict[str, _Change]) -> None:
    """Adds what changed to the run's history."""
    path = folder / CHANGES
    history = json.loads(path.read_text(encoding="utf-8"))["changes"] if path.exists() else []
    changed = {name: change._asdict() for name, change in changes.items()}
    write_json(
        path, {"changes": [*history, {"after_step": max(_steps(folder)), "values": changed}]}
    )


def write_json(path: Path, values: dict[str, Any]) -> None:
    """Writes a file aside and renames it: the old one or the new one is there, whole."""
    write_file(path, json.dumps(values, indent=2, ensure_ascii=False) + "\n")


def _decisive(recipe: Recipe) -> dict[str, Any]:
    free = set(_FREE) - set(_DECIDES_BEST if recipe.patience else ())
    return {k: v for k, v in dataclasses.asdict(recipe).items() if k not in free}


def _differences(old: dict[str, Any], new: dict[str, Any], prefix: str = "") -> dict[str, _Change]:
    found: dict[str, _Change] = {}
    for name in sorted(old.keys() | new.keys()):
        change = _Change(old.get(name), new.get(name))
        if isinstance(change.before, dict) and isinstance(change.after, dict):
            found |= _differences(change.before, change.after, f"{prefix}{name}.")
        elif change.before != change.after:
            found[f"{prefix}{name}"] = change
    return found
