"""Runs side by side: how far each is, what it reached, and in what their recipes differ."""

import dataclasses
import json
import os
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from tfllm.aside import locked
from tfllm.errors import UserError
from tfllm.trainers import run_folder
from tfllm.trainers.hyperparameters import flat
from tfllm.trainers.recipe import Recipe
from tfllm.trainers.settings import check_name
from tfllm.trainers.surroundings import processes

_COLUMNS = ("run", "state", "steps", "loss", "validation_loss", "tokens_per_second", "precision")
_SHOWN_ANYWAY = frozenset(("name", "precision", "steps"))


def compare_runs(
    folders: Iterable[str | os.PathLike[str]] = (),
    *,
    sort: str | None = None,
    columns: Sequence[str] = (),
) -> list[dict[str, Any]]:
    """What each run is and reached, as flat rows.

    Args:
        folders: Of runs, or of folders of runs; `runs` without one.
        sort: A column; runs without a value there come last.
        columns: Of the rows; all that are known by default.

    Returns:
        Of each run `run`, `state` (finished, running, stopped, or unreadable with the `reason`),
        `steps`, `loss`, `tokens_per_second`, `mfu`, `packing_efficiency` and `validation_…` as far
        as they are known, `precision`, `machine`, and the values of its recipe in which the runs
        differ.

    Raises:
        UserError: there is no such folder, or no run has the column.
    """
    rows, recipes = [], []
    for folder in _runs(list(folders) or ["runs"]):
        row, recipe = read_run(folder)
        rows.append(row)
        recipes.append(recipe)
    different = iter(_different([recipe for recipe in recipes if recipe is not None]))
    for row, recipe in zip(rows, recipes, strict=True):
        if recipe is not None:
            row |= next(different)
    known = list(dict.fromkeys(name for row in rows for name in row))
    for name in (*columns, *([sort] if sort else [])):
        check_name(name, known, "the columns of these runs")
    if sort:
        rows.sort(key=lambda row: _order(row.get(sort)))
    return [{name: row[name] for name in columns or row if name in row} for row in rows]


def _order(value: Any) -> tuple:
    if value is None:
        return 2, 0, ""
    is_number = isinstance(value, int | float)
    return (0, value, "") if is_number else (1, 0, str(value))


def _runs(folders: list[str | os.PathLike[str]]) -> list[Path]:
    found = []
    for folder in map(Path, folders):
        if not folder.is_dir():
            raise UserError(f"There is no folder {folder}: give those of runs, or one above them.")
        below = sorted(path.parent for path in folder.glob(f"*/{run_folder.RECIPE}"))
        is_run = (folder / run_folder.RECIPE).exists()
        found += [folder] if is_run or not below else below
    return found


def read_run(folder: Path) -> tuple[dict[str, Any], dict[str, Any] | None]:
    """A row of `compare_runs`, and the run's recipe with dots in its names; None if unreadable."""
    try:
        recipe = Recipe.from_json((folder / run_folder.RECIPE).read_text(encoding="utf-8"))
        is_finished = (folder / run_folder.PRESET).exists()
        result = _read(folder / run_folder.RESULT) if is_finished else {}
        progress = _read(folder / run_folder.PROGRESS)
    except (OSError, ValueError, UserError) as error:
        reason = str(error).splitlines()[0]
        return {"run": str(folder), "state": "unreadable", "reason": reason}, None
    state = "finished" if is_finished else "running" if _is_held(folder) else "stopped"
    validation = result.get("metrics") or progress.get("validation") or {}
    machine: dict[str, Any] = next(
        (p["machine"] for p in reversed(processes(folder)) if "machine" in p), {}
    )
    row = {
        "run": str(folder),
        "state": state,
        "steps": result.get("steps", progress.get("step", 0)),
        "of": recipe.steps,
        "loss": progress.get("loss"),
        **{f"validation_{name}": value for name, value in validation.items()},
        "tokens_per_second": result.get("tokens_per_second", progress.get("tokens_per_second")),
        "mfu": progress.get("mfu"),
        "packing_efficiency": progress.get("packing_efficiency"),
        "precision": recipe.precision,
        "machine": ", ".join(machine.get("accelerators") or []) or machine.get("cpu"),
    }
    values = dict(flat(dataclasses.asdict(recipe)))
    return {name: value for name, value in row.items() if value is not None}, values


def _read(path: Path) -> dict[str, Any]:
    """A JSON object; {} for a file that is not there yet."""
    if not path.exists():
        return {}
    values = json.loads(path.read_text(encoding="utf-8"))
    if not isinstance(values, dict):
        raise UserError(f"{path} holds no JSON object.")
    return values


def _is_held(folder: Path) -> bool:
    try:
        with locked(folder, "held"):
            return False
    except UserError:
        return True


def _different(recipes: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Of each recipe the values that are not the same in all."""
    names = list(dict.fromkeys(name for recipe in recipes for name in recipe))
    differing = [
        name
        for name in names
        if name not in _SHOWN_ANYWAY and len({repr(recipe.get(name)) for recipe in recipes}) > 1
    ]
    return [{name: recipe.get(name) for name in differing} for recipe in recipes]


def table(rows: list[dict[str, Any]]) -> str:
    """The rows for people: a column per name, numbers to four digits."""
    names = list(dict.fromkeys(name for row in rows for name in row))
    first = [name for name in _COLUMNS if name in names]
    names = first + [name for name in names if name not in first]
    lines = [names, *([_shown(row.get(name)) for name in names] for row in rows)]
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    return "".join(
        "  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip()
        + "\n"
        for line in lines
    )


def _shown(value: Any) -> str:
    if value is None:
        return "-"
    if isinstance(value, float):
        return f"{value:,.4g}" if abs(value) < 1e4 else f"{value:,.0f}"
    return str(value)
