"""Prompt in, tokens out: one pass over the prompts, then one token per row and step."""

from typing import Any, NamedTuple, Protocol

import tensorflow as tf

from tfllm.decoding.rules import Rules
from tfllm.decoding.sampling import Sampling, choose
from tfllm.decoding.stopping import StopStrings

# Attention reads a prefix of the cache, rounded up: every new length would build new kernels
# (first generation 393 tokens/s with exact prefixes, 690 with rounded ones, at batch 1).
_PREFIX = 64


class Decodable(Protocol):
    """What the loop asks of a model. A state is any nest of tensors with dimension 0 = rows."""

    def prefill(self, token_ids, lengths, capacity) -> tuple[tf.Tensor, Any]:
        """int32[b, t], int32[b], int32 -> logits float32[b, v] after each row's last, state."""

    def step(self, token_ids, positions, visible, state) -> tuple[tf.Tensor, Any]:
        """int32[b], int32[b], int32, state -> logits float32[b, v] after the token, state."""


class Decoded(NamedTuple):
    """What the loop returns.

    Attributes:
        token_ids: int32[b, n], the new tokens; those after a row's `num_tokens` mean nothing.
        num_tokens: int32[b], with the end token if it came.
        logprob: float32[b], summed under the model itself, natural logarithm.
        stopped: bool[b], ended by the end token or a stop string rather than by the limit.
    """

    token_ids: tf.Tensor
    num_tokens: tf.Tensor
    logprob: tf.Tensor
    stopped: tf.Tensor


class _Rows(NamedTuple):
    tokens: tf.Tensor  # int32[b, n], filled up to the step
    last: tf.Tensor  # int32[b]
    count: tf.Tensor  # int32[b]
    logprob: tf.Tensor  # float32[b]
    stopped: tf.Tensor  # bool[b]
    tail: tf.Tensor  # string[b]


def rounded_up(x, multiple: int = _PREFIX) -> tf.Tensor:
    """The next multiple of `multiple` that is not below x (int32)."""
    return -(-x // multiple) * multiple


def decode(
    model: Decodable,
    prompt,
    lengths,
    *,
    limit,
    rules: Rules,
    sampling: Sampling,
    stops: StopStrings,
) -> Decoded:
    """Continues every prompt until all rows have ended.

    Args:
        model: Gives logits and carries the state.
        prompt: int32[b, t], prompts from the left, each at least one token; what fills the rows
            behind them is not looked at.
        lengths: int32[b], tokens of each prompt.
        limit: int32[b], new tokens of each row at most; 0 = none.
        rules: What may be said when, and what ends a text.
        sampling: Settings per row.
        stops: Stop strings per row.

    Returns:
        `Decoded`, with n the largest limit.
    """
    longest = tf.maximum(tf.reduce_max(tf.concat([limit, [1]], 0)), 1)
    capacity = rounded_up(tf.reduce_max(tf.concat([lengths + limit, tf.shape(prompt)[1:]], 0)))
    # Fills what is not written, so that the history holds only tokens of the row.
    first = prompt[:, :1]
    in_prompt = tf.range(tf.shape(prompt)[1])[None] < lengths[:, None]
    history = tf.where(in_prompt, prompt, first)

    def active(rows, step):
        return ~rows.stopped & (step < limit)

    def emit(rows: _Rows, logits, step) -> _Rows:
        running = active(rows, step)
        token = choose(
            logits,
            sampling,
            history=tf.concat([history, rows.tokens], 1),
            step=step,
            restrict=lambda scores: rules.restrict(scores, step, limit),
        )
        chosen = tf.gather(logits, token, batch_dims=1) - tf.reduce_logsumexp(logits, -1)
        tail, hit = stops.extend(rows.tail, token)
        column = tf.range(longest)[None] == step
        return _Rows(
            tokens=tf.where(column, token[:, None], rows.tokens),
            last=token,
            count=rows.count + tf.cast(running, tf.int32),
            logprob=rows.logprob + tf.where(running, chosen, 0.0),
            stopped=rows.stopped | (running & (hit | rules.ends(token))),
            tail=tail,
        )

    def body(step, rows, state):
        positions = lengths + step - 1
        # Rows that ended stay where they were; only their own cache sees it.
        positions = tf.where(active(rows, step), positions, lengths - 1)
        visible = tf.minimum(rounded_up(tf.reduce_max(positions) + 1), capacity)
        logits, state = model.step(rows.last, positions, visible, state)
        return step + 1, emit(rows, logits, step), state

    logits, state = model.prefill(prompt, lengths, capacity)
    none = tf.zeros_like(lengths)
    rows = _Rows(
        tokens=tf.broadcast_to(first, [tf.shape(prompt)[0], longest]),
        last=none,
        count=none,
        logprob=tf.zeros_like(lengths, tf.float32),
        stopped=tf.zeros_like(lengths, tf.bool),
        tail=tf.fill(tf.shape(lengths), ""),
    )
    _, rows, _ = tf.while_loop(
        lambda step, rows, _: tf.reduce_any(active(rows, step)),
        body,
        (tf.constant(1), emit(rows, logits, 0), state),
    )
    return Decoded(rows.tokens, rows.count, rows.logprob, rows.stopped)
