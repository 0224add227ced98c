"""From the paths a person names to the lines of their files, in bounded memory.

What cannot be used is never a surprise: it is counted by kind in a `Skips`, with the first few
by name, and what was named directly and cannot be opened is an error.
"""

from __future__ import annotations

import codecs
import collections
import glob
import gzip
import io
import logging
import os
import stat
import zlib
from collections.abc import Callable, Iterable, Iterator

from tfllm.errors import UserError

# A longer line is skipped. Long novels on one JSONL line have 3 MB; what a SentencePiece model
# needs to encode a line is about 70 times its size.
MAX_LINE_BYTES = 4 << 20

# The first bytes of a file decide whether it is text.
_HEAD_BYTES = 8 << 10
_BUFFER_BYTES = 1 << 18
_GZIP_MAGIC = b"\x1f\x8b"

# The files of a prepared folder. Its validation.jsonl must not become the text of the next one.
META_FILE, VALIDATION_FILE = "meta.json", "validation.jsonl"

_log = logging.getLogger(__name__)


class Skips:
    """What reading left out, by kind: binary_files, long_lines, malformed_lines, …

    Args:
        log: Whether the first few of each kind are also logged as warnings.

    Attributes:
        counts: How many of each kind.
    """

    SHOWN = 3

    def __init__(self, log: bool = True):
        self.log = log
        self.counts: collections.Counter[str] = collections.Counter()
        self._shown: dict[str, list[str]] = collections.defaultdict(list)

    def add(self, kind: str, what: str, number: int = 1) -> None:
        """Counts `number` of a kind; `what` is a sentence that names the place."""
        self.counts[kind] += number
        if len(self._shown[kind]) < self.SHOWN:
            self._shown[kind].append(what)
            if self.log:
                last = len(self._shown[kind]) == self.SHOWN
                rest = " (more of these are only counted)" if last else ""
                _log.warning("%s%s", what, rest)

    def __bool__(self) -> bool:
        return bool(self.counts)

    def __str__(self) -> str:
        return "; ".join(
            f"{number} {kind.replace('_', ' ')}: {', '.join(self._shown[kind])}"
            for kind, number in self.counts.items()
        )


def find_files(sources: Iterable[str | os.PathLike[str]]) -> dict[str, bool]:
    """The files that paths, folders and patterns mean, each once.

    A folder means all files below it in sorted order, without hidden ones and without folders
    that `prepare` wrote. A pattern is a glob, `**` included, expanded here so that it may come
    quoted.

    Returns:
        path -> True when it was named directly, False when a folder or a pattern led to it.

    Raises:
        UserError: if a path does not exist or a pattern matches nothing.
    """
    found: dict[str, bool] = {}
    for source in sources:
        name = os.path.expanduser(os.fspath(source))
        named = os.path.lexists(name)
        matches = [name] if named else sorted(glob.glob(name, recursive=True))
        if not matches:
            raise UserError(f"Nothing to read at {name}: no such file or folder, and no match.")
        for match in matches:
            is_folder = os.path.isdir(match)
            for path in _files_below(match) if is_folder else [match]:
                path = os.path.normpath(path)
                found[path] = found.get(path, False) or (named and not is_folder)
    return found


def _files_below(folder: str) -> Iterator[str]:
    for parent, folders, files in os.walk(folder):
        if {META_FILE, VALIDATION_FILE} <= set(files):
            folders.clear()
            continue
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        yield from (os.path.join(parent, f) for f in sorted(files) if not f.startswith("."))


def read_lines(
    path: str, named: bool, skips: Skips, progress: Callable[[int], object] | None = None
) -> Iterator[tuple[int, bytes]]:
    """The lines of a text file, plain or gzip (told by its first bytes, not by its name).

    A line of `MAX_LINE_BYTES` or more is skipped without ever being held; a blank line stands in
    its place. A file damaged in the middle gives what comes before the damage.

    Args:
        path: The file.
        named: Whether to raise when it cannot be opened, instead of counting it.
        skips: Where to count what is left out.
        progress: Called with the number of bytes of the file (compressed, if it is) just read.

    Yields:
        The line's number from 1 and its bytes with their line end, without a byte order mark.

    Raises:
        UserError: if a file that was named directly cannot be opened.
    """
    try:
        file = _open(path, progress)
    except OSError as error:
        reason = f"{path} cannot be read: {error.strerror}"
        if named:
            raise UserError(f"{reason}.") from error
        skips.add("unreadable_files", reason)
        return
    number, whole = 1, True  # whole: the piece before ended its line
    with file:
        for piece in _pieces(path, file, skips):
            ends = piece.endswith(b"\n")
            if whole and (ends or len(piece) < MAX_LINE_BYTES):
                yield number, piece
            elif whole:
                skips.add("long_lines", f"{path} line {number} has over {MAX_LINE_BYTES} bytes")
                yield number, b"\n"
            whole = ends
            number += ends


class _MeteredFile(io.FileIO):
    """A file that reports how many bytes each read brought."""

    def __init__(self, path: str, progress: Callable[[int], object]):
        super().__init__(path)
        self._progress = progress

    def readinto(self, buffer):
        number = super().readinto(buffer)
        self._progress(number or 0)
        return number


def _open(path: str, progress: Callable[[int], object] | None) -> io.BufferedReader:
    # Opening a pipe would wait for its writer, and a pipe cannot be read twice.
    if not stat.S_ISREG(os.stat(path).st_mode):
        raise OSError(0, "it is not a regular file")
    raw = _MeteredFile(path, progress) if progress else io.FileIO(path)
    return io.BufferedReader(raw, _BUFFER_BYTES)


def _pieces(path: str, file: io.BufferedReader, skips: Skips) -> Iterator[bytes]:
    """The lines of the file, those above the limit in pieces of it; stops at damage."""
    num_bytes = 0
    stream: io.BufferedReader | gzip.GzipFile = file
    try:
        if file.peek(2).startswith(_GZIP_MAGIC):
            stream = gzip.GzipFile(fileobj=file)
        head = stream.peek(_HEAD_BYTES)[:_HEAD_BYTES]
        if reason := _why_not_text(head):
            skips.add("binary_files", f"{path} {reason}")
            return
        if head.startswith(codecs.BOM_UTF8):
            stream.read(len(codecs.BOM_UTF8))
        while piece := stream.readline(MAX_LINE_BYTES):
            num_bytes += len(piece)
            yield piece
    except (OSError, EOFError, zlib.error) as error:
        skips.add("damaged_files", f"{path} is damaged after {num_bytes} bytes of text: {error}")


def _why_not_text(head: bytes) -> str:
    if head.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        return "is UTF-16: convert it with `iconv -f UTF-16 -t UTF-8`"
    if b"\0" in head:
        return f"is not text: it has a NUL in its first {_HEAD_BYTES} bytes"
    text = head.decode(errors="replace")
    # Latin-1 prose of any language has under a tenth of such characters; GBK and Shift-JIS are
    # full of them, and a model should not be taught replacement characters.
    if text.count("\ufffd") * 5 > len(text):
        return "is not UTF-8: convert it with iconv"
    return ""
