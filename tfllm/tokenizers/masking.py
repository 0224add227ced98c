"""Which tokens a masked language model has to guess in training, and what stands there instead."""

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import tensorflow as tf

from tfllm.errors import UserError
from tfllm.tokenizers.words import continues_word


class Masking(NamedTuple):
    """How tokens are masked.

    Attributes:
        rate: Fraction of a row's tokens that is guessed, above 0 and at most 1; one at least.
        mask: Fraction of these that becomes the mask.
        random: Fraction of these that becomes any token; the rest stays as it is.
        whole_words: Whether words are masked whole, as far as they fit into that number.

    Source:
        Devlin et al. 2019, section 3.1, https://arxiv.org/abs/1810.04805; whole words as in
        `create_pretraining_data.py` of https://github.com/google-research/bert.
    """

    rate: float = 0.15
    mask: float = 0.8
    random: float = 0.1
    whole_words: bool = False

    @classmethod
    def of(cls, given: Any) -> "Masking":
        """Itself, or made of a dict.

        Raises:
            UserError: a fraction is none, or two add up to more than 1.
        """
        masking = cls(**given) if isinstance(given, dict) else cls(*given)
        rate, *parts = masking[:3]
        if not (0 < rate <= 1 and min(parts) >= 0 and sum(parts) <= 1):
            raise UserError(
                "masking must have a rate above 0 and at most 1, and fractions of mask and random "
                f"of at most 1 together; got {masking}."
            )
        return masking


def mask(inputs, tokenizer, masking: Masking, uniform: Callable):
    """Masks tokens, but no special ones.

    Args:
        inputs: Dict of `token_ids` and `padding_mask`, each int32[b, t]; more is passed on.
        tokenizer: A `WordPieceTokenizer` with a mask.
        masking: How many, and by what.
        uniform: From a shape and the number of the draw to float32 numbers in [0, 1).

    Returns:
        The inputs with masked `token_ids` and with `mask_positions` int32[b, p], where p is the
        rate's part of t, rounded up, and static where t is; int32[b, p], the tokens that were
        there; float32[b, p], 1 where a token is to be guessed.
    """
    token_ids = inputs["token_ids"]
    rows, length = tf.unstack(tf.shape(token_ids))
    most = _most(masking.rate, token_ids.shape[1], length)
    may_be = inputs["padding_mask"] == 1
    for token_id in (tokenizer.cls_id, tokenizer.sep_id, tokenizer.mask_id):
        may_be &= token_ids != token_id
    there = tf.reduce_sum(tf.cast(may_be, tf.int32), -1)
    wanted = tf.cast(tf.round(masking.rate * tf.cast(there, tf.float32)), tf.int32)
    wanted = tf.minimum(tf.minimum(tf.maximum(wanted, 1), there), most)

    drawn = uniform(tf.stack([rows, length]), 0)
    if masking.whole_words:
        goes_on = tf.gather(tf.constant(continues_word(tokenizer)), token_ids)
        may_be &= _words_that_fit(may_be, goes_on, wanted, drawn)
        wanted = tf.reduce_sum(tf.cast(may_be, tf.int32), -1)
    positions = tf.math.top_k(tf.where(may_be, drawn, -1.0), most).indices  # [b, p]
    is_guessed = tf.sequence_mask(wanted, most)
    targets = tf.gather(token_ids, positions, batch_dims=1)

    kind = uniform(tf.stack([rows, most]), 1)
    size = tokenizer.vocabulary_size()
    other = tf.cast(uniform(tf.stack([rows, most]), 2) * size, tf.int32)
    becomes = tf.where(kind < masking.mask + masking.random, tf.minimum(other, size - 1), targets)
    becomes = tf.where(kind < masking.mask, tokenizer.mask_id, becomes)
    becomes = tf.where(is_guessed, becomes, targets)
    masked = _put(token_ids, positions, becomes)
    return (
        {**inputs, "token_ids": masked, "mask_positions": positions},
        targets,
        tf.cast(is_guessed, tf.float32),
    )


def _most(rate, static_length, length):
    """The rate's part of a row, rounded up: an int, or int32 where the length is not static."""
    if static_length is not None:
        return math.ceil(rate * static_length)
    return tf.cast(tf.math.ceil(rate * tf.cast(length, tf.float64)), tf.int32)


def _words_that_fit(may_be, goes_on, wanted, drawn):
    """Takes words in random order while they fit; one that does not is passed over.

    Args:
        may_be: bool[b, t], the tokens to choose from.
        goes_on: bool[b, t], which tokens go on with the word before them.
        wanted: int32[b], how many tokens at most.
        drawn: float32[b, t] in [0, 1), whose w-th number is that of the w-th word.

    Returns:
        bool[b, t], the tokens of the words that are taken.
    """
    rows, length = tf.unstack(tf.shape(may_be))
    follows = tf.concat([tf.zeros_like(may_be[:, :1]), may_be[:, :-1]], 1)
    begins = may_be & ~(goes_on & follows)
    word = tf.maximum(tf.cumsum(tf.cast(begins, tf.int32), -1) - 1, 0)  # [b, t]
    flat = word + tf.range(rows)[:, None] * length
    sizes = tf.math.unsorted_segment_sum(tf.cast(may_be, tf.int32), flat, rows * length)
    sizes = tf.reshape(sizes, [rows, length])
    order = tf.argsort(tf.where(sizes > 0, drawn, 1.0), axis=-1)
    sizes = tf.gather(sizes, order, batch_dims=1)

    def pass_over(is_out, _):
        """Finds where the words that are left stop to fit, and leaves out what never will."""
        ends = tf.cumsum(tf.where(is_out, 0, sizes), -1)
        fits = ends <= wanted[:, None]
        room = wanted - tf.reduce_max(tf.where(fits, ends, 0), -1)
        more = is_out | (~fits & (sizes > room[:, None]))
        return more, tf.reduce_any(more != is_out)

    is_out, _ = tf.while_loop(
        lambda _, changed: changed, pass_over, (tf.zeros_like(may_be), tf.constant(True))
    )
    taken = tf.gather(~is_out, tf.argsort(order, axis=-1), batch_dims=1)
    return tf.gather(taken, word, batch_dims=1)


def _put(token_ids, positions, values):
    rows, most = tf.unstack(tf.shape(positions))
    place = tf.stack([tf.repeat(tf.range(rows), most), tf.reshape(positions, [-1])], -1)
    return tf.tensor_scatter_nd_update(token_ids, place, tf.reshape(values, [-1]))
