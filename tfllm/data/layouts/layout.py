"""What a layout is: items in, rows to store out."""

from __future__ import annotations

import collections
from collections.abc import Iterator
from typing import Any, ClassVar

from tfllm.data.corpus import Item
from tfllm.data.tables import Field
from tfllm.tokenizers import Tokenizer

# What a column holds: int64, bytes or float32, and how many of it.
Columns = dict[str, tuple[str, int]]


class Layout:
    """Base of the layouts; one instance writes one split.

    A subclass gives `columns` and `add`, and what differs of the rest.

    Args:
        tokenizer: Of the data; None where the layout stores texts and none was asked for.
        sequence_length: t, tokens of a row that the model reads.

    Attributes:
        fields: What a row of a table must have; none = the sources are plain texts.
        split_by: The field whose hash decides whether an item is held out.
        stores_texts: Whether texts are stored, which a model's own tokenizer reads later.
        counts: For meta.json, of this split.
    """

    fields: ClassVar[tuple[Field, ...]] = ()
    split_by: ClassVar[str] = "text"
    stores_texts: ClassVar[bool] = False

    def __init__(self, tokenizer: Tokenizer | None, sequence_length: int):
        self.tokenizer: Any = tokenizer  # None for no layout that reads it
        self.sequence_length = sequence_length
        self.counts: collections.Counter[str] = collections.Counter()

    @classmethod
    def texts(cls, values: dict[str, Any]) -> list[str]:
        """What a tokenizer is trained on."""
        return [values[field.name] for field in cls.fields if field.name in values] or [
            values["text"]
        ]

    def columns(self) -> Columns:
        """What is stored of a row."""
        raise NotImplementedError

    def add(self, items: list[Item]) -> Iterator[dict[str, list]]:
        """Adds items; yields the rows that they complete, by column."""
        raise NotImplementedError

    def flush(self) -> Iterator[dict[str, list]]:
        """Yields what is left."""
        yield from ()

    def summary(self) -> dict[str, Any]:
        """What meta.json says of the split."""
        return dict(self.counts)

    def positions(self) -> int:
        """Places for tokens in a row; what `counts["stored"]` is a part of."""
        return self.sequence_length
