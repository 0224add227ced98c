"""Tokens that are recognised by their text, before a tokenizer reads what is between them."""

import re
from collections.abc import Callable, Sequence
from typing import NamedTuple

import tensorflow as tf

_MARK = b"\xff"  # in no valid UTF-8, so in no text


class AddedToken(NamedTuple):
    """A string that is one token wherever it stands.

    Attributes:
        text: The string, not empty.
        id: Its token id.
        lstrip: Whether it takes the white space before it.
        rstrip: Whether it takes the white space after it.
        hidden: Whether it adds nothing to a decoded text, as a control token.

    Source:
        `AddedToken` of Hugging Face `tokenizers`.
    """

    text: str
    id: int
    lstrip: bool = False
    rstrip: bool = False
    hidden: bool = True


def tokenize_around(
    added: Sequence[AddedToken],
    texts: tf.Tensor,
    tokenize: Callable[[tf.Tensor], tf.RaggedTensor],
) -> tf.RaggedTensor:
    """Token ids of texts with added tokens in them; the leftmost and then the longest wins.

    Args:
        added: The tokens.
        texts: string[b], valid UTF-8.
        tokenize: string[n] to ragged int32[n, None], for the text between added tokens.

    Returns:
        Ragged int32[b, None].
    """
    if not added:
        return tokenize(texts)
    longest_first = sorted(added, key=lambda token: len(token.text.encode()), reverse=True)
    pattern = "|".join(map(_pattern, longest_first))
    marked = tf.strings.regex_replace(texts, f"({pattern})", _MARK + rb"\1" + _MARK)
    parts = tf.strings.split(marked, _MARK)  # [b, 1, 3, 5, …]: text, token, text, …
    flat = parts.values
    row_starts = tf.gather(parts.row_splits, parts.value_rowids())
    is_token = tf.bitwise.bitwise_and(tf.range(tf.size(flat, tf.int64)) - row_starts, 1) == 1
    between = tokenize(tf.where(is_token, "", flat))
    spellings = tf.constant([token.text.encode() for token in added])
    same = tf.strings.strip(tf.boolean_mask(flat, is_token))[:, None] == _stripped(spellings)
    ids = tf.gather([token.id for token in added], tf.argmax(same, -1))
    alone = tf.RaggedTensor.from_row_lengths(tf.cast(ids, tf.int32), tf.cast(is_token, tf.int64))
    pieces = tf.concat([between, alone], 1)  # one of the two is empty in each part
    return tf.RaggedTensor.from_row_splits(
        pieces.values, tf.gather(pieces.row_splits, parts.row_splits)
    )


def _pattern(token: AddedToken) -> str:
    before, after = (r"\s*" if strip else "" for strip in (token.lstrip, token.rstrip))
    return before + re.escape(token.text) + after


def _stripped(spellings):
    return tf.strings.strip(spellings)[None]
