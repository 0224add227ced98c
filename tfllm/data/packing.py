"""Documents into rows of equal length, without losing a token."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple


class Row(NamedTuple):
    """One row of `sequence_length + 1` tokens: its inputs are all but the last, its targets all
    but the first.

    Attributes:
        token_ids: The tokens, padded with the pad id.
        segment_ids: 1, 2, … for the documents of the row, 0 for padding.
        positions: 0, 1, … from the start of each document's piece in the row; 0 for padding.
    """

    token_ids: list[int]
    segment_ids: list[int]
    positions: list[int]


class Packer:
    """Packs documents greedily, each where the last one ended.

    What does not fit goes on in the next row. That row repeats the last token of this one, so
    that every token of a document but its first is predicted exactly once.

    Args:
        sequence_length: Number of inputs, and of targets, of a row.
        pad_id: What fills the end of a row.
    """

    def __init__(self, sequence_length: int, pad_id: int):
        self._size = sequence_length + 1
        self._pad_id = pad_id
        self._row = Row([], [], [])

    def add(self, token_ids: list[int]) -> Iterator[Row]:
        """Adds a document of at least two tokens; yields the rows that it completes."""
        start, last = 0, len(token_ids) - 1
        while start < last:
            if self._size - len(self._row.token_ids) < 2:  # one token alone predicts nothing
                yield from self.flush()
            tokens, segments, positions = self._row
            piece = token_ids[start : start + self._size - len(tokens)]
            tokens.extend(piece)
            segments.extend([segments[-1] + 1 if segments else 1] * len(piece))
            positions.extend(range(len(piece)))
            start += len(piece) - 1

    def flush(self) -> Iterator[Row]:
        """Yields the unfinished row, padded, if there is one."""
        if self._row.token_ids:
            padding = self._size - len(self._row.token_ids)
            self._row.token_ids.extend([self._pad_id] * padding)
            self._row.segment_ids.extend([0] * padding)
            self._row.positions.extend([0] * padding)
            yield self._row
            self._row = Row([], [], [])
