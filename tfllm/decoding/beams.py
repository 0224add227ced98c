"""Prompt in, the k best texts out: beam search with the results of `transformers`."""

from typing import Literal, NamedTuple

import tensorflow as tf

from tfllm.decoding.beam_step import NO_TEXT, Beams, BeamStep, Open, Said
from tfllm.decoding.decodable import Decodable, NewTokens, rounded_up, shapes_of
from tfllm.decoding.ngrams import Text, joined
from tfllm.decoding.penalties import Penalties
from tfllm.decoding.rules import Rules
from tfllm.errors import UserError


def beam_search(
    model: Decodable,
    prompt,
    lengths,
    *,
    limit,
    num_beams: int,
    length_penalty,
    early_stopping: bool | Literal["never"],
    rules: Rules,
    penalties: Penalties | None = None,
) -> Beams:
    """Continues every prompt in the k ways that score best.

    Rows do not see each other: each gives what it gives alone. One beam is greedy search.

    The beams of a row are n tokens of one row for the model, and their keys and values lie in one
    memory, in the order in which they were written. Nothing is copied where a beam is given up for
    another: what changes is which entries each one sees. The prompt is there once for all.

    Args:
        model: Gives logits and carries the state.
        prompt: int32[b, t], prompts from the left, each at least one token; what fills the rows
            behind them is not looked at.
        lengths: int32[b], tokens of each prompt.
        limit: int32[b], new tokens of each row at most; 0 = none.
        num_beams: k.
        length_penalty: float32[b]; above 0 prefers long texts, below 0 short ones.
        early_stopping: When a row with k ended texts is done: True, at once; False, when the best
            open text would not be among them if it ended now; "never", when it could not get
            there at any length.
        rules: What may be said when, and what ends a text.
        penalties: Per row; None = off for all.

    Returns:
        `Beams`, with n the largest limit.

    Raises:
        UserError: `num_beams` or `early_stopping` is none of the above.
    """
    if num_beams < 1:
        raise UserError(f"num_beams must be at least 1; got {num_beams}.")
    if not (isinstance(early_stopping, bool) or early_stopping == "never"):
        raise UserError(f'early_stopping must be True, False or "never"; got {early_stopping!r}.')
    if num_beams == 1:
        early_stopping = True  # greedy search takes the first text that ends
    k = num_beams
    rows, width = tf.unstack(tf.shape(prompt))
    longest = tf.maximum(tf.reduce_max(tf.concat([limit, [1]], 0)), 1)
    # Fills what is not written, so that the history holds only tokens of the row.
    first = prompt[:, :1]
    in_prompt = tf.range(width)[None] < lengths[:, None]
    history = tf.repeat(tf.where(in_prompt, prompt, first), k, axis=0)
    add_token = BeamStep(limit, k, length_penalty, early_stopping, rules, penalties)

    def entries_read(entries, new: _Next):
        """What each token sees: its prompt, and the tokens of its own text."""
        until = tf.minimum(new.positions + 1, lengths[:, None])
        in_prompt = tf.range(width) < until[..., None]
        return tf.concat([in_prompt, new.own], 2)[:, :, :entries]

    def read(entries, step, new: _Next, beams: Open, kept: Beams, done, state):
        place = tf.range(entries)[None]
        written = lengths[:, None] + (place - width) // k
        tokens = NewTokens(
            new.token_ids,
            new.positions,
            new.start,
            visible=entries_read(entries, new),
            entry_positions=tf.where(place < width, place, written),
            parent=new.parent,
            wanted=new.wanted,
        )
        logits, state = model.step(tokens, state)
        logits = tf.reshape(logits, [-1, logits.shape[-1]])
        texts = tf.reshape(beams.token_ids, [rows * k, longest])
        said = Said(
            lambda: tf.concat([history, texts], 1),
            lambda: joined(history, tf.repeat(lengths, k), texts, step),
            Text(texts, tf.fill([rows * k], step)),
        )
        beams, kept, done = add_token(logits, said, beams, kept, done, step)
        # Behind the prompt all texts of a row are the same one still.
        parent = tf.where(step == 0, 0, beams.parent)
        mine = tf.range(tf.shape(new.own)[2]) == k * step + tf.range(k)[:, None]
        # Rows that are done stay where they were; only their own memory sees it.
        position = tf.where(done, lengths - 1, lengths + step)
        new = _Next(
            token_ids=beams.last,
            positions=tf.repeat(position[:, None], k, 1),
            start=tf.fill([rows], width + k * step),
            own=tf.gather(new.own, parent, batch_dims=1) | mine,
            parent=parent,
            wanted=tf.repeat(tf.range(k)[None], rows, 0),
        )
        return step + 1, new, beams, kept, done, state

    def until_full(step, new: _Next, beams, kept, done, state):
        entries = rounded_up(_end(new))
        steps = tf.maximum(entries - width, 0) // k
        length = rounded_up(tf.maximum(width, tf.reduce_max(lengths) + steps))
        state = model.grow(state, entries, length)

        def fits(_step, new, _beams, _kept, done, _state):
            return ~tf.reduce_all(done) & (_end(new) <= entries)

        loop = step, new, beams, kept, done, state
        return _while(fits, lambda *loop: read(entries, *loop), loop)

    begin = model.begin(prompt, lengths)
    positions = begin.start[:, None] + tf.range(tf.shape(begin.token_ids)[1])
    nothing = tf.zeros([*tf.unstack(tf.shape(positions)), rounded_up(width + k * longest) - width])
    new = _Next(
        begin.token_ids,
        positions,
        begin.start,
        own=tf.cast(nothing, tf.bool),
        parent=tf.zeros_like(positions),
        wanted=tf.repeat((lengths - 1 - begin.start)[:, None], k, 1),
    )
    no_tokens = tf.broadcast_to(first[..., None], [rows, k, longest])
    zeros = tf.zeros([rows, k])
    none = tf.zeros_like(zeros, tf.int32)
    # All beams of a prompt are the same text still: only the first may go on.
    only_first = zeros + ([0.0] + [NO_TEXT] * (k - 1))
    beams = Open(no_tokens, last=none, parent=none, logprob=only_first)
    done = limit < 1
    score = tf.where(done[:, None], 0.0, zeros + NO_TEXT)
    kept = Beams(no_tokens, none, score=score, logprob=score, stopped=tf.zeros_like(none, tf.bool))
    loop = tf.constant(0), new, beams, kept, done, begin.state
    _, _, _, kept, _, _ = _while(
        lambda _step, _new, _beams, _kept, done, _state: ~tf.reduce_all(done), until_full, loop
    )
    return kept


class _Next(NamedTuple):
    token_ids: tf.Tensor  # int32[b, n], what the step reads: the prompts, then k tokens
    positions: tf.Tensor  # int32[b, n]
    start: tf.Tensor  # int32[b]
    own: tf.Tensor  # bool[b, n, g], which entries behind the prompt belong to each one's text
    parent: tf.Tensor  # int32[b, n]
    wanted: tf.Tensor  # int32[b, k]


def _end(new: _Next):
    """int32 scalar, the entries that a memory needs to read these."""
    return tf.reduce_max(new.start) + tf.shape(new.token_ids)[1]


def _while(condition, body, loop):
    step, new, *others = shapes_of(loop)
    # The prompts are wider than the beams after them.
    widths = {"token_ids": 2, "positions": 2, "own": 3, "parent": 2}
    new = new._replace(**{name: tf.TensorShape([None] * rank) for name, rank in widths.items()})
    return tf.while_loop(condition, body, loop, shape_invariants=(step, new, *others))
