"""Pairs of a source and its target, several in one row."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import tensorflow as tf

from tfllm.data.layouts.layout import Columns, Layout
from tfllm.data.tables import Field
from tfllm.errors import UserError

# Rows that are being filled at the same time: 16 fill 90 % of the places with the pairs of
# LibreOffice's help in English and French, one fills 76 %, 64 as much as 16.
_OPEN = 16


class _Row(NamedTuple):
    encoder_ids: list[int]
    encoder_segments: list[int]
    decoder_ids: list[int]
    decoder_segments: list[int]


class PackedPairs(Layout):
    """Sources and targets side by side, each with its end; segments number the pairs from 1.

    A pair goes into the first open row that has room for both of its sides. What is longer than
    a row is cut, and counted.
    """

    fields = (Field("source"), Field("target"))
    split_by = "source"

    def __init__(self, tokenizer, sequence_length):
        super().__init__(tokenizer, sequence_length)
        if tokenizer.eos_id < 0:
            raise UserError("The tokenizer has no eos_id: sources and targets need their ends.")
        self._open: list[_Row] = []
        self.counts.update(tokens=0, targets=0, stored=0, cut_pairs=0)

    def columns(self) -> Columns:
        return {name: ("int64", self.sequence_length) for name in _Row._fields}

    def positions(self):
        return 2 * self.sequence_length

    def add(self, items):
        sources = self.tokenizer.encode_batch([item.values["source"] for item in items])
        texts = tf.constant([item.values["target"] for item in items], tf.string)  # or none at all
        targets = self.tokenizer.tokenize_target(texts)
        for source, target in zip(sources, targets.to_list(), strict=True):
            whole = len(source) + len(target) + 2
            source, target = self._with_end(source), self._with_end(target)
            stored = len(source) + len(target)
            self.counts.update(
                tokens=whole, targets=len(target), stored=stored, cut_pairs=stored < whole
            )
            yield from self._place(source, target)

    def _with_end(self, ids: list[int]) -> list[int]:
        return [*ids[: self.sequence_length - 1], self.tokenizer.eos_id]

    def _place(self, source: list[int], target: list[int]) -> Iterator[dict[str, list]]:
        size = self.sequence_length

        def fits(row):
            return (
                len(row.encoder_ids) + len(source) <= size
                and len(row.decoder_ids) + len(target) <= size
            )

        row = next(filter(fits, self._open), None)
        if row is None:
            if len(self._open) == _OPEN:
                fullest = max(self._open, key=lambda r: len(r.encoder_ids) + len(r.decoder_ids))
                self._open.remove(fullest)
                yield self._padded(fullest)
            row = _Row([], [], [], [])
            self._open.append(row)
        number = row.encoder_segments[-1] + 1 if row.encoder_segments else 1
        row.encoder_ids.extend(source)
        row.encoder_segments.extend([number] * len(source))
        row.decoder_ids.extend(target)
        row.decoder_segments.extend([number] * len(target))

    def flush(self):
        yield from map(self._padded, self._open)
        self._open = []

    def _padded(self, row: _Row) -> dict[str, list]:
        pad = self.tokenizer.padding_id
        return {
            name: ids + [filling] * (self.sequence_length - len(ids))
            for (name, ids), filling in zip(row._asdict().items(), (pad, 0, pad, 0), strict=True)
        }
