"""What may be said at which step, whatever the model thinks: fixed with the model, not per row."""

from typing import NamedTuple

import tensorflow as tf

_NEVER = float("-inf")


class Rules(NamedTuple):
    """Constants of one model.

    Attributes:
        end_token_ids: Tokens that end a text, at least one.
        suppressed_token_ids: Tokens that are never said.
        forced_first_token_id: The only first token; -1 = free.
        forced_last_token_id: The only token where the limit ends a text; -1 = free.
        min_new_tokens: Before this many tokens no text ends.

    Source:
        `forced_bos_token_id`, `forced_eos_token_id`, `bad_words_ids`, `suppress_tokens` and
        `min_new_tokens` of the generation configuration of Hugging Face `transformers`.
    """

    end_token_ids: tuple[int, ...]
    suppressed_token_ids: tuple[int, ...] = ()
    forced_first_token_id: int = -1
    forced_last_token_id: int = -1
    min_new_tokens: int = 0

    def restrict(self, scores: tf.Tensor, step, limit) -> tf.Tensor:
        """The scores, minus infinity for what may not be said.

        Args:
            scores: float32[b, v], logits or log-probabilities.
            step: int32 scalar, the index of the new token.
            limit: int32[b], new tokens of each row at most.

        Returns:
            float32[b, v].
        """
        vocabulary_size = scores.shape[-1]

        def among(*token_ids):  # bool[v]
            return tf.reduce_any(tf.one_hot(token_ids, vocabulary_size, True, False), 0)

        if self.suppressed_token_ids:
            scores = tf.where(among(*self.suppressed_token_ids), _NEVER, scores)
        if self.min_new_tokens:
            early = among(*self.end_token_ids) & (step < self.min_new_tokens)
            scores = tf.where(early, _NEVER, scores)
        if self.forced_first_token_id >= 0:
            scores = _only(among(self.forced_first_token_id), scores, step == 0)
        if self.forced_last_token_id >= 0:
            last = (step == limit - 1)[:, None]
            scores = _only(among(self.forced_last_token_id), scores, last)
        return scores

    def ends(self, token_ids: tf.Tensor) -> tf.Tensor:
        """Whether each token ends a text: bool, of the shape of `token_ids`."""
        return tf.reduce_any(tf.equal(token_ids[..., None], list(self.end_token_ids)), -1)


def _only(token, scores, now):
    """Score 0 for the token and minus infinity for the others, where it is time for it."""
    return tf.where(now, tf.where(token, 0.0, _NEVER), scores)
