"""Tokens that are recognised by their text, before a tokenizer reads what is between them."""

import re
from collections.abc import Callable, Sequence
from typing import NamedTuple

import tensorflow as tf

_MARK = b"\xff"  # in no valid UTF-8, so in no text

# The property White_Space; `\s` of TensorFlow's regular expressions is ASCII alone.
_WHITE_SPACE = (
    r"[\t-\r \x{85}\x{a0}\x{1680}\x{2000}-\x{200a}\x{2028}\x{2029}\x{202f}\x{205f}\x{3000}]"
)


class AddedToken(NamedTuple):
    """A string that is one token wherever it stands.

    Attributes:
        text: The string, not empty.
        id: Its token id.
        lstrip: Whether it takes the white space before it.
        rstrip: Whether it takes the white space after it.
        hidden: Whether it adds nothing to a decoded text, as a control token.
        normalized: Whether it is looked for, itself normalized, in the normalized text between
            tokens that are not; only `WordPieceTokenizer` has such tokens.

    Source:
        `AddedToken` of Hugging Face `tokenizers`.
    """

    text: str
    id: int
    lstrip: bool = False
    rstrip: bool = False
    hidden: bool = True
    normalized: bool = False


class Parts(NamedTuple):
    """Texts, parted at the added tokens in them: text, token, text, … for each of b rows.

    Attributes:
        texts: string[p], that of a token with the white space that it takes.
        is_token: bool[p].
        ids: int32[t], of the tokens among them.
        row_splits: int64[b + 1]: where the parts of each row begin and end.
    """

    texts: tf.Tensor
    is_token: tf.Tensor
    ids: tf.Tensor
    row_splits: tf.Tensor

    def fill(self, between: tf.RaggedTensor, alone: tf.Tensor) -> tf.RaggedTensor:
        """The rows that the parts make.

        Args:
            between: [p, None], what the texts between tokens give; nothing for a token.
            alone: [t], one for each token.
        """
        # Without the operations of ragged tensors, whose checks cost a graph more than the rest.
        ones = tf.cast(self.is_token, tf.int64)
        lengths = between.row_lengths() + ones
        part = tf.repeat(tf.range(tf.size(ones)), lengths)
        tokens_before = tf.gather(tf.cumsum(ones, exclusive=True), part)
        place = tf.range(tf.size(part, tf.int64))
        num_between = tf.size(between.values, tf.int64)
        source = tf.where(
            tf.gather(self.is_token, part), num_between + tokens_before, place - tokens_before
        )
        ends = tf.concat([[tf.constant(0, tf.int64)], tf.cumsum(lengths)], 0)
        return tf.RaggedTensor.from_row_splits(
            tf.gather(tf.concat([between.values, alone], 0), source),
            tf.gather(ends, self.row_splits),
            validate=False,
        )


def part_at_added(added: Sequence[AddedToken], texts: tf.Tensor) -> Parts:
    """Parts string[b], valid UTF-8, at added tokens; the leftmost and then the longest wins."""
    marked = tf.strings.regex_replace(texts, f"({_pattern(added)})", _MARK + rb"\1" + _MARK)
    parts = tf.strings.split(marked, _MARK)  # [b, 1, 3, 5, …]: text, token, text, …
    flat = parts.values
    row_starts = tf.gather(parts.row_splits, parts.value_rowids())
    is_token = tf.bitwise.bitwise_and(tf.range(tf.size(flat, tf.int64)) - row_starts, 1) == 1
    ids = _ids_of(added, tf.boolean_mask(flat, is_token))
    return Parts(flat, is_token, ids, parts.row_splits)


def tokenize_around(
    added: Sequence[AddedToken],
    texts: tf.Tensor,
    tokenize: Callable[[tf.Tensor], tf.RaggedTensor],
) -> tf.RaggedTensor:
    """Token ids of texts with added tokens in them.

    Args:
        added: The tokens, of which those to be found in normalized texts are left to `tokenize`.
        texts: string[b], valid UTF-8.
        tokenize: string[n] to ragged int32[n, None], for the text between added tokens.

    Returns:
        Ragged int32[b, None].
    """
    added = [token for token in added if not token.normalized]
    if not added:
        return tokenize(texts)
    parts = part_at_added(added, texts)
    return parts.fill(tokenize(tf.where(parts.is_token, "", parts.texts)), parts.ids)


def _pattern(added):
    """The first that matches wins: tokens that begin here go before those behind white space."""
    longest_first = sorted(added, key=lambda token: len(token.text.encode()), reverse=True)
    here = [
        re.escape(token.text) + (f"{_WHITE_SPACE}*" if token.rstrip else "")
        for token in longest_first
    ]
    behind = [
        f"{_WHITE_SPACE}+{pattern}"
        for token, pattern in zip(longest_first, here, strict=True)
        if token.lstrip
    ]
    return "|".join(here + behind)


def _ids_of(added, found):
    """int32[t], of string[t]: added tokens with the white space that they take."""
    spellings = tf.constant([token.text.encode() for token in added])
    takes_space = tf.constant([token.lstrip or token.rstrip for token in added])
    equal = tf.cast(found[:, None] == spellings, tf.int32)
    equal_bare = tf.cast((_bare(found)[:, None] == _bare(spellings)) & takes_space, tf.int32)
    # A token may itself be white space, so what is equal as it stands goes before.
    return tf.gather([token.id for token in added], tf.argmax(2 * equal + equal_bare, -1))


def _bare(strings):
    return tf.strings.regex_replace(strings, f"^{_WHITE_SPACE}+|{_WHITE_SPACE}+$", "")
