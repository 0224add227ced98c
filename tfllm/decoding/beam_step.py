"""One step of beam search: of the texts so far and their next logits, which go on, which end."""

from collections.abc import Callable
from typing import Any, Literal, NamedTuple

import tensorflow as tf

from tfllm.decoding.ngrams import Text
from tfllm.decoding.penalties import Penalties
from tfllm.decoding.rules import Rules
from tfllm.decoding.vocabulary import best, log_total

# The score of a text that is not there. `transformers` has the same number, and it shows where
# fewer than k texts are possible; minus infinity would make every comparison with it fail.
NO_TEXT = -1.0e9


class Said(NamedTuple):
    """What each beam says so far, made only where it is looked at.

    Attributes:
        history: int32[b * k, n], all its tokens in any order; repeats are fine.
        text: Its `Text`.
        written: Of that, what stands behind the prompt.
    """

    history: Callable[[], tf.Tensor]
    text: Callable[[], Text]
    written: Text


class Open(NamedTuple):
    """Texts that may go on, best first: j of each row.

    Attributes:
        token_ids: int32[b, j, n], filled up to the step.
        last: int32[b, j], the newest token.
        parent: int32[b, j], the text, of the k before this step, that each continues.
        logprob: float32[b, j].
    """

    token_ids: tf.Tensor
    last: tf.Tensor
    parent: tf.Tensor
    logprob: tf.Tensor


class Beams(NamedTuple):
    """The k best texts that ended in each row, best first.

    Where fewer than k texts are possible (the tokens are forced, say), the rest mean nothing and
    have scores around -1e9. A row whose limit is 0 has k texts of no tokens and score 0.

    Attributes:
        token_ids: int32[b, k, n], the new tokens; those after a text's `num_tokens` mean nothing.
        num_tokens: int32[b, k], with the end token if it came.
        score: float32[b, k], `logprob` / `num_tokens` ** length penalty.
        logprob: float32[b, k], summed after the penalties and the rules (a forced token counts
            0), natural logarithm.
        stopped: bool[b, k], ended by an end token rather than by the limit.
    """

    token_ids: tf.Tensor
    num_tokens: tf.Tensor
    score: tf.Tensor
    logprob: tf.Tensor
    stopped: tf.Tensor


class BeamStep(NamedTuple):
    """The settings of a search, and the parts of its step.

    Attributes:
        limit: int32[b], new tokens at most.
        num_beams: k.
        length_penalty: float32[b].
        early_stopping: When a row is done, see `beam_search`.
        rules: What may be said when, and what ends a text.
        penalties: Per row, or None.

    Source:
        `GenerationMixin._beam_search` and its parts in Hugging Face `transformers` 5.23,
        generation/utils.py.
    """

    limit: tf.Tensor
    num_beams: int
    length_penalty: tf.Tensor
    early_stopping: bool | Literal["never"]
    rules: Rules
    penalties: Penalties | None

    def __call__(self, logits, said: Said, beams: Open, kept: Beams, done, step):
        """Adds the token `step` to every text.

        Args:
            logits: float32[b * k, v].
            said: By each beam so far.
            beams: The texts that go on, k per row.
            kept: The texts that ended.
            done: bool[b], rows whose `kept` is final.
            step: int32 scalar.

        Returns:
            `beams`, `kept` and `done` after it.
        """
        scores, total = self._scores(logits, said, step)
        found = self._continuations(scores, total, beams, step)
        stopped = self.rules.ends(found.last)
        over = stopped | (step + 1 >= self.limit)[:, None]
        kept = self._ended(found, over, stopped, kept, done, step)
        left = found._replace(logprob=found.logprob + tf.where(over, NO_TEXT, 0.0))
        beams = _taken(left, tf.math.top_k(left.logprob, self.num_beams).indices)
        done |= self._hopeless(beams, kept, step) | tf.reduce_all(over, -1)
        return beams, kept, done

    def _scores(self, logits, said: Said, step):
        """Scores after the penalties and the rules, and what they exceed.

        Returns:
            float32[b * k, v]; float32[b * k, 1], the scores less this are log-probabilities. Only
            of the best ones it is taken away.
        """
        # `transformers` penalizes the logits in greedy search, their softmax in beam search.
        if self.num_beams == 1:
            logits = self._penalized(logits, said)
        total = log_total(logits)[:, None]
        if self.num_beams > 1:
            logits = self._penalized(logits, said, total)
        limit = tf.repeat(self.limit, self.num_beams)
        return self.rules.restrict(logits, step, limit, said.text, certain=total), total

    def _penalized(self, logits, said: Said, total: Any = 0.0):
        if self.penalties is None:
            return logits
        penalties = Penalties(*(tf.repeat(x, self.num_beams) for x in self.penalties))
        return tf.cond(
            penalties.any,
            lambda: penalties.taken_from(logits - total, said.history, said.written) + total,
            lambda: logits,
        )

    def _continuations(self, scores, total, beams: Open, step) -> Open:
        """The best, so many that k are left when all that can end do so."""
        rows, k = tf.shape(beams.last)[0], self.num_beams
        count = k * max(2, 1 + len(self.rules.end_token_ids))
        # The best of each beam first: then no sum over the vocabulary is made.
        each = min(count, scores.shape[-1])
        found, tokens = best(scores, each)
        found = tf.reshape(found - total, [rows, k, each]) + beams.logprob[..., None]
        logprob, place = tf.math.top_k(tf.reshape(found, [rows, k * each]), count)
        token = tf.gather(tf.reshape(tokens, [rows, k * each]), place, batch_dims=1)
        beam = place // each
        before = tf.gather(beams.token_ids, beam, batch_dims=1)
        here = tf.range(tf.shape(before)[-1]) == step
        return Open(
            token_ids=tf.where(here, token[..., None], before),
            last=token,
            parent=beam,
            logprob=logprob,
        )

    def _ended(self, found: Open, over, stopped, kept: Beams, done, step) -> Beams:
        """The k best of `kept` and of what is `over` now, unless the row is done."""
        k = self.num_beams
        length = tf.cast(step + 1, tf.float32) ** self.length_penalty[:, None]
        new = Beams(
            token_ids=found.token_ids,
            num_tokens=tf.zeros_like(found.last) + step + 1,
            score=tf.where(over, found.logprob / length, float("-inf")),
            logprob=found.logprob,
            stopped=stopped,
        )
        # Behind the first k there are only those that replace them where they end.
        both = tf.nest.map_structure(lambda old, new: tf.concat([old, new[:, :k]], 1), kept, new)
        first = tf.math.top_k(both.score, k).indices
        return _taken(both, tf.where(done[:, None], tf.range(k), first))

    def _hopeless(self, beams: Open, kept: Beams, step):
        """bool[b], no open text is expected to get among the best that ended."""
        length = tf.zeros_like(self.limit) + step + 1
        if self.early_stopping == "never":
            length = tf.where(self.length_penalty > 0, self.limit, length)
        expected = beams.logprob[:, 0] / tf.cast(length, tf.float32) ** self.length_penalty
        hopeless = expected <= tf.reduce_min(kept.score, -1)
        if self.early_stopping is True:
            hopeless |= tf.reduce_all(kept.num_tokens > 0, -1)
        return hopeless


def _taken(nest, index):
    """Of tensors [b, m, ...] what int32[b, j] points at: [b, j, ...]."""
    return tf.nest.map_structure(lambda x: tf.gather(x, index, batch_dims=1), nest)
