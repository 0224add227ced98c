"""Scores of tokens that a row has said already, made smaller."""

from collections.abc import Callable
from typing import NamedTuple

import tensorflow as tf

from tfllm.decoding.ngrams import Text


class Penalties(NamedTuple):
    """How much less likely tokens become, per row.

    Of a token that is in the text, the prompt with it, the score is first divided by `repetition`
    (multiplied, where it is below 0). Then it loses `frequency` as often as the row itself wrote
    the token, and `presence` if it ever did; the prompt does not count for these two.

    Attributes:
        repetition: float32[b], above 0; 1 = off.
            Keskar et al. 2019, section 4.1, https://arxiv.org/abs/1909.05858
        presence: float32[b], from -2 to 2; 0 = off.
        frequency: float32[b], from -2 to 2; 0 = off.
            Both: "Frequency and presence penalties" of OpenAI's API reference,
            https://platform.openai.com/docs/api-reference/completions/create

    Source:
        The order is that of vLLM: `apply_penalties` in vllm/model_executor/layers/utils.py.
    """

    repetition: tf.Tensor
    presence: tf.Tensor
    frequency: tf.Tensor

    @property
    def any(self) -> tf.Tensor:
        """bool scalar, whether a row has one."""
        return tf.reduce_any(self.repetition != 1.0) | self._any_counts

    @property
    def _any_counts(self):
        return tf.reduce_any((self.presence != 0.0) | (self.frequency != 0.0))

    def taken_from(self, scores, history: Callable[[], tf.Tensor], written: Text) -> tf.Tensor:
        """float32[b, v] scores with the penalties of their rows.

        Args:
            scores: float32[b, v].
            history: Makes int32[b, n], tokens of the text in any order; repeats are fine.
            written: What the rows wrote; tokens behind the `count` are any of the vocabulary.
        """
        scores = tf.cond(
            tf.reduce_any(self.repetition != 1.0),
            lambda: _divided(scores, self.repetition[:, None], history()),
            lambda: scores,
        )
        return tf.cond(self._any_counts, lambda: self._lowered(scores, written), lambda: scores)

    def _lowered(self, scores, written: Text):
        is_one = tf.range(tf.shape(written.token_ids)[1])[None] < written.count[:, None]
        # Whole numbers: the sum is the same in any order and with any filling.
        count = tf.scatter_nd(
            _places(written.token_ids), tf.cast(is_one, scores.dtype), tf.shape(scores)
        )
        scores -= self.frequency[:, None] * count
        return scores - self.presence[:, None] * tf.cast(count > 0, scores.dtype)


def _divided(scores, penalty, history):
    seen = tf.gather(scores, history, batch_dims=1)  # [b, n]
    seen = tf.where(seen < 0, seen * penalty, seen / penalty)
    return tf.tensor_scatter_nd_update(scores, _places(history), seen)


def _places(token_ids):
    """int32[b, n, 2], the row and the token of each."""
    rows = tf.range(tf.shape(token_ids)[0])[:, None]
    return tf.stack([tf.broadcast_to(rows, tf.shape(token_ids)), token_ids], -1)
