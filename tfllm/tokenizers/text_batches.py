"""Texts of any length in batches that a trainer can hold."""

import re
from collections.abc import Iterable, Iterator

from tfllm.tokenizers.utf8 import valid_utf8

_BATCH_CHARACTERS = 1 << 20

# A single space between other characters begins a piece under every pattern, and nothing before
# it depends on what follows. For WordPiece it is a space between words.
_SAFE_CUT = re.compile(r"(?<=\S) (?=\S)")


def text_batches(texts: Iterable[str | bytes]) -> Iterator[list[bytes]]:
    """The texts, long ones in several parts, in lists of about a million characters."""
    batch, size = [], 0
    for text in texts:
        rest = valid_utf8(text)
        while rest:
            cut = _SAFE_CUT.search(rest, _BATCH_CHARACTERS)
            end = cut.start() if cut else len(rest)
            batch.append(rest[:end].encode())
            size += end
            rest = rest[end:]
            if size >= _BATCH_CHARACTERS:
                yield batch
                batch, size = [], 0
    if batch:
        yield batch
