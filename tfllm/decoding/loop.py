"""Prompt in, tokens out: the prompts at the first step, then what each row says next."""

from typing import NamedTuple

import tensorflow as tf

from tfllm.decoding.decodable import Decodable, NewTokens, rounded_up, shapes_of
from tfllm.decoding.prompt_lookup import Lookup, Pace
from tfllm.decoding.row_step import Rows, RowStep
from tfllm.decoding.rules import Rules
from tfllm.decoding.sampling import Sampling
from tfllm.decoding.stopping import StopStrings


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


class _Next(NamedTuple):
    token_ids: tf.Tensor  # int32[r, n], what the step reads
    positions: tf.Tensor  # int32[r, n]
    start: tf.Tensor  # int32[r], the entry of the first of them
    wanted: tf.Tensor  # int32[r, j], which of them something is said behind
    guesses: tf.Tensor  # int32[b, j - 1], what would have to be said to go on to the next of these


def decode(
    model: Decodable,
    prompt,
    lengths,
    *,
    limit,
    rules: Rules,
    sampling: Sampling,
    stops: StopStrings,
    prompt_of=None,
    lookup: Lookup | None = None,
) -> Decoded:
    """Continues prompts until all rows have ended.

    Several rows may go on from one prompt, which is read once for all of them: then what the model
    remembers is copied for each row before the second step.

    Args:
        model: Gives logits and carries the state.
        prompt: int32[p, t], prompts from the left, each at least one token; what fills them behind
            is not looked at.
        lengths: int32[p], tokens of each prompt.
        limit: int32[b], new tokens of each row at most; 0 = none.
        rules: What may be said when, and what ends a text.
        sampling: Settings per row.
        stops: Stop strings per row.
        prompt_of: int32[b], the prompt of each row, in the order in which they are first named (as
            of `tf.unique`); None: each row has the one in its place.
        lookup: Where guesses come from, for a model that can go back; None = nothing is guessed.

    Returns:
        `Decoded`, with n the largest limit.
    """
    own = tf.range(tf.shape(limit)[0])
    prompt_of = own if prompt_of is None else prompt_of
    shared = tf.shape(prompt)[0] < tf.size(own)
    prompts, rows_lengths = tf.gather(prompt, prompt_of), tf.gather(lengths, prompt_of)
    add_token = RowStep.of(
        prompts, rows_lengths, limit=limit, rules=rules, sampling=sampling, stops=stops
    )
    active = add_token.active
    # The last token that is written is not read.
    farthest = tf.maximum(rows_lengths + limit - 2, rows_lengths - 1)

    def read(entries, step, new: _Next, rows: Rows, pace, state):
        places = tf.range(entries)
        tokens = NewTokens(
            new.token_ids,
            new.positions,
            start=new.start,
            visible=places <= new.positions[..., None],
            entry_positions=places[None],
            parent=None,
            wanted=new.wanted,
        )
        logits, state = model.step(tokens, state)
        logits = _spread(shared & (step == 0), logits, prompt_of)
        if lookup is None:
            rows, guesses = add_token(tf.squeeze(logits, 1), rows), new.guesses
        else:
            rows, pace = lookup.say(add_token, logits, new.guesses, rows, pace)
            guesses = lookup.guess(rows, active(rows), pace)
        # Rows that ended stay where they were; only their own memory sees it.
        start = rows_lengths - 1 + tf.where(active(rows), rows.count, 0)
        here = tf.range(tf.shape(guesses)[1] + 1)
        new = _Next(
            tf.concat([rows.last[:, None], guesses], 1),
            tf.minimum(start[:, None] + here, farthest[:, None]),
            start,
            tf.zeros_like(start)[:, None] + here,
            guesses,
        )
        return step + 1, new, rows, pace, state

    def until_full(step, new: _Next, rows, pace, state):
        state = _spread(shared & (step == 1), state, prompt_of)
        entries = rounded_up(_end(new))
        state = model.grow(state, entries, entries)
        alone = ~shared | (step > 0)

        def fits(step, new, rows, _pace, _state):
            going_on = tf.reduce_any(active(rows)) & (_end(new) <= entries)
            return going_on & (alone | (step == 0))

        return _while(fits, lambda *loop: read(entries, *loop), (step, new, rows, pace, state))

    begin = model.begin(prompt, lengths)
    new = _Next(
        begin.token_ids,
        begin.start[:, None] + tf.range(tf.shape(begin.token_ids)[1]),
        begin.start,
        (lengths - 1 - begin.start)[:, None],
        tf.zeros([tf.size(own), 0], tf.int32),
    )
    loop = (
        tf.constant(0),
        new,
        add_token.begin(),
        () if lookup is None else Pace.begin(),
        begin.state,
    )
    _, _, rows, _, _ = _while(
        lambda _step, _new, rows, _pace, _state: tf.reduce_any(active(rows)), until_full, loop
    )
    return Decoded(rows.token_ids, rows.count, rows.logprob, rows.stopped)


def _end(new: _Next):
    """int32 scalar, the entries that a memory needs to read these."""
    return tf.reduce_max(new.start) + tf.shape(new.token_ids)[1]


def _spread(now, nest, prompt_of):
    """What is there of each prompt, for each row, if it is time for that; tensors [p, ...]."""
    spread = tf.cond(
        now,
        lambda: tf.nest.map_structure(lambda x: tf.gather(x, prompt_of), nest),
        lambda: nest,
    )

    def shaped(new, old):
        new.set_shape(tf.TensorShape([None]).concatenate(old.shape[1:]))
        return new

    return tf.nest.map_structure(shaped, spread, nest)


def _while(condition, body, loop):
    step, new, *others = shapes_of(loop)
    # The prompts are wider than what is read after them.
    new = _Next(*(tf.TensorShape([None] * shape.rank) for shape in new))
    return tf.while_loop(condition, body, loop, shape_invariants=(step, new, *others))
