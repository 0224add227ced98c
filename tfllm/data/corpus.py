"""The stream of items with what their hashes decide: duplicates and the split."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterable, Iterator
from typing import Any, NamedTuple

from tqdm import tqdm

from tfllm.data.documents import read_documents
from tfllm.data.sources import Skips, find_files
from tfllm.data.tables import Field, read_placed_rows


class Item(NamedTuple):
    """A document, or a row of a table.

    Attributes:
        values: By field; a document has `text`.
        num_bytes: The size of its texts in UTF-8.
        digest: 16 bytes; equal digests are taken for equal items.
        split_digest: The same of the field that decides the split.
        place: Of a row of a table its file and line, for what is said of it.
    """

    values: dict[str, Any]
    num_bytes: int
    digest: bytes
    split_digest: bytes
    place: str = ""

    def is_validation(self, fraction: float) -> bool:
        """Whether it is held out: decided by one field alone, whatever else there is."""
        return int.from_bytes(self.split_digest[:8], "big") < fraction * 2**64


def read_texts(
    sources: list[str | os.PathLike[str]], skips: Skips, description: str, **options: Any
) -> Iterator[Item]:
    """The documents of `read_documents` under a progress bar over the bytes of the files."""
    with _progress(sources, description) as bar:
        for text in read_documents(sources, skips=skips, progress=bar.update, **options):
            data = text.encode()
            digest = _digest(data)
            yield Item({"text": text}, len(data), digest, digest)


def read_table(
    sources: list[str | os.PathLike[str]],
    description: str,
    fields: Iterable[Field],
    split_by: str,
    **options: Any,
) -> Iterator[Item]:
    """The rows of `read_rows` under such a bar; what `split_by` names decides the split."""
    with _progress(sources, description) as bar:
        for place, values in read_placed_rows(sources, fields, progress=bar.update, **options):
            digests = _digest_of(values), _digest_of(values[split_by])
            yield Item(values, _num_bytes(values), *digests, place)


def unique(items: Iterable[Item], skips: Skips, kind: str) -> Iterator[Item]:
    """The items that did not occur before; the others are counted."""
    seen: set[bytes] = set()
    for item in items:
        if item.digest in seen:
            skips.counts[kind] += 1
        else:
            seen.add(item.digest)
            yield item


def _progress(sources, description: str) -> tqdm:
    num_bytes = sum(os.path.getsize(path) for path in find_files(sources) if os.path.isfile(path))
    return tqdm(desc=description, total=num_bytes, unit="B", unit_scale=True, disable=None, delay=1)


def _num_bytes(value: Any) -> int:
    """UTF-8 bytes of all strings in a value of JSON, without the names."""
    if isinstance(value, str):
        return len(value.encode())
    if isinstance(value, dict):
        return sum(map(_num_bytes, value.values()))
    return sum(map(_num_bytes, value)) if isinstance(value, list) else 0


def _digest(data: bytes) -> bytes:
    return hashlib.blake2b(data, digest_size=16, person=b"tfllm.data").digest()


def _digest_of(value: Any) -> bytes:
    if isinstance(value, str):
        return _digest(value.encode())
    return _digest(json.dumps(value, sort_keys=True).encode())
