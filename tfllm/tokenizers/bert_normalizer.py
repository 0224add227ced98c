"""BERT's cleaning of a text and its parting into words, in the graph, with positions."""

from collections.abc import Sequence
from typing import NamedTuple

import tensorflow as tf

from tfllm.tokenizers.added_tokens import AddedToken, part_at_added
from tfllm.tokenizers.bert_characters import CHINESE, code_points
from tfllm.tokenizers.bert_tables import LETTER, SPACE, STRIPPED, tables


class Words(NamedTuple):
    """The words of some texts, one after the other: w words, n characters of words.

    Attributes:
        texts: string[w].
        rows: int64[w]: the text that each word is from, ascending.
        added_ids: int32[w]: the ids of words that are added tokens, -1 for others.
        splits: int64[w + 1]: where the characters of each word begin and end.
        positions: int64[n]: the code point of the text that each character is from.
        bytes_before: int64[n + 1]: the bytes of UTF-8 before each character, and of all.
    """

    texts: tf.Tensor
    rows: tf.Tensor
    added_ids: tf.Tensor
    splits: tf.Tensor
    positions: tf.Tensor
    bytes_before: tf.Tensor


class BertNormalizer(NamedTuple):
    """Rules by which a text is cleaned and parted, in this order.

    Control characters are removed and white space becomes spaces; each Chinese character becomes
    a word; the text is decomposed (NFD) and loses its non-spacing marks; it is lowered, each code
    point for itself (so a final sigma is a sigma). Words end at spaces, and a punctuation mark is
    a word.

    Attributes:
        lowercase: Whether to lower.
        strip_accents: Whether to decompose and to take the marks.
        tokenize_chinese_chars: Whether a Chinese character is a word.

    Source:
        BertNormalizer and BertPreTokenizer of Hugging Face `tokenizers`, whose words and
        positions these are. Where a decomposition changes the order of marks, the positions stay
        in the order of the text, as they do there.
    """

    lowercase: bool
    strip_accents: bool
    tokenize_chinese_chars: bool

    def normalize(self, texts: tf.Tensor) -> tf.Tensor:
        """The clean texts of string[b], valid UTF-8, without spaces around Chinese characters."""
        return self._characters(texts).texts(tf.size(texts))

    def with_spaces(self, text: str) -> str:
        """A clean text with spaces around Chinese characters, if they are words."""
        if not self.tokenize_chinese_chars:
            return text
        chinese = set(map(chr, code_points(CHINESE)))
        return "".join(f" {c} " if c in chinese else c for c in text)

    def words(self, texts: tf.Tensor, added: Sequence[AddedToken] = ()) -> Words:
        """The words of string[b], valid UTF-8.

        Args:
            texts: The texts.
            added: What is a word wherever it stands in a clean text. These, too, are clean.
        """
        found = self._characters(texts)
        if added:
            found = _with_added(added, found, tf.size(texts))
        follows = (found.kinds == LETTER) & (_before(found.kinds, SPACE) == LETTER)
        follows &= found.parts == _before(found.parts, -1)
        solid = tf.where(found.kinds != SPACE)[:, 0]
        starts = tf.where(~tf.gather(follows, solid))[:, 0]
        found = found.gather(solid)
        words = tf.RaggedTensor.from_row_starts(found.values, starts, validate=False)
        lasts = (0x7F, 0x7FF, 0xFFFF)  # code points of one, two and three bytes
        num_bytes = 1 + sum(tf.cast(found.values > last, tf.int64) for last in lasts)
        return Words(
            texts=tf.strings.unicode_encode(words, "UTF-8"),
            rows=tf.gather(found.rows, starts),
            added_ids=tf.gather(found.added_ids, starts),
            splits=words.row_splits,
            positions=found.positions,
            bytes_before=tf.concat([[0], tf.cumsum(num_bytes)], 0),
        )

    def _characters(self, texts):
        decoded = tf.strings.unicode_decode(texts, "UTF-8", replace_control_characters=False)
        sources, distances, mark_classes, kinds = tables(*self).look_up(decoded.values)
        values = tf.gather(decoded.values, sources) + distances
        rows = tf.gather(decoded.value_rowids(), sources)
        if self.strip_accents:
            sources, values, kinds = _sort_marks(mark_classes, rows, sources, values, kinds)
        positions = sources - tf.gather(decoded.row_splits, rows)
        added_ids = tf.fill(tf.shape(values), -1)
        found = _Characters(values, kinds, rows, rows, positions, added_ids)
        return found.gather(tf.where(kinds != STRIPPED)[:, 0]) if self.strip_accents else found


class _Characters(NamedTuple):
    """The characters of clean texts: code points, what they are, and where they are from.

    No word reaches from one of the `parts`, which are ascending, into another.
    """

    values: tf.Tensor
    kinds: tf.Tensor
    rows: tf.Tensor
    parts: tf.Tensor
    positions: tf.Tensor
    added_ids: tf.Tensor

    def gather(self, indices) -> "_Characters":
        return _Characters(*(tf.gather(field, indices) for field in self))

    def texts(self, num_rows) -> tf.Tensor:
        plain = tf.where(self.kinds == SPACE, ord(" "), self.values)
        rows = tf.RaggedTensor.from_value_rowids(
            plain, self.rows, tf.cast(num_rows, tf.int64), validate=False
        )
        return tf.strings.unicode_encode(rows, "UTF-8")


def _with_added(added, found, num_rows):
    parts = part_at_added(added, found.texts(num_rows))
    lengths = tf.strings.length(parts.texts, unit="UTF8_CHAR")
    part = tf.repeat(tf.range(tf.size(lengths, tf.int64)), lengths)
    turns = tf.where(parts.is_token, tf.cumsum(tf.cast(parts.is_token, tf.int32)), 0)
    ids = tf.gather(tf.gather(tf.concat([[-1], parts.ids], 0), turns), part)
    kinds = tf.where(ids >= 0, LETTER, found.kinds)
    return found._replace(kinds=kinds, parts=part, added_ids=ids)


def _sort_marks(mark_classes, rows, sources, values, kinds):
    """Sorts each run of marks by class, as a decomposition has to; sources stay ascending.

    The elements that are the first of their code points take the sources in the order of the
    text, wherever they were sorted to; each other one has the source of the one before it.

    Source:
        The Unicode standard, section 3.11, "Canonical Ordering Algorithm"; for the sources
        `NormalizedString::transform` of Hugging Face `tokenizers`.
    """

    def sort():
        starts = (mark_classes == 0) | (rows != _before(rows, -1))
        runs = tf.cumsum(tf.cast(starts, tf.int64))
        order = tf.argsort(runs * 2**8 + tf.cast(mark_classes, tf.int64), stable=True)
        first = sources != _before(sources, -1)
        turns = tf.cumsum(tf.cast(tf.gather(first, order), tf.int64)) - 1
        in_turn = tf.gather(tf.boolean_mask(sources, first), turns)
        return in_turn, tf.gather(values, order), tf.gather(kinds, order)

    is_sorted = (mark_classes[1:] == 0) | (mark_classes[:-1] <= mark_classes[1:])
    return tf.cond(tf.reduce_all(is_sorted), lambda: (sources, values, kinds), sort)


def _before(flat, first):
    """Each one's predecessor, and `first` for the first one."""
    return tf.concat([tf.constant([first], flat.dtype), flat], 0)[:-1]
