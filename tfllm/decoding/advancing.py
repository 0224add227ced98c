"""Texts that were begun elsewhere, some tokens further."""

from typing import Any, NamedTuple

import tensorflow as tf

from tfllm.decoding.decodable import Decodable, NewTokens, shapes_of
from tfllm.decoding.row_step import Rows, RowStep
from tfllm.decoding.vocabulary import best, log_total


class Told(NamedTuple):
    """What is said of the new tokens of each row; behind `count` of them it means nothing.

    Attributes:
        logprob: float32[b, k], of each under the model itself, natural logarithm.
        alternatives: int32[b, k, a], the best tokens in its place, best first.
        alternative_logprobs: float32[b, k, a].
    """

    logprob: tf.Tensor
    alternatives: tf.Tensor
    alternative_logprobs: tf.Tensor


class Advanced(NamedTuple):
    """Where the texts are then.

    Attributes:
        rows: With up to k tokens more each.
        told: Of these.
        state: What the model remembers: n tokens more of a row that got n.
    """

    rows: Rows
    told: Told
    state: Any


def advance(
    model: Decodable, add_token: RowStep, rows: Rows, state, most, entries, alternatives, count: int
) -> Advanced:
    """Adds tokens to texts until each has what it may have, or has ended.

    Args:
        model: That has read each text but for its last token.
        add_token: The settings of the rows.
        rows: So far.
        state: Of the model, with room for `entries`.
        most: int32[b], new tokens of each row at most.
        entries: int32 scalar, above the position of every token that is read.
        alternatives: bool scalar, whether these are asked for.
        count: a, how many of them there are.
    """
    lengths = add_token.prompts.count
    end = rows.count + most
    k = tf.reduce_max(tf.concat([most, [1]], 0))
    places = tf.range(entries)
    # Of a token that is ever read: the model may know no position behind it.
    farthest = tf.maximum(lengths + add_token.limit - 2, 0)
    size = tf.shape(lengths)[0]

    def going_on(rows):
        return add_token.active(rows) & (rows.count < end)

    def step(i, rows: Rows, told: Told, state):
        # What has ended reads its last token over and over, which changes nothing.
        position = lengths - 1 + rows.count
        going = going_on(rows)
        new = NewTokens(
            rows.last[:, None],
            tf.minimum(position, farthest)[:, None],
            start=position,
            visible=(places <= position[:, None])[:, None],
            entry_positions=places[None],
            parent=None,
            wanted=tf.zeros([size, 1], tf.int32),
            lengths=tf.cast(going, tf.int32),
        )
        logits, state = model.step(new, state)
        logits = tf.squeeze(logits, 1)
        # Its own logprob, to the last bit, is no difference of sums.
        after = add_token(logits, rows._replace(logprob=tf.zeros_like(rows.logprob)), going)
        here = (tf.range(k) == i)[None]
        told = told._replace(logprob=tf.where(here, after.logprob[:, None], told.logprob))
        after = after._replace(logprob=rows.logprob + after.logprob)
        told = tf.cond(alternatives, lambda: _with_best(told, logits, here, count), lambda: told)
        return i + 1, after, told, state

    told = Told(
        tf.zeros([size, k]),
        tf.zeros([size, k, count], tf.int32),
        tf.zeros([size, k, count]),
    )
    loop = (tf.constant(0), rows, told, state)
    _, rows, told, state = tf.while_loop(
        lambda _i, rows, _told, _state: tf.reduce_any(going_on(rows)),
        step,
        loop,
        shape_invariants=shapes_of(loop),
    )
    return Advanced(rows, told, state)


def _with_best(told: Told, logits, here, count: int) -> Told:
    scores, ids = best(logits, count)
    logprobs = scores - log_total(logits)[:, None]
    return told._replace(
        alternatives=tf.where(here[..., None], ids[:, None], told.alternatives),
        alternative_logprobs=tf.where(
            here[..., None], logprobs[:, None], told.alternative_logprobs
        ),
    )
