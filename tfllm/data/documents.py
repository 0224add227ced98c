"""From lines to documents: the stream of texts that everything else reads."""

from __future__ import annotations

import io
import json
import os
import re
from collections.abc import Callable, Iterable, Iterator
from pydoc_data.topics import topics

from tfllm.data.sources import Skips, find_files, read_lines
from tfllm.errors import UserError

# A text without a blank line for this many times `document_bytes` is cut at a line end.
_PATIENCE = 4

_JSON_LINES = (".jsonl", ".ndjson")
_SURROGATES = re.compile("[\ud800-\udfff]")


def read_documents(
    sources: str | os.PathLike[str] | Iterable[str | os.PathLike[str]] = (),
    *,
    text_field: str = "text",
    document_bytes: int = 4096,
    embedded: bool = False,
    skips: Skips | None = None,
    progress: Callable[[int], object] | None = None,
) -> Iterator[str]:
    r"""The documents of files, folders and patterns, one after the other.

    A JSONL file (`.jsonl`, `.ndjson`, each also with `.gz`) has one document per line, kept
    exactly. Any other text file is cut at blank lines: paragraphs stay together until they have
    `document_bytes`. Inside a document all is kept but `\r\n`, which becomes `\n`; the line end
    after its last line, and blank lines around it, are not part of it. Invalid UTF-8 becomes
    U+FFFD and is counted.

    Memory: a document and a line (of at most `MAX_LINE_BYTES`), whatever the size of a file.

    Args:
        sources: One path, folder or glob, or several; `find_files` has the rules.
        text_field: The field of a JSONL line that holds the text.
        document_bytes: The size from which a blank line ends a document, in UTF-8 bytes.
        embedded: Whether to start with the language reference that comes with Python
            (`pydoc_data.topics`, 0.5 MB of English; its wording differs between Python versions).
        skips: Where to count what is left out; None logs it only.
        progress: Called with the bytes just read of the files.

    Raises:
        UserError: if a source does not exist or, named directly, cannot be opened, or if a JSONL
            file's first line has no such field.
    """
    skips = Skips() if skips is None else skips
    if embedded:
        for title in sorted(topics):
            topic = io.BytesIO(topics[title].encode())
            yield from (block.decode() for block in cut_at_blank_lines(topic, document_bytes))
    for path, named in find_files(as_list(sources)).items():
        lines = read_lines(path, named, skips, progress)
        if path.lower().removesuffix(".gz").endswith(_JSON_LINES):
            yield from _json_documents(path, lines, text_field, skips)
        else:
            for block in cut_at_blank_lines((line for _, line in lines), document_bytes):
                yield _decode(block, path, skips)


def as_list(sources: str | os.PathLike[str] | Iterable[str | os.PathLike[str]]) -> list:
    """One source or several, as a list."""
    return [sources] if isinstance(sources, str | os.PathLike) else list(sources)


def cut_at_blank_lines(lines: Iterable[bytes], document_bytes: int) -> Iterator[bytes]:
    """Groups lines into documents that end at a blank line, or at a line end if none comes."""
    block: list[bytes] = []
    size = 0
    for line in lines:
        blank = line.isspace()
        if size >= document_bytes * (1 if blank else _PATIENCE):
            yield _join(block)
            block, size = [], 0
        if block or not blank:
            block.append(line)
            size += len(line)
    if block:
        yield _join(block)


def _join(block: list[bytes]) -> bytes:
    while block[-1].isspace():
        block.pop()
    return b"".join(block).replace(b"\r\n", b"\n").removesuffix(b"\n")


def _decode(raw: bytes, path: str, skips: Skips) -> str:
    try:
        return raw.decode()
    except UnicodeDecodeError:
        text = raw.decode(errors="replace")
    replaced = text.count("\ufffd") - raw.count("\ufffd".encode())
    skips.add("invalid_characters", f"{path} has invalid UTF-8, now U+FFFD", replaced)
    return text


def _json_documents(
    path: str, lines: Iterable[tuple[int, bytes]], field: str, skips: Skips
) -> Iterator[str]:
    for number, line in lines:
        if line.isspace():
            continue
        row = _json_object(_decode(line, path, skips))
        text = row.get(field)
        if not isinstance(text, str):
            start = line[:60].decode(errors="replace").strip()
            came = f"the fields {', '.join(row)}" if row else start
            problem = f"{path} line {number}: expected a JSON object with a text in {field!r}"
            if number == 1:
                raise UserError(f"{problem}, got {came}. Name the field with text_field.")
            skips.add("malformed_lines", problem)
        elif not text.strip():
            skips.add("empty_documents", f"{path} line {number} has no text")
        else:
            text, replaced = _SURROGATES.subn("\ufffd", text)
            if replaced:
                skips.add("invalid_characters", f"{path} line {number}: surrogates", replaced)
            yield text


def _json_object(line: str) -> dict:
    """The object on the line; an empty one when there is none."""
    try:
        row = json.loads(line)
    except (ValueError, RecursionError):
        return {}
    return row if isinstance(row, dict) else {}
