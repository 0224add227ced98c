"""One token more for each row: which one it is, and whether the row ends with it."""

from typing import NamedTuple

import tensorflow as tf

from tfllm.decoding.ngrams import Text, joined
from tfllm.decoding.rules import Rules
from tfllm.decoding.sampling import Sampling, choose
from tfllm.decoding.stopping import StopStrings
from tfllm.decoding.vocabulary import log_total


class Rows(NamedTuple):
    """What the rows say so far.

    Attributes:
        token_ids: int32[b, n], the new tokens, filled up to `count`.
        count: int32[b].
        last: int32[b], the newest token, of the prompt if there is none.
        logprob: float32[b].
        stopped: bool[b].
        tail: string[b], as of `StopStrings.extend`.
    """

    token_ids: tf.Tensor
    count: tf.Tensor
    last: tf.Tensor
    logprob: tf.Tensor
    stopped: tf.Tensor
    tail: tf.Tensor


class RowStep(NamedTuple):
    """The settings of the rows, and the parts of their step.

    Attributes:
        prompts: Of each row; behind a prompt stand tokens of its own.
        limit: int32[b], new tokens of each row at most.
        rules: What may be said when, and what ends a text.
        sampling: Settings per row.
        stops: Stop strings per row.
    """

    prompts: Text
    limit: tf.Tensor
    rules: Rules
    sampling: Sampling
    stops: StopStrings

    @classmethod
    def of(cls, prompt, lengths, **settings) -> "RowStep":
        """Behind prompts int32[b, t] of int32[b] tokens, whatever fills them."""
        in_prompt = tf.range(tf.shape(prompt)[1])[None] < lengths[:, None]
        return cls(Text(tf.where(in_prompt, prompt, prompt[:, :1]), lengths), **settings)

    def begin(self) -> Rows:
        """Rows that say nothing yet, with room for the largest limit."""
        token_ids, count = self.prompts
        rows = tf.shape(count)
        most = tf.maximum(tf.reduce_max(tf.concat([self.limit, [1]], 0)), 1)
        return Rows(
            # Filled so that the history holds only tokens of the row.
            tf.broadcast_to(token_ids[:, :1], [rows[0], most]),
            count=tf.zeros_like(count),
            last=tf.gather(token_ids, count - 1, batch_dims=1),
            logprob=tf.zeros_like(count, tf.float32),
            stopped=tf.zeros_like(count, tf.bool),
            tail=tf.fill(rows, ""),
        )

    def active(self, rows: Rows) -> tf.Tensor:
        """bool[b], rows that have more to say."""
        return ~rows.stopped & (rows.count < self.limit)

    def text(self, rows: Rows) -> Text:
        """The prompts with what was written behind them."""
        return joined(*self.prompts, rows.token_ids, rows.count)

    def __call__(self, logits, rows: Rows, now=True) -> Rows:
        """Adds a token to each row that is active.

        Args:
            logits: float32[b, v], after what each row says.
            rows: So far.
            now: bool[b], False where a row gets none although it is active.
        """
        running = self.active(rows) & now
        token = choose(
            logits,
            self.sampling,
            history=lambda: tf.concat([self.prompts.token_ids, rows.token_ids], 1),
            written=Text(rows.token_ids, rows.count),
            step=rows.count,
            restrict=lambda scores: self.rules.restrict(
                scores, rows.count, self.limit, lambda: self.text(rows)
            ),
        )
        chosen = tf.gather(logits, token, batch_dims=1) - log_total(logits)
        tail, hit = self.stops.extend(rows.tail, token)
        here = tf.range(tf.shape(rows.token_ids)[1])[None] == rows.count[:, None]
        return Rows(
            token_ids=tf.where(here & running[:, None], token[:, None], rows.token_ids),
            count=rows.count + tf.cast(running, tf.int32),
            last=tf.where(running, token, rows.last),
            logprob=rows.logprob + tf.where(running, chosen, 0.0),
            stopped=rows.stopped | (running & (hit | self.rules.ends(token))),
            tail=tf.where(running, tail, rows.tail),
        )
