"""Noise on the words of a source, so that to repeat it takes understanding."""

from typing import NamedTuple

import numpy as np
import tensorflow as tf

from tfllm.data.objectives.draws import uniform
from tfllm.errors import UserError
from tfllm.tokenizers import Tokenizer
from tfllm.tokenizers.words import continues_word

_DROPPED, _MASKED, _MOVED = 0, 1, 2  # draws of a step


class Noise(NamedTuple):
    """What happens to the words of a source.

    Attributes:
        drop: Fraction of the words that is left out, in [0, 1).
        mask: Fraction of the words whose tokens become the unknown token, in [0, 1).
        shuffle: Number of places that a word moves at most; 0 = none.

    Source:
        Lample et al. 2018, section 2.3, https://arxiv.org/abs/1711.00043 (0.1 and 3 there); the
        masks as in section 4 of https://arxiv.org/abs/1804.07755.
    """

    drop: float = 0.0
    mask: float = 0.0
    shuffle: int = 0

    def check(self, tokenizer: Tokenizer) -> None:
        """Refuses what cannot be done.

        Raises:
            UserError: a number is out of its range, or the tokenizer has no unknown token.
        """
        if not (0 <= self.drop < 1 and 0 <= self.mask < 1 and self.shuffle >= 0):
            raise UserError(
                "drop and mask must be fractions of the words, at least 0 and below 1, and shuffle "
                f"a number of places of at least 0; got {self}."
            )
        if self.mask and tokenizer.unk_id < 0:
            raise UserError(
                "mask needs a tokenizer with an unknown token, and this one reads every text: "
                "leave it at 0."
            )


def word_table(tokenizer: Tokenizer, whole_words: bool) -> np.ndarray:
    """bool[v], which tokens go on with the word before them; none if each is its own word.

    Raises:
        UserError: the words of the source are not known.
    """
    if not whole_words:
        return np.zeros(tokenizer.source_vocabulary_size(), bool)
    table = continues_word(tokenizer)
    if len(table) != tokenizer.source_vocabulary_size():
        raise UserError(
            "The tokenizer has a vocabulary of its own for the source, whose words are not known: "
            "give whole_words=False."
        )
    return table


def add_noise(token_ids, segments, noise: Noise, tokenizer: Tokenizer, goes_on, seed):
    """Leaves out, masks and moves words within the texts of packed rows.

    The last token of a text, its end, and added tokens are neither left out nor masked; the end
    stays the last one, and an added token at the beginning (of a language) the first.

    Args:
        token_ids: int32[b, t].
        segments: int32[b, t], 1, 2, … for the texts of the row, 0 = padding.
        noise: How much.
        tokenizer: With `added_tokens`, `unk_id` and `padding_id`.
        goes_on: bool[v], see `word_table`.
        seed: int64[2], the run's seed and the step.

    Returns:
        int32[b, t] twice: the tokens, and the segments; what was left out makes the row shorter.
    """
    shape = token_ids.shape
    present = segments > 0
    special = np.zeros(len(goes_on), bool)
    special[[token.id for token in tokenizer.added_tokens]] = True
    after = tf.pad(segments, [[0, 0], [0, 1]])[:, 1:]
    is_end = present & (segments != after)
    fixed = is_end | tf.gather(special, token_ids)
    same_word = tf.gather(goes_on, token_ids) & ~fixed
    # Padding may be a token like others, which would go on with a word before the first.
    word = tf.maximum(tf.cumsum(tf.cast(~same_word, tf.int32), -1) - 1, 0)  # [b, t]

    def of_words(draw):
        return tf.gather(uniform(seed, draw, shape), word, batch_dims=1)

    kept = present & (fixed | (of_words(_DROPPED) >= noise.drop))
    masked = ~fixed & (of_words(_MASKED) < noise.mask)
    token_ids = tf.where(masked, tokenizer.unk_id, token_ids)

    # Words in the order of their place plus a number in [0, k + 1): no word moves more than k.
    moved = tf.where(fixed, 0.0, of_words(_MOVED) * (noise.shuffle + 1))
    key = tf.where(is_end, tf.float32.max, tf.cast(word, tf.float32) + moved)
    order = tf.argsort(key, axis=-1, stable=True)
    # By two stable sorts: within the texts, and then the texts themselves.
    text = tf.where(kept, segments, tf.int32.max)
    order = tf.gather(
        order, tf.argsort(tf.gather(text, order, batch_dims=1), axis=-1, stable=True), batch_dims=1
    )
    token_ids = tf.where(kept, token_ids, tokenizer.padding_id)
    segments = tf.where(kept, segments, 0)
    return tf.gather(token_ids, order, batch_dims=1), tf.gather(segments, order, batch_dims=1)
