"""The stream of documents with what their hash decides: duplicates and the split."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterable, Iterator
from typing import Any, NamedTuple

from tqdm import tqdm

from tfllm.data.documents import read_documents
from tfllm.data.sources import Skips, find_files


class Document(NamedTuple):
    """A text and its hash.

    Attributes:
        text: The text.
        num_bytes: Its size in UTF-8.
        digest: 16 bytes; equal digests are taken for equal texts.
    """

    text: str
    num_bytes: int
    digest: bytes

    def is_validation(self, fraction: float) -> bool:
        """Whether it is held out: decided by the text alone, whatever else is in the corpus."""
        return int.from_bytes(self.digest[:8], "big") < fraction * 2**64


def read_corpus(
    sources: list[str | os.PathLike[str]], skips: Skips, description: str, **options: Any
) -> Iterator[Document]:
    """The documents of `read_documents` under a progress bar over the bytes of the files."""
    num_bytes = sum(os.path.getsize(path) for path in find_files(sources) if os.path.isfile(path))
    with tqdm(
        desc=description, total=num_bytes, unit="B", unit_scale=True, disable=None, delay=1
    ) as bar:
        for text in read_documents(sources, skips=skips, progress=bar.update, **options):
            data = text.encode()
            hashed = hashlib.blake2b(data, digest_size=16, person=b"tfllm.data")
            yield Document(text, len(data), hashed.digest())


def unique(documents: Iterable[Document], skips: Skips) -> Iterator[Document]:
    """The documents that did not occur before; the others are counted."""
    seen: set[bytes] = set()
    for document in documents:
        if document.digest in seen:
            skips.counts["duplicate_documents"] += 1
        else:
            seen.add(document.digest)
            yield document
