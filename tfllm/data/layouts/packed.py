"""Documents of a language model, packed."""

from __future__ import annotations

from collections.abc import Iterator
from typing import ClassVar

from tfllm.data import conversations
from tfllm.data.layouts.layout import Columns, Layout
from tfllm.data.packing import Packer, Row
from tfllm.data.tables import Field
from tfllm.errors import UserError


class Documents(Layout):
    """Rows of `sequence_length + 1` tokens: begin, document, end, and the next document."""

    def __init__(self, tokenizer, sequence_length):
        super().__init__(tokenizer, sequence_length)
        self._packer = Packer(sequence_length, tokenizer.padding_id)
        self._bos, self._eos = _ends(tokenizer)
        self.counts.update(tokens=0, targets=0, stored=0)

    def columns(self) -> Columns:
        size = self.sequence_length + 1
        return {name: ("int64", size) for name in Row._fields if name != "target_weights"}

    def add(self, items):
        for ids in self.tokenizer.encode_batch([item.values["text"] for item in items]):
            self.counts.update(tokens=len(ids), targets=len(ids) + 1, stored=len(ids) + 1)
            yield from self._stored(self._packer.add([self._bos, *ids, self._eos]))

    def flush(self):
        yield from self._stored(self._packer.flush())

    def _stored(self, rows) -> Iterator[dict[str, list]]:
        for row in rows:
            yield {name: getattr(row, name) for name in self.columns()}


class Completions(Layout):
    """As `Documents`, of prompts with their completions; the completions alone are learned.

    A prompt and its completion are never parted; what is longer than a row is cut at its end.
    """

    fields: ClassVar[tuple[Field, ...]] = (Field("prompt"), Field("completion"))
    split_by = "prompt"

    def __init__(self, tokenizer, sequence_length):
        super().__init__(tokenizer, sequence_length)
        self._packer = Packer(sequence_length, tokenizer.padding_id, whole=True)
        self.counts.update(tokens=0, targets=0, stored=0)

    def columns(self) -> Columns:
        return {name: ("int64", self.sequence_length + 1) for name in Row._fields}

    def add(self, items):
        weighted = conversations.weighted_documents(
            (item.values | {"place": item.place} for item in items),
            self.tokenizer,
            sequence_length=self.sequence_length,
            counts=self.counts,
        )
        for ids, is_target in weighted:
            self.counts.update(tokens=len(ids), targets=sum(is_target), stored=len(ids) - 1)
            yield from (row._asdict() for row in self._packer.add(ids, is_target))

    def flush(self):
        yield from (row._asdict() for row in self._packer.flush())


class Conversations(Completions):
    """As `Completions`, of conversations as the tokenizer's chat template writes them.

    The assistant's turns are learned.
    """

    fields = (Field("messages", conversations.messages),)
    split_by = "messages"

    @classmethod
    def texts(cls, values):
        return [message["content"] or "" for message in values["messages"]]


def _ends(tokenizer) -> tuple[int, int]:
    """The ids that begin and end a document."""
    for name in ("bos_id", "eos_id"):
        if getattr(tokenizer, name) < 0:
            raise UserError(f"The tokenizer has no {name}: documents need a token for their ends.")
    return tokenizer.bos_id, tokenizer.eos_id
