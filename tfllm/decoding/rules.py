"""What may be said at which step, whatever the model thinks: fixed with the model, not per row."""

from collections.abc import Callable
from typing import Any, NamedTuple

import tensorflow as tf

from tfllm.decoding.ngrams import Text, repeating

_NEVER = float("-inf")


class Rules(NamedTuple):
    """Constants of one model.

    Attributes:
        end_token_ids: Tokens that end a text, at least one.
        suppressed_token_ids: Tokens that are never said.
        forced_first_token_id: The only first token; -1 = free.
        forced_last_token_id: The only token where the limit ends a text; -1 = free.
        min_new_tokens: Before this many tokens no text ends.
        no_repeat_ngram_size: No so many tokens in a row come twice in a text; 0 = they may.

    Source:
        `forced_bos_token_id`, `forced_eos_token_id`, `bad_words_ids`, `suppress_tokens`,
        `min_new_tokens` and `no_repeat_ngram_size` of the generation configuration of Hugging Face
        `transformers`.
    """

    end_token_ids: tuple[int, ...]
    suppressed_token_ids: tuple[int, ...] = ()
    forced_first_token_id: int = -1
    forced_last_token_id: int = -1
    min_new_tokens: int = 0
    no_repeat_ngram_size: int = 0

    def restrict(
        self, scores: tf.Tensor, step, limit, text: Callable[[], Text], certain: Any = 0.0
    ) -> tf.Tensor:
        """The scores, minus infinity for what may not be said.

        Args:
            scores: float32[b, v], logits or log-probabilities.
            step: int32 scalar or int32[b], the index of the new token.
            limit: int32[b], new tokens of each row at most.
            text: Makes the text that the new token goes behind, with its prompt.
            certain: The score of a token that is forced, a number or float32[b, 1].

        Returns:
            float32[b, v].
        """
        vocabulary_size = scores.shape[-1]
        step = tf.broadcast_to(step, tf.shape(limit))[:, None]

        def among(*token_ids):  # bool[v]
            return tf.reduce_any(tf.one_hot(token_ids, vocabulary_size, True, False), 0)

        if self.no_repeat_ngram_size:
            again = repeating(text(), self.no_repeat_ngram_size, vocabulary_size)
            scores = tf.where(again, _NEVER, scores)
        if self.suppressed_token_ids:
            scores = tf.where(among(*self.suppressed_token_ids), _NEVER, scores)
        if self.min_new_tokens:
            early = among(*self.end_token_ids) & (step < self.min_new_tokens)
            scores = tf.where(early, _NEVER, scores)
        if self.forced_first_token_id >= 0:
            first = among(self.forced_first_token_id)
            scores = _only(first, scores, step == 0, certain)
        if self.forced_last_token_id >= 0:
            last = step == limit[:, None] - 1
            scores = _only(among(self.forced_last_token_id), scores, last, certain)
        return scores

    def ends(self, token_ids: tf.Tensor) -> tf.Tensor:
        """Whether each token ends a text: bool, of the shape of `token_ids`."""
        return tf.reduce_any(tf.equal(token_ids[..., None], list(self.end_token_ids)), -1)


def _only(token, scores, now, certain):
    """The token is certain and the others are impossible, where it is time for it."""
    return tf.where(now, tf.where(token, certain, _NEVER), scores)
