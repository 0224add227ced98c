"""Static tables of what BERT's normalization makes of each code point."""

import functools
import unicodedata
from typing import NamedTuple

import numpy as np
import tensorflow as tf

from tfllm.tokenizers import bert_characters as characters

# What a character is to the words around it. A stripped one takes part in the sorting of marks.
LETTER, SPACE, ALONE, STRIPPED = range(4)

_ALL = 0x110000
_BLOCK = 256
_UNCHANGED, _NOTHING = range(2)  # the first two records


class Elements(NamedTuple):
    """What some code points become: m elements, each one code point.

    Attributes:
        sources: int64[m]: which of the code points each is from, ascending.
        distances: int32[m]: from that code point to the element.
        mark_classes: int32[m]: Canonical_Combining_Class, by which runs of marks are sorted.
        kinds: int32[m]: `LETTER`, `SPACE`, `ALONE` or `STRIPPED`.
    """

    sources: tf.Tensor
    distances: tf.Tensor
    mark_classes: tf.Tensor
    kinds: tf.Tensor


class Tables(NamedTuple):
    """From code points to elements, by blocks of code points, most of which are alike.

    Attributes:
        blocks: int32[4352]: for each 256 code points, the number of their block.
        records: uint16[256 * blocks]: for each code point of a block, its row of elements.
        elements: int64[e]: the rows of elements; each is distance * 2**16 + class * 2**8 + kind.
        splits: int64[rows + 1]: where each begins and ends.
    """

    blocks: np.ndarray
    records: np.ndarray
    elements: np.ndarray
    splits: np.ndarray

    def look_up(self, code_points: tf.Tensor) -> Elements:
        """The elements of int32[n]."""
        block = tf.gather(self.blocks, code_points // _BLOCK)
        record = tf.gather(self.records, block * _BLOCK + code_points % _BLOCK)
        rows = tf.RaggedTensor.from_row_splits(self.elements, self.splits, validate=False)
        found = tf.gather(rows, tf.cast(record, tf.int32))
        return Elements(
            sources=found.value_rowids(),
            distances=tf.cast(found.values // 2**16, tf.int32),
            mark_classes=tf.cast(found.values // 2**8 % 2**8, tf.int32),
            kinds=tf.cast(found.values % 2**8, tf.int32),
        )


@functools.cache
def tables(lowercase: bool, strip_accents: bool, tokenize_chinese_chars: bool) -> Tables:
    """The tables of a `BertNormalizer`. They take some 50 ms to make and are never changed."""
    kinds = np.full(_ALL, LETTER)
    kinds[characters.code_points(characters.PUNCTUATION)] = ALONE
    if strip_accents:
        kinds[characters.code_points(characters.MARKS)] = STRIPPED
    if tokenize_chinese_chars:
        kinds[characters.code_points(characters.CHINESE)] = ALONE
    distances, mark_classes = np.zeros([2, _ALL], np.int64)
    if lowercase:
        lowered = characters.lower_distances()
        distances[list(lowered)] = list(lowered.values())
    if strip_accents:
        for code_point in characters.code_points(characters.ORDERED):
            mark_classes[code_point] = unicodedata.combining(chr(code_point))
    kinds[characters.code_points(characters.SPACES)] = SPACE
    elements = distances * 2**16 + mark_classes * 2**8 + kinds

    rows = [[LETTER], []]
    records = np.full(_ALL, _UNCHANGED, np.uint16)
    changed = np.flatnonzero(elements != LETTER)
    different, which = np.unique(elements[changed], return_inverse=True)
    records[changed] = len(rows) + which
    rows += [[element] for element in different.tolist()]
    for code_point, becomes in _expansions(lowercase, strip_accents).items():
        records[code_point] = len(rows)
        rows.append([int(elements[c]) + (c - code_point) * 2**16 for c in becomes])
    records[characters.code_points(characters.REMOVED)] = _NOTHING
    return _by_blocks(records, rows)


def _expansions(lowercase: bool, strip_accents: bool) -> dict[int, list[int]]:
    """Code points that become other ones, before those are lowered, one by one.

    No decomposition leads from white space or a Chinese character to what is none.
    """
    if strip_accents:
        return {
            code_point: [ord(c) for c in unicodedata.normalize("NFD", chr(code_point))]
            for code_point in characters.code_points(characters.DECOMPOSED)
        }
    return {characters.DOTTED_I: [0x69, 0x307]} if lowercase else {}


def _by_blocks(records: np.ndarray, rows: list[list[int]]) -> Tables:
    numbers: dict[bytes, int] = {}
    blocks = [
        numbers.setdefault(block.tobytes(), len(numbers)) for block in records.reshape(-1, _BLOCK)
    ]
    return Tables(
        blocks=np.array(blocks, np.int32),
        records=np.frombuffer(b"".join(numbers), np.uint16),
        elements=np.array([element for row in rows for element in row], np.int64),
        splits=np.cumsum([0, *map(len, rows)], dtype=np.int64),
    )
