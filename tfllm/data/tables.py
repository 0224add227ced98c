"""Rows of tables: JSONL, TSV and CSV as dicts by field, whatever their columns are called."""

from __future__ import annotations

import csv
import json
import math
import os
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any, NamedTuple

from tfllm.data.documents import as_list
from tfllm.data.sources import MAX_LINE_BYTES, Skips, find_files, read_lines
from tfllm.errors import UserError

_JSON = (".jsonl", ".ndjson")
_TABLES = {".tsv": "\t", ".csv": ","}


def text(value: object) -> str:
    """A string as it is; lone surrogates, which no UTF-8 can hold, become U+FFFD."""
    if not isinstance(value, str):
        raise ValueError("a text")
    return value.encode("utf-16", "surrogatepass").decode("utf-16", "replace")


def label(value: object) -> str:
    """The name of a class: a text that is not empty, a whole number, or true or false."""
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    if not isinstance(value, str | int) or value == "":
        raise ValueError("a label (a text or a whole number)")
    return text(value) if isinstance(value, str) else str(value)


def number(value: object) -> float:
    """A finite number, or a text that is one."""
    try:
        found = float(value)  # type: ignore[arg-type]
    except (TypeError, ValueError):
        found = math.nan
    if isinstance(value, bool) or not math.isfinite(found):
        raise ValueError("a number")
    return found


def whole(value: object) -> int:
    """A whole number of at least 0, or a text that is one."""
    found = number(value)
    if found < 0 or found != int(found):
        raise ValueError("a whole number of at least 0")
    return int(found)


def texts(value: object) -> list[str]:
    """A list of texts; in a table, which has no lists, one text."""
    several = value if isinstance(value, list) else [value]
    if not all(isinstance(each, str) for each in several):
        raise ValueError("a text or a list of texts")
    return [text(each) for each in several]


def anything(value: object) -> object:
    """A value of JSON, with its strings as of `text`; in a table the text of one."""
    if isinstance(value, str):
        try:
            value = json.loads(value)
        except ValueError:
            raise ValueError("a value in JSON") from None
    return _of_texts(value)


def _of_texts(value: Any) -> Any:
    if isinstance(value, dict):
        return {text(name): _of_texts(inner) for name, inner in value.items()}
    if isinstance(value, list):
        return [_of_texts(inner) for inner in value]
    return text(value) if isinstance(value, str) else value


class Field(NamedTuple):
    """What one column of a row must hold.

    Attributes:
        name: Of the field, and of its column unless another is given.
        read: From what the file has to the value; a ValueError says what was expected.
        optional: Whether it may be missing: then the row has no such key.
    """

    name: str
    read: Callable[[object], Any] = text
    optional: bool = False


def read_rows(
    sources: str | os.PathLike[str] | Iterable[str | os.PathLike[str]],
    fields: Iterable[Field],
    *,
    columns: Mapping[str, str] | None = None,
    header: bool | None = None,
    progress: Callable[[int], object] | None = None,
) -> Iterator[dict[str, Any]]:
    """The rows of files, folders and patterns, by field.

    The name of a file says what it is: `.jsonl` or `.ndjson` has an object per line, `.tsv` is
    parted at tabs without any quoting, `.csv` at commas with the quotes of RFC 4180; each may be
    gzip with `.gz` behind. Memory: one line.

    Args:
        sources: As of `find_files`.
        fields: What each row must have.
        columns: Column by field where they differ: a name, or in a table its number from 1.
        header: Whether tables begin with the names of their columns. None finds out: the names
            of all columns that are wanted by name stand in the first line.
        progress: Called with the bytes just read of the files.

    Yields:
        Values by field name; an optional field that is not there, is null or empty has no key.

    Raises:
        UserError: a file cannot be read, is of another kind, or has a row that does not fit;
            with the file, the line and what was expected. Or `columns` names a column for an
            optional field that is nowhere.
    """
    placed = read_placed_rows(sources, fields, columns=columns, header=header, progress=progress)
    return (row for _, row in placed)


def read_placed_rows(
    sources: str | os.PathLike[str] | Iterable[str | os.PathLike[str]],
    fields: Iterable[Field],
    *,
    columns: Mapping[str, str] | None = None,
    header: bool | None = None,
    progress: Callable[[int], object] | None = None,
) -> Iterator[tuple[str, dict[str, Any]]]:
    """As `read_rows`, each row with its file and line in words."""
    fields = list(fields)
    columns = dict(columns or {})
    known = [field.name for field in fields]
    for name in columns:
        if name not in known:
            raise UserError(f"There is no field {name!r}; there are {', '.join(known)}.")
    skips = Skips(log=False)
    unseen = {columns[field.name] for field in fields if field.optional and field.name in columns}
    place = ""
    for path in find_files(as_list(sources)):
        ending = os.path.splitext(path.lower().removesuffix(".gz"))[1]
        lines = read_lines(path, True, skips, progress)
        if ending in _JSON:
            rows = _objects(path, lines)
        elif ending in _TABLES:
            rows = _cells(path, lines, _TABLES[ending], fields, columns, header)
        else:
            raise UserError(
                f"{path} must be .jsonl, .tsv or .csv (each also with .gz), by its name."
            )
        for place, row in rows:
            unseen.difference_update(row)
            yield place, _values(place, row, fields, columns)
        if skips:
            raise UserError(f"{path} cannot be read whole: {skips}.")
    if place and unseen:
        raise UserError(f"No row up to {place} has a column {', '.join(sorted(unseen))}.")


