"""Which tokens a masked language model has to guess in training."""

from collections.abc import Callable
from typing import Any, NamedTuple

import tensorflow as tf

from tfllm.errors import UserError


class Masking(NamedTuple):
    """How tokens are masked.

    Attributes:
        rate: Fraction of a row's tokens that is guessed, above 0 and at most 1; one at least.
        mask: Fraction of these that becomes the mask.
        random: Fraction of these that becomes any token; the rest stays as it is.

    Source:
        Devlin et al. 2019, section 3.1, https://arxiv.org/abs/1810.04805
    """

    rate: float = 0.15
    mask: float = 0.8
    random: float = 0.1

    @classmethod
    def of(cls, given: Any) -> "Masking":
        """Itself, or made of a dict.

        Raises:
            UserError: a fraction is none, or two add up to more than 1.
        """
        masking = cls(**given) if isinstance(given, dict) else cls(*given)
        if not (0 < masking.rate <= 1 and min(masking[1:]) >= 0 and sum(masking[1:]) <= 1):
            raise UserError(
                "masking must have a rate above 0 and at most 1, and fractions of mask and random "
                f"of at most 1 together; got {masking}."
            )
        return masking


def mask(inputs, tokenizer, masking: Masking, uniform: Callable):
    """Masks tokens, but no special ones.

    Args:
        inputs: Dict of `token_ids`, `segment_ids` and `padding_mask`, each int32[b, t].
        tokenizer: With `cls_id`, `sep_id`, `mask_id` and `vocabulary_size`.
        masking: How many, and by what.
        uniform: From a shape and the number of the draw to float32 numbers in [0, 1).

    Returns:
        The inputs with masked `token_ids` and with `mask_positions` int32[b, p]; int32[b, p], the
        tokens that were there; float32[b, p], 1 where a token is to be guessed.
    """
    token_ids = inputs["token_ids"]
    rows, length = tf.unstack(tf.shape(token_ids))
    may_be = inputs["padding_mask"] == 1
    for token_id in (tokenizer.cls_id, tokenizer.sep_id, tokenizer.mask_id):
        may_be &= token_ids != token_id
    there = tf.reduce_sum(tf.cast(may_be, tf.int32), -1)
    wanted = tf.cast(tf.round(masking.rate * tf.cast(there, tf.float32)), tf.int32)
    wanted = tf.minimum(tf.maximum(wanted, 1), there)
    most = tf.cast(tf.math.ceil(masking.rate * tf.cast(length, tf.float32)), tf.int32)
    drawn = uniform(tf.stack([rows, length]), 0)
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


def unmask(token_ids, positions, targets):
    """int32[b, t], the tokens that were there before `mask`."""
    return _put(token_ids, positions, targets)


def _put(token_ids, positions, values):
    rows, most = tf.unstack(tf.shape(positions))
    place = tf.stack([tf.repeat(tf.range(rows), most), tf.reshape(positions, [-1])], -1)
    return tf.tensor_scatter_nd_update(token_ids, place, tf.reshape(values, [-1]))
