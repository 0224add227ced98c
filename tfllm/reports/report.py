"""A report: what was found, and what it does not show."""

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from tfllm.aside import make_folder, write_file
from tfllm.evaluators.result import without_nan

NUMBERS_FILE = "report.json"
TABLE_FILE = "report.txt"


@dataclass(frozen=True)
class Report:
    """What one report found.

    Attributes:
        kind: Its name, as "bias".
        numbers: What it found, as values of JSON.
        does_not_show: What must not be read out of the numbers, a sentence each.
        tables: The numbers for people; ends with a line break.
        details: What is behind the numbers, as values of JSON; in the file alone.
        files: Contents by name, written beside report.json.
    """

    kind: str
    numbers: dict[str, Any]
    does_not_show: tuple[str, ...]
    tables: str
    details: dict[str, Any] = field(default_factory=dict)
    files: dict[str, str | bytes] = field(default_factory=dict)

    def as_json(self) -> dict[str, Any]:
        """The numbers and their limits as values of JSON."""
        numbers = without_nan(self.numbers)
        return {"report": self.kind, **numbers, "does_not_show": list(self.does_not_show)}


def table(report: Report) -> str:
    """The tables of a report and, below them, what they do not show."""
    limits = "".join(f"- {sentence}\n" for sentence in report.does_not_show)
    return f"{report.tables}\nThis does not show:\n{limits}"


def write_report(
    report: Report, folder: str | os.PathLike, about: Mapping[str, Any] | None = None
) -> None:
    """Writes report.json, report.txt and the report's own files, each aside and then renamed.

    Args:
        report: Of `tfllm.reports`.
        folder: A folder; older files of these names there are replaced.
        about: What else report.json says, as {"target": "runs/gpt/preset"}.

    Raises:
        UserError: the folder cannot be made.
    """
    folder = make_folder(folder)
    for name, content in report.files.items():
        write_file(folder / name, content)
    write_file(folder / TABLE_FILE, table(report))
    numbers = {**(about or {}), **report.as_json(), **without_nan(report.details)}
    write_file(folder / NUMBERS_FILE, json.dumps(numbers, indent=1, ensure_ascii=False) + "\n")


def number(value: float | None) -> str:
    """A number in a table; "–" where there is none."""
    return "–" if value is None else f"{value:.4g}"
