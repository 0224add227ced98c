"""Documents cut for encoders: two neighbouring pieces per row, or windows of one length."""

from __future__ import annotations

import functools
from collections.abc import Iterator

from tfllm.data.layouts.layout import Columns, Layout
from tfllm.errors import UserError

_NONE = -1  # pads a piece
_ENDS = tuple(".!?。！？…")
_CLOSING = "\"'”’»)]」』）"


class Pieces(Layout):
    """Two neighbouring pieces of a document per row: `first` and `second`, padded with -1.

    Each has up to (sequence_length - 3) / 2 tokens, so that any two pieces fit into one input with
    its three special tokens. A piece ends at the end of a sentence if one lies in its second half.
    """

    def __init__(self, tokenizer, sequence_length):
        super().__init__(tokenizer, sequence_length)
        self._most = (sequence_length - 3) // 2
        self.counts.update(tokens=0, stored=0)
        if min(tokenizer.cls_id, tokenizer.sep_id, tokenizer.mask_id) < 0:
            special = tokenizer.special_tokens
            raise UserError(
                "A masked language model's tokenizer needs "
                f"{special['cls']}, {special['sep']} and {special['mask']} in its vocabulary."
            )

    @functools.cached_property
    def _sentence_ends(self) -> frozenset[int]:
        vocabulary = self.tokenizer.get_vocabulary()
        return frozenset(
            i for i, token in enumerate(vocabulary) if token.rstrip(_CLOSING).endswith(_ENDS)
        )

    def columns(self) -> Columns:
        return {"first": ("int64", self._most), "second": ("int64", self._most)}

    def positions(self):
        return 2 * self._most

    def add(self, items):
        for ids in self.tokenizer.encode_batch([item.values["text"] for item in items]):
            self.counts["tokens"] += len(ids)
            pieces = list(self._pieces(ids))
            if len(pieces) % 2:  # the last one has no neighbour: its halves have each other
                last = pieces.pop()
                if len(last) < 2:
                    self.counts["left_out_tokens"] += len(last)
                else:
                    half = len(last) // 2
                    pieces += [last[:half], last[half:]]
            for first, second in zip(pieces[::2], pieces[1::2], strict=True):
                self.counts["stored"] += len(first) + len(second)
                yield {"first": self._padded(first), "second": self._padded(second)}

    def _pieces(self, ids: list[int]) -> Iterator[list[int]]:
        start = 0
        while start < len(ids):
            stop = start + self._most
            if stop < len(ids):
                ends = (i for i in range(stop, start + self._most // 2, -1))
                stop = next((i for i in ends if ids[i - 1] in self._sentence_ends), stop)
            yield ids[start:stop]
            start = stop

    def _padded(self, ids: list[int]) -> list[int]:
        return ids + [_NONE] * (self._most - len(ids))


class Windows(Layout):
    """Windows of `sequence_length` tokens, cut from all documents one after the other.

    Each document ends with the end token. The last window is filled up from the beginning of the
    first ones, so that no window has padding.

    Source:
        Raffel et al. 2020, section 3.1.4 (packing), https://arxiv.org/abs/1910.10683
    """

    def __init__(self, tokenizer, sequence_length):
        super().__init__(tokenizer, sequence_length)
        if tokenizer.eos_id < 0:
            raise UserError("The tokenizer has no eos_id: documents need a token for their ends.")
        self._left: list[int] = []
        self._beginning: list[int] = []
        self.counts.update(tokens=0, stored=0)

    def columns(self) -> Columns:
        return {"token_ids": ("int64", self.sequence_length)}

    def add(self, items):
        size = self.sequence_length
        for ids in self.tokenizer.encode_batch([item.values["text"] for item in items]):
            self.counts["tokens"] += len(ids)
            self._left += [*ids, self.tokenizer.eos_id]
            if len(self._beginning) < size:
                self._beginning = (self._beginning + ids + [self.tokenizer.eos_id])[:size]
            for start in range(0, len(self._left) - size + 1, size):
                self.counts["stored"] += size
                yield {"token_ids": self._left[start : start + size]}
            self._left = self._left[len(self._left) // size * size :]

    def flush(self):
        if self._left:
            self.counts["stored"] += len(self._left)
            while len(self._left) < self.sequence_length:
                self._left += self._beginning
            yield {"token_ids": self._left[: self.sequence_length]}
            self._left = []
