"""Texts to the inputs of an encoder: begin, first text, separator, second text, separator."""

from typing import NamedTuple

import tensorflow as tf

from tfllm.decoding.decodable import rounded_up

# So many bytes at the beginning of a text nearly always hold a token each; the rest of a very long
# text is not tokenized, because its neighbours would wait for it.
_BYTES_PER_TOKEN = 64
# The word at the cut may be parted into other tokens than the whole word: so many at most.
_TOKENS_OF_A_WORD = 128
# Rows are padded to a multiple of this: 16 costs short texts 10 % more, 32 a third, and new shapes
# cost an encoder little.
_MULTIPLE = 8


def most_bytes(num_tokens: int) -> int:
    """How much of a text is read for so many tokens."""
    return _BYTES_PER_TOKEN * (num_tokens + _TOKENS_OF_A_WORD)


def beginnings(texts, num_tokens: int) -> tf.Tensor:
    """As much of each of string[b] as is read for so many tokens; the last one may be cut."""
    return tf.strings.substr(texts, 0, most_bytes(num_tokens))


def are_lost(texts, counts, num_tokens: int) -> tf.Tensor:
    """bool[b], where `beginnings` cut a text and there were too few tokens before.

    Args:
        texts: string[b].
        counts: int32[b], tokens of each beginning.
        num_tokens: As many were asked for.
    """
    is_cut = tf.strings.length(texts) > most_bytes(num_tokens)
    return is_cut & (counts < num_tokens + _TOKENS_OF_A_WORD)


def truncated_lengths(first, second, room):
    """How many tokens of two texts are kept: first the longer loses tokens, then both do.

    Args:
        first: int[b], tokens of the first text.
        second: int[b], of the second.
        room: int[b], for both together.

    Returns:
        int[b] for each.

    Source:
        `longest_first` of Hugging Face `tokenizers`: an odd token goes to the longer text, and to
        the second of two equal ones.
    """
    short, long = tf.minimum(first, second), tf.maximum(first, second)
    long = tf.minimum(long, tf.maximum(short, room - short))
    half = room // 2
    both = short + long > room
    short, long = tf.where(both, half, short), tf.where(both, room - half, long)
    swapped = first > second
    return tf.where(swapped, long, short), tf.where(swapped, short, long)


class Parts(NamedTuple):
    """Neighbouring tokens of ragged rows, n of them.

    Attributes:
        row: int32[n], which row each is of.
        start: int32[n], the first token of it.
        size: int32[n], how many tokens.
    """

    row: tf.Tensor
    start: tf.Tensor
    size: tf.Tensor


def join(
    tokenizer,
    ids: tf.RaggedTensor,
    first: Parts,
    second: Parts,
    has_second,
    *,
    length: int,
    to_longest: bool = True,
) -> dict[str, tf.Tensor]:
    """The inputs of an encoder for one or two texts per row, with their special tokens.

    Args:
        tokenizer: With `cls_id`, `sep_id` and `padding_id`.
        ids: Ragged int32[b, None], tokens of texts.
        first: Of n first texts.
        second: Of n second texts.
        has_second: bool[n], where there is a second text (it may have no tokens).
        length: Tokens of a row at most; no row may have more.
        to_longest: Whether rows are padded to little more than the longest, or all to `length`.

    Returns:
        `token_ids`, `segment_ids` and `padding_mask`, each int32[n, t].
    """
    more = tf.cast(has_second, tf.int32)
    end_of_first = first.size + 1
    lengths = first.size + 2 + second.size + more
    width = padded_width(lengths, length) if to_longest else length
    place = tf.range(width)[None]
    # A gather of nothing would fail where there is no token at all.
    values = tf.concat([ids.values, [tokenizer.padding_id]], 0)
    splits = tf.cast(ids.row_splits, tf.int32)

    def source(parts, before):
        """Where the token of each place stands in `values`, and whether it is of these parts."""
        at = place - before[:, None]
        begin = tf.gather(splits, parts.row) + parts.start
        return begin[:, None] + at, (at >= 0) & (at < parts.size[:, None])

    of_first, in_first = source(first, tf.ones_like(end_of_first))
    of_second, in_second = source(second, end_of_first + 1)
    nothing = tf.size(values) - 1
    token_ids = tf.gather(
        values, tf.where(in_first, of_first, tf.where(in_second, of_second, nothing))
    )
    present = place < lengths[:, None]
    token_ids = tf.where(present & ~in_first & ~in_second, tokenizer.sep_id, token_ids)
    token_ids = tf.where(place == 0, tokenizer.cls_id, token_ids)
    inputs = {
        "token_ids": token_ids,
        "segment_ids": tf.cast(present & (place > end_of_first[:, None]), tf.int32),
        "padding_mask": tf.cast(present, tf.int32),
    }
    for tensor in inputs.values():
        tensor.set_shape([None, None if to_longest else length])
    return inputs


def padded_width(lengths, most: int) -> tf.Tensor:
    """int32 scalar: the longest of int32[n] lengths, rounded up, at most `most`."""
    longest = tf.reduce_max(tf.concat([lengths, [1]], 0))
    return tf.minimum(rounded_up(longest, _MULTIPLE), most)


def encoder_inputs(tokenizer, first, second, length: int, to_longest: bool = True):
    """The inputs of an encoder for texts or pairs of them.

    Args:
        tokenizer: With `cls_id`, `sep_id` and `padding_id`.
        first: string[b].
        second: string[b], "" where there is no second text; or None.
        length: Tokens of a row at most.
        to_longest: As of `join`.

    Returns:
        The inputs as of `join`; and bool[b], where a text could not be read to its cut.
    """
    rows = tf.size(first)
    row, zero = tf.range(rows), tf.zeros([rows], tf.int32)
    texts = first if second is None else tf.concat([first, second], 0)  # the tokenizer once only
    ids = tf.cast(tokenizer.tokenize(beginnings(texts, length)), tf.int32)
    sizes = tf.cast(ids.row_lengths(), tf.int32)
    is_lost = are_lost(texts, sizes, length)
    if second is None:
        parts = Parts(row, zero, tf.minimum(sizes, length - 2)), Parts(row, zero, zero)
        has_second = tf.fill([rows], False)
    else:
        has_second = second != ""
        is_lost = is_lost[:rows] | is_lost[rows:]
        room = length - 2 - tf.cast(has_second, tf.int32)
        kept = truncated_lengths(sizes[:rows], sizes[rows:], room)
        parts = Parts(row, zero, kept[0]), Parts(rows + row, zero, kept[1])
    inputs = join(tokenizer, ids, *parts, has_second, length=length, to_longest=to_longest)
    return inputs, is_lost
