"""Prompt in, tokens out: the prompts at the first step, then one token per row and step."""

from typing import NamedTuple

import tensorflow as tf

from tfllm.decoding.decodable import Decodable, NewTokens, rounded_up, shapes_of
from tfllm.decoding.ngrams import joined
from tfllm.decoding.rules import Rules
from tfllm.decoding.sampling import Sampling, choose
from tfllm.decoding.stopping import StopStrings
from tfllm.decoding.vocabulary import log_total


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
    count: tf.Tensor  # int32[b]
    logprob: tf.Tensor  # float32[b]
    stopped: tf.Tensor  # bool[b]
    tail: tf.Tensor  # string[b]


class _Next(NamedTuple):
    token_ids: tf.Tensor  # int32[b, n], what the step reads
    start: tf.Tensor  # int32[b], where that stands in its text
    last: tf.Tensor  # int32[b], which of the n is the newest


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
    # Fills what is not written, so that the history holds only tokens of the row.
    first = prompt[:, :1]
    in_prompt = tf.range(tf.shape(prompt)[1])[None] < lengths[:, None]
    history = tf.where(in_prompt, prompt, first)

    def active(rows, step):
        return ~rows.stopped & (step < limit)

    def emit(rows: _Rows, logits, step) -> tuple[_Rows, tf.Tensor]:
        running = active(rows, step)
        token = choose(
            logits,
            sampling,
            history=lambda: tf.concat([history, rows.tokens], 1),
            step=step,
            restrict=lambda scores: rules.restrict(
                scores, step, limit, lambda: joined(history, lengths, rows.tokens, step)
            ),
        )
        chosen = tf.gather(logits, token, batch_dims=1) - log_total(logits)
        tail, hit = stops.extend(rows.tail, token)
        column = tf.range(longest)[None] == step
        rows = _Rows(
            tokens=tf.where(column, token[:, None], rows.tokens),
            count=rows.count + tf.cast(running, tf.int32),
            logprob=rows.logprob + tf.where(running, chosen, 0.0),
            stopped=rows.stopped | (running & (hit | rules.ends(token))),
            tail=tail,
        )
        return rows, token

    def read(entries, step, new: _Next, rows, state):
        positions = new.start[:, None] + tf.range(tf.shape(new.token_ids)[1])
        places = tf.range(entries)
        tokens = NewTokens(
            new.token_ids,
            positions,
            start=new.start,
            visible=places <= positions[..., None],
            entry_positions=places[None],
            parent=None,
            wanted=new.last[:, None],
        )
        logits, state = model.step(tokens, state)
        rows, token = emit(rows, tf.squeeze(logits, 1), step)
        step += 1
        # Rows that ended stay where they were; only their own memory sees it.
        start = tf.where(active(rows, step), lengths + step - 1, lengths - 1)
        return step, _Next(token[:, None], start, tf.zeros_like(start)), rows, state

    def until_full(step, new: _Next, rows, state):
        entries = rounded_up(_end(new))
        state = model.grow(state, entries, entries)

        def fits(step, new, rows, _state):
            return tf.reduce_any(active(rows, step)) & (_end(new) <= entries)

        return _while(fits, lambda *loop: read(entries, *loop), (step, new, rows, state))

    begin = model.begin(prompt, lengths)
    new = _Next(begin.token_ids, begin.start, lengths - 1 - begin.start)
    none = tf.zeros_like(lengths)
    rows = _Rows(
        tokens=tf.broadcast_to(first, [tf.shape(prompt)[0], longest]),
        count=none,
        logprob=tf.zeros_like(lengths, tf.float32),
        stopped=tf.zeros_like(lengths, tf.bool),
        tail=tf.fill(tf.shape(lengths), ""),
    )
    _, _, rows, _ = _while(
        lambda step, _new, rows, _state: tf.reduce_any(active(rows, step)),
        until_full,
        (tf.constant(0), new, rows, begin.state),
    )
    return Decoded(*rows[:-1])


def _end(new: _Next):
    """int32 scalar, the entries that a memory needs to read these."""
    return tf.reduce_max(new.start) + tf.shape(new.token_ids)[1]


def _while(condition, body, loop):
    step, new, *others = shapes_of(loop)
    # The prompts are wider than the single tokens after them.
    shapes = step, new._replace(token_ids=tf.TensorShape([None, None])), *others
    return tf.while_loop(condition, body, loop, shape_invariants=shapes)
