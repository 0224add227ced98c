"""An evaluation as files and as a table for people."""

import json
import os
from collections.abc import Mapping
from typing import Any

from tfllm.aside import make_folder, write_file
from tfllm.evaluators.result import Evaluation, without_nan

NUMBERS_FILE = "evaluation.json"
PREDICTIONS_FILE = "predictions.jsonl"
TABLE_FILE = "evaluation.txt"


def table(evaluation: Evaluation) -> str:
    """Metrics, counts and, of a classifier, its classes, in columns; ends with a line break."""
    numbers = [(name, _number(value)) for name, value in evaluation.metrics.items()]
    numbers += [(name, str(count)) for name, count in evaluation.counts.items()]
    text = aligned([(evaluation.task, ""), *numbers])
    classes = evaluation.details.get("classes", {})
    if classes:
        names = list(next(iter(classes.values())))
        rows = [
            (label, *(_number(values[name]) for name in names)) for label, values in classes.items()
        ]
        text += "\n" + aligned([("class", *names), *rows])
    return text


def write_report(
    evaluation: Evaluation, folder: str | os.PathLike, about: Mapping[str, Any] | None = None
) -> None:
    """Writes evaluation.json, predictions.jsonl and evaluation.txt, each aside and then renamed.

    Args:
        evaluation: Of `tfllm.evaluators`.
        folder: A folder; older files of these names there are replaced.
        about: What else evaluation.json says, as {"target": "runs/gpt/preset"}.

    Raises:
        UserError: the folder cannot be made.
    """
    folder = make_folder(folder)
    lines = (
        json.dumps(without_nan(row), ensure_ascii=False) + "\n" for row in evaluation.predictions
    )
    write_file(folder / PREDICTIONS_FILE, "".join(lines))
    write_file(folder / TABLE_FILE, table(evaluation))
    numbers = {**(about or {}), **evaluation.as_json()}
    write_file(folder / NUMBERS_FILE, json.dumps(numbers, indent=1, ensure_ascii=False) + "\n")


def _number(value: float | int) -> str:
    return f"{value:.4f}" if isinstance(value, float) else str(value)


def aligned(rows: list[tuple[str, ...]]) -> str:
    """Rows of as many cells each in columns, the first to the left and the others to the right."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = []
    for first, *others in rows:
        cells = [first.ljust(widths[0])]
        cells += [cell.rjust(width) for cell, width in zip(others, widths[1:], strict=True)]
        lines.append("  ".join(cells).rstrip() + "\n")
    return "".join(lines)
