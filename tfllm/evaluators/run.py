"""One call for every evaluation: what is measured follows from the model and from the data."""

import inspect
import itertools
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from tfllm.data import read_documents
from tfllm.data.documents import as_list
from tfllm.data.sources import VALIDATION_FILE, find_files
from tfllm.data.tables import Field, read_rows
from tfllm.errors import UserError
from tfllm.evaluators.result import Evaluation
from tfllm.evaluators.tasks import COMPLETION, PROMPTS, TASKS, TEXT, Task, as_it_is, choose

Sources = str | os.PathLike[str] | Iterable[str | os.PathLike[str]]

_CELLS = (".tsv", ".csv", ".tsv.gz", ".csv.gz")
_OBJECTS = (".jsonl", ".ndjson", ".jsonl.gz", ".ndjson.gz")


def evaluate(  # noqa: PLR0913 - one keyword per option of the command
    model: Any,
    data: Sources,
    *,
    task: str | None = None,
    columns: Mapping[str, str] | None = None,
    header: bool | None = None,
    limit: int | None = None,
    metrics: Sequence[str] = (),
    **options: Any,
) -> Evaluation:
    """Measures a model on files, by what it can do and what they hold.

    Args:
        model: A live model, or a `tfllm.serving.Client`.
        data: A folder that `prepare` wrote, of which the held-out part is read; or files, folders
            and patterns: tables (see `tfllm.data.tables.read_rows`), or texts for the perplexity.
        task: One of `TASKS`; default the first that the model can do and the data has the fields
            of.
        columns: Column by field where they differ.
        header: Whether tables begin with the names of their columns; default is to find out.
        limit: Rows or documents at most.
        metrics: The metrics to report; default all.
        **options: Of the task's evaluator, as `batch_size` or `beam_search`.

    Returns:
        `Evaluation`.

    Raises:
        UserError: model, task, data and options do not fit together; or of the evaluator.
    """
    if limit is not None and limit < 1:
        raise UserError(f"limit must be at least 1, got {limit}.")
    sources = _sources(data)
    columns = dict(columns or {})
    there = _fields_there(sources, columns, header)
    if there and COMPLETION in there - columns.keys() and "target" not in there:
        columns["target"] = COMPLETION  # as data prepared for that task has it
        there.add("target")
    name = choose(task, model, there)
    chosen = TASKS[name]
    _check_options(name, options)
    if name == "language_model":
        rows: Iterator[Any] = _texts(sources, columns, header)
    else:
        fields = _fields(chosen, there)
        rows = read_rows(sources, fields, columns=_of(fields, columns), header=header)
    if name == "generation" and metrics:
        options["measures"] = list(metrics)
    found = chosen.evaluator(model, itertools.islice(rows, limit), **options)
    for metric in metrics:
        if metric not in found.metrics:
            raise UserError(f"{name} has no metric {metric!r}; it has {', '.join(found.metrics)}.")
    return replace(
        found,
        metrics={m: value for m, value in found.metrics.items() if not metrics or m in metrics},
    )


def _sources(data: Sources) -> list[str | os.PathLike[str]]:
    """The files to read: of a prepared folder what it holds out."""
    sources = as_list(data)
    held_out = Path(sources[0], VALIDATION_FILE) if len(sources) == 1 else None
    return [held_out] if held_out is not None and held_out.is_file() else sources


def _fields_there(
    sources: list, columns: Mapping[str, str], header: bool | None
) -> set[str] | None:
    """The fields that the first row has; None where the files are no tables."""
    if not _all_end(sources, _CELLS + _OBJECTS):
        return None
    names = {field.name for task in TASKS.values() for field in task.fields}
    names |= {*PROMPTS, COMPLETION}
    fields = [Field(name, as_it_is, optional=True) for name in sorted(names)]
    rows = read_rows(sources, fields, columns=columns, header=True if header is None else header)
    return set(next(rows, {}))


def _all_end(sources: list, endings: tuple[str, ...]) -> bool:
    return all(path.lower().endswith(endings) for path in find_files(sources))


def _fields(task: Task, there: set[str] | None) -> list[Field]:
    one_of = [name for name in task.one_of if name in (there or ())] or list(task.one_of)
    return [*(Field(name) for name in one_of[:1]), *task.fields]


def _of(fields: list[Field], columns: Mapping[str, str]) -> dict[str, str]:
    names = {field.name for field in fields}
    return {name: column for name, column in columns.items() if name in names}


def _texts(sources: list, columns: Mapping[str, str], header: bool | None) -> Iterator[str]:
    if _all_end(sources, _CELLS):
        rows = read_rows(sources, [TEXT], columns=_of([TEXT], columns), header=header)
        return (row["text"] for row in rows)
    return read_documents(sources, text_field=columns.get("text", "text"))


def _check_options(name: str, options: Mapping[str, Any]) -> None:
    parameters = inspect.signature(TASKS[name].evaluator).parameters.values()
    known = [p.name for p in parameters if p.kind is p.KEYWORD_ONLY]
    for option in options:
        if option not in known:
            raise UserError(f"{name} takes no {option}; it takes {', '.join(known)}.")