def _decoded(path: str, lines: Iterable[tuple[int, bytes]]) -> Iterator[tuple[int, str]]:
    for line_number, line in lines:
        try:
            yield line_number, line.decode()
        except UnicodeDecodeError as error:
            raise UserError(f"{path} line {line_number}: expected UTF-8 ({error}).") from None


def _objects(path: str, lines: Iterable[tuple[int, bytes]]) -> Iterator[tuple[str, dict]]:
    for line_number, line in _decoded(path, lines):
        if line.isspace():
            continue
        place = f"{path} line {line_number}"
        try:
            row = json.loads(line)
        except (ValueError, RecursionError):
            row = None
        if not isinstance(row, dict):
            raise UserError(f"{place}: expected a JSON object, got {line[:60].strip()!r}.")
        yield place, row


def _cells(  # noqa: PLR0913 - the two ways to say which column is which
    path: str,
    lines: Iterable[tuple[int, bytes]],
    delimiter: str,
    fields: list[Field],
    columns: dict[str, str],
    header: bool | None,
) -> Iterator[tuple[str, dict]]:
    """The rows of a table, by the names of its columns and by their numbers."""
    decoded = _decoded(path, lines)
    rows: Iterator[tuple[int, list[str]]]
    if delimiter == "\t":
        rows = ((number, line.rstrip("\r\n").split("\t")) for number, line in decoded)
    else:
        rows = _comma_separated(path, decoded)
    wanted = [
        columns.get(field.name, field.name)
        for field in fields
        if not field.optional or field.name in columns
    ]
    most = max((int(name) for name in wanted if name.isdecimal()), default=0)
    wanted = [name for name in wanted if not name.isdecimal()]
    names: list[str] | None = None
    for line_number, cells in rows:
        if not cells or cells == [""]:
            continue
        place = f"{path} line {line_number}"
        if names is None:
            has_header = set(wanted) <= set(cells) if header is None else header
            if has_header and (wanted or header):
                names = cells
                if twice := [name for name in wanted if cells.count(name) > 1]:
                    raise UserError(
                        f"{place}: expected one column {twice[0]!r}, got {cells.count(twice[0])}. "
                        "Say which one it is by its number from 1, and that there is a header."
                    )
                continue
            names = []
            if wanted:
                raise UserError(
                    f"{place}: expected the columns {', '.join(wanted)}, got "
                    f"{', '.join(repr(cell[:20]) for cell in cells)}. Say which column is which, "
                    f"by name or by number from 1: --column {wanted[0]}=1."
                )
        if names and len(cells) != len(names):
            raise UserError(f"{place}: expected {len(names)} columns, got {len(cells)}.")
        if most > len(cells):
            raise UserError(f"{place}: expected a column {most}, got {len(cells)} columns.")
        numbered = {str(i): cell for i, cell in enumerate(cells, 1)}
        yield place, numbered | dict(zip(names, cells, strict=False))


def _comma_separated(
    path: str, lines: Iterable[tuple[int, str]]
) -> Iterator[tuple[int, list[str]]]:
    """The cells of each row, with the number of its last line."""
    # Python's own limit, 131,072 characters, is less than many a document.
    csv.field_size_limit(max(csv.field_size_limit(), MAX_LINE_BYTES))
    reader = csv.reader((line for _, line in lines), strict=True)
    while True:
        try:
            cells = next(reader, None)
        except csv.Error as error:
            raise UserError(f"{path} line {reader.line_num}: {error}.") from None
        if cells is None:
            return
        yield reader.line_num, cells


def _values(place: str, row: dict, fields: list[Field], columns: dict[str, str]) -> dict[str, Any]:
    values = {}
    for field in fields:
        column = columns.get(field.name, field.name)
        value = row.get(column)
        if field.optional and value in (None, ""):
            continue
        if column not in row:
            raise UserError(
                f"{place}: expected a column {column!r}, got {', '.join(row) or 'none'}. Say "
                f"which column is which: --column {field.name}=NAME."
            )
        try:
            values[field.name] = field.read(value)
        except ValueError as error:
            raise UserError(
                f"{place}: expected {error} in {column!r}, got {str(value)[:60]!r}."
            ) from None
    return values
