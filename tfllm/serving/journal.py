"""The file of a long run's answers: what is in it stays in it, whatever is killed."""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from tfllm import aside
from tfllm.errors import UserError

_BEGIN = b'{"line": '  # of every record


class _Kept(NamedTuple):
    """Where the record of a line is in the file, and what it says of it."""

    start: int
    size: int
    asked: int  # a hash of the input
    failed: bool


class Journal:
    """Records of lines, `{"line": 3, "input": …, "output": … or "error": …}`, one JSON each.

    They are appended as they come and synced, and sorted by line when all are there.

    Args:
        path: The file. What a kill left of a record that was being written is dropped.

    Attributes:
        kept: By line, what is there already; of several records the last counts.

    Raises:
        UserError: the file holds something else.
    """

    def __init__(self, path: str | os.PathLike[str]):
        self.path = Path(path)
        self.kept: dict[int, _Kept] = {}
        self._end = 0
        self._in_order = True
        with self.path.open("ab+") as file:
            file.seek(0)
            for content in file:
                if not content.endswith(b"\n") and _BEGIN.startswith(content[: len(_BEGIN)]):
                    break  # cut short by a kill
                self._keep(content)
            file.truncate(self._end)

    @classmethod
    @contextlib.contextmanager
    def opened(cls, path: str | os.PathLike[str]) -> Iterator[Journal]:
        """The journal of a file, which this process holds while the block runs.

        Raises:
            UserError: another process has it, or as `Journal`.
        """
        aside.make_folder(Path(path).parent)
        if not os.path.exists(path):
            aside.write_file(path, b"")
        with aside.locked(path, f"Another process writes to {path}: let it end."):
            yield cls(path)

    def is_done(self, line: int, asked: Mapping[str, Any] | None, retry_failed: bool) -> bool:
        """Whether a line has its record.

        Raises:
            UserError: it is of another input.
        """
        there = self.kept.get(line)
        if there is None:
            return False
        if there.asked != _hash(asked):
            raise UserError(
                f"{self.path} has answers to another input, in line {line}: give an --output of "
                "its own to each input."
            )
        return not (there.failed and retry_failed)

    def append(self, records: Iterable[Mapping[str, Any]]) -> None:
        """Adds records; when it returns they are on the disk."""
        lines = [(json.dumps(record, ensure_ascii=False) + "\n").encode() for record in records]
        with self.path.open("ab") as file:
            file.writelines(lines)
            file.flush()
            os.fsync(file.fileno())
        for line in lines:
            self._keep(line)

    def finish(self) -> None:
        """Puts the records in the order of the lines, by a file that takes this one's place."""
        if self._in_order:
            return
        sorted_file = self.path.with_name(f".{self.path.name}")
        with self.path.open("rb") as file, sorted_file.open("wb") as target:
            for _, kept in sorted(self.kept.items()):
                file.seek(kept.start)
                target.write(file.read(kept.size))
        aside.install(sorted_file, self.path)

    def _keep(self, content: bytes) -> None:
        try:
            if not content.endswith(b"\n"):
                raise ValueError
            record = json.loads(content)
            line, asked = record["line"], record["input"]
            failed = "error" in record
        except (ValueError, TypeError, KeyError):
            raise UserError(
                f"{self.path} is no file of answers ({content[:40]!r}…): name another --output."
            ) from None
        if self.kept and line <= next(reversed(self.kept)):
            self._in_order = False
        self.kept[line] = _Kept(self._end, len(content), _hash(asked), failed)
        self._end += len(content)


def _hash(asked: Any) -> int:
    return hash(json.dumps(asked, sort_keys=True))
