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
        target_weights: 1 where a token is to be predicted, else 0.
    """

    token_ids: list[int]
    segment_ids: list[int]
    positions: list[int]
    target_weights: list[int]


class Packer:
    """Packs documents greedily, each where the last one ended.

    What does not fit goes on in the next row. That row repeats the last token of this one, so
    that every token of a document but its first is predicted exactly once.

    Args:
        sequence_length: Number of inputs, and of targets, of a row.
        pad_id: What fills the end of a row.
        whole: Whether a document that would fit into a row of its own begins a new one instead of
            going on in the next, so that its end is read with its beginning.
    """

    def __init__(self, sequence_length: int, pad_id: int, whole: bool = False):
        self._size = sequence_length + 1
        self._pad_id = pad_id
        self._whole = whole
        self._row = Row([], [], [], [])

    def add(self, token_ids: list[int], target_weights: list[int] | None = None) -> Iterator[Row]:
        """Adds a document of at least two tokens; yields the rows that it completes.

        Args:
            token_ids: The document.
            target_weights: 1 for each token that is to be predicted, else 0; None = all.
        """
        target_weights = target_weights or [1] * len(token_ids)
        start, last = 0, len(token_ids) - 1
        if self._whole and self._free() < len(token_ids) <= self._size:
            yield from self.flush()
        while start < last:
            if self._free() < 2:  # one token alone predicts nothing
                yield from self.flush()
            piece = slice(start, start + self._free())
            number = self._row.segment_ids[-1] + 1 if self._row.segment_ids else 1
            here = token_ids[piece]
            self._row.token_ids.extend(here)
            self._row.segment_ids.extend([number] * len(here))
            self._row.positions.extend(range(len(here)))
            self._row.target_weights.extend(target_weights[piece])
            start += len(here) - 1

    def _free(self) -> int:
        return self._size - len(self._row.token_ids)

    def flush(self) -> Iterator[Row]:
        """Yields the unfinished row, padded, if there is one."""
        if self._row.token_ids:
            padding = self._free()
            for column, filling in zip(self._row, (self._pad_id, 0, 0, 0), strict=True):
                column.extend([filling] * padding)
            yield self._row
            self._row = Row([], [], [], [])
