"""Masked tokens, and how two pieces of text belong together."""

from dataclasses import dataclass

import tensorflow as tf

from tfllm.data.objectives.draws import uniform
from tfllm.errors import UserError
from tfllm.tokenizers import Tokenizer, WordPieceTokenizer
from tfllm.tokenizers.masking import Masking, mask

PAIRS = ("none", "next_sentence", "sentence_order")
FOLLOWS, DOES_NOT_FOLLOW = 0, 1  # as BERT's head has them

_OF_BERT = Masking()
# Which of a step's draws is for what; the masks take three.
_MASKS, _CHANGED, _OTHER = 0, 3, 4


@dataclass(frozen=True)
class MaskedLM:
    """Masked language modelling on pairs of neighbouring pieces.

    Args:
        tokenizer: A `WordPieceTokenizer` with its special tokens.
        rate: Fraction of a row's tokens that is guessed, above 0 and at most 1.
        mask: Fraction of these that becomes the mask.
        random: Fraction of these that becomes any token; the rest stays as it is.
        whole_words: Whether words are masked whole.
        pair: "none", "next_sentence" (a coin decides whether the second piece is that of another
            row of the batch; never the row's own) or "sentence_order" (a coin decides whether the
            two change places).

    Call arguments:
        columns: `first` and `second`, int[b, n], padded with -1; a row may have no second piece.
        seed: int64[2], the run's seed and the step.

    Returns:
        x: `token_ids`, `segment_ids` and `padding_mask`, int32[b, t] with t = 2n + 3: begin, first
            piece, separator, second piece, separator; and `mask_positions` int32[b, p], where p is
            the rate's part of t, rounded up.
        y: int32[b, p], the tokens that were there. With pairs a dict of that as `tokens` and of
            `pair` int32[b]: 0 where the pieces are as in the text, 1 where not.
        weight: float32[b, p], 1 where a token is to be guessed. With pairs a dict, in which that
            of the `pair` float32[b] is 0 where there are no two pieces.

    Raises:
        UserError: at construction, a setting is none or the tokenizer has no such tokens; at a
            call, there is no other row.

    Source:
        Devlin et al. 2019, section 3.1, https://arxiv.org/abs/1810.04805; the order of sentences:
        Lan et al. 2020, section 3.1, https://arxiv.org/abs/1909.11942
    """

    tokenizer: Tokenizer
    rate: float = _OF_BERT.rate
    mask: float = _OF_BERT.mask
    random: float = _OF_BERT.random
    whole_words: bool = _OF_BERT.whole_words
    pair: str = "none"

    def __post_init__(self):
        self._masking()
        if self.pair not in PAIRS:
            raise UserError(f"pair must be one of {', '.join(PAIRS)}; got {self.pair!r}.")
        tokenizer = self.tokenizer
        if not isinstance(tokenizer, WordPieceTokenizer) or (
            min(tokenizer.cls_id, tokenizer.sep_id, tokenizer.mask_id) < 0
        ):
            raise UserError(
                "masked_lm needs a WordPieceTokenizer with a begin, a separator and a mask: "
                "prepare the text with --tokenizer wordpiece."
            )

    def _masking(self):
        return Masking.of((self.rate, self.mask, self.random, self.whole_words))

    def __call__(self, columns, seed):
        first, second = (tf.cast(columns[name], tf.int32) for name in ("first", "second"))
        is_pair = tf.reduce_any(first >= 0, -1) & tf.reduce_any(second >= 0, -1)
        first, second, label = self._paired(first, second, seed)
        # The piece of another row may be an empty one.
        is_pair &= tf.reduce_any(second >= 0, -1)
        inputs = self._joined(first, second)
        x, targets, weight = mask(
            inputs,
            self.tokenizer,
            self._masking(),
            lambda shape, draw: uniform(seed, _MASKS + draw, shape),
        )
        if self.pair == "none":
            return x, targets, weight
        return (
            x,
            {"tokens": targets, "pair": label},
            {"tokens": weight, "pair": tf.cast(is_pair, tf.float32)},
        )

    def _paired(self, first, second, seed):
        """The two pieces as they are shown, and int32[b], whether they were changed."""
        rows = first.shape[0]
        changed = uniform(seed, _CHANGED, [rows]) < 0.5
        if self.pair == "next_sentence":
            if rows < 2:
                raise UserError('pair="next_sentence" needs batches of at least 2 rows.')
            further = 1 + tf.cast(uniform(seed, _OTHER, [rows]) * (rows - 1), tf.int32)
            # The product may round up to rows - 1, and so around to the row itself.
            other = (tf.range(rows) + tf.minimum(further, rows - 1)) % rows
            others = tf.gather(second, other)
            # In a batch with a row twice, as of few rows, the other one may be the row itself.
            changed &= tf.reduce_any(others != second, -1)
            second = tf.where(changed[:, None], others, second)
        elif self.pair == "sentence_order":
            first, second = (
                tf.where(changed[:, None], second, first),
                tf.where(changed[:, None], first, second),
            )
        return first, second, tf.cast(changed, tf.int32)

    def _joined(self, first, second):
        """The inputs of an encoder for int32[b, n] twice, each padded with -1 at its end."""
        tokenizer = self.tokenizer
        rows, size = first.shape
        length = 2 * size + 3
        # What a row is made of: its two pieces, and the three tokens that stand around them.
        special = tf.constant([tokenizer.cls_id, tokenizer.sep_id, tokenizer.padding_id])
        parts = tf.concat([first, second, tf.tile(special[None], [rows, 1])], 1)
        begin, separator, padding = 2 * size, 2 * size + 1, 2 * size + 2

        num_first, num_second = (
            tf.reduce_sum(tf.cast(piece >= 0, tf.int32), -1, keepdims=True)
            for piece in (first, second)
        )
        place = tf.range(length)[None]
        in_second = place - num_first - 2
        # A row without a second piece has one separator alone.
        end = num_first + 2 + tf.where(num_second > 0, num_second + 1, 0)
        source = tf.where(place < end, separator, padding)
        source = tf.where((in_second >= 0) & (in_second < num_second), size + in_second, source)
        source = tf.where(place <= num_first, place - 1, source)
        source = tf.where(place == 0, begin, source)
        return {
            "token_ids": tf.gather(parts, source, batch_dims=1),
            "segment_ids": tf.cast((in_second >= 0) & (place < end), tf.int32),
            "padding_mask": tf.cast(place < end, tf.int32),
        }
