"""Whole words, one document after the other."""

from __future__ import annotations

import numpy as np

from tfllm.data.layouts.layout import Columns, Layout
from tfllm.errors import UserError
from tfllm.tokenizers.whole_words import WordTokenizer


class Words(Layout):
    """Rows of `sequence_length` words; segments number the documents of a row from 1.

    A document of one known word, which has no neighbour, is left out. Only the last row has
    places that are empty: segment 0.
    """

    def __init__(self, tokenizer, sequence_length):
        super().__init__(tokenizer, sequence_length)
        if not isinstance(tokenizer, WordTokenizer):
            raise UserError(
                "skip_gram learns vectors of whole words and needs a WordTokenizer (--tokenizer "
                f"words), got a {type(tokenizer).__name__}."
            )
        self._ids: list[int] = []
        self._documents: list[int] = []
        self._next = 0
        self.counts.update(tokens=0, targets=0, stored=0)

    def columns(self) -> Columns:
        size = self.sequence_length
        return {"token_ids": ("int64", size), "segment_ids": ("int64", size)}

    def add(self, items):
        for ids in self.tokenizer.encode_batch([item.values["text"] for item in items]):
            if len(ids) < 2:
                continue
            self.counts.update(tokens=len(ids), targets=len(ids), stored=len(ids))
            self._ids += ids
            self._documents += [self._next] * len(ids)
            self._next += 1
            while len(self._ids) >= self.sequence_length:
                yield self._row()

    def flush(self):
        if self._ids:
            yield self._row()

    def _row(self) -> dict[str, list]:
        size = self.sequence_length
        ids, documents = self._ids[:size], self._documents[:size]
        self._ids, self._documents = self._ids[size:], self._documents[size:]
        padding = [0] * (size - len(ids))
        segments = (np.array(documents) - documents[0] + 1).tolist()
        return {"token_ids": ids + padding, "segment_ids": segments + padding}
