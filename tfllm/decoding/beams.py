"""Prompt in, the k best texts out: beam search with the results of `transformers`."""

from typing import Literal

import tensorflow as tf

from tfllm.decoding.beam_step import NO_TEXT, Beams, BeamStep, Open
from tfllm.decoding.loop import Decodable, rounded_up
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
    repetition_penalty=None,
) -> Beams:
    """Continues every prompt in the k ways that score best.

    Rows do not see each other: each gives what it gives alone. One beam is greedy search.

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
        repetition_penalty: float32[b], above 0, 1 = off; None = off for all.

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
    rows = tf.shape(prompt)[0]
    longest = tf.maximum(tf.reduce_max(tf.concat([limit, [1]], 0)), 1)
    capacity = rounded_up(tf.reduce_max(tf.concat([lengths + limit, tf.shape(prompt)[1:]], 0)))
    # Fills what is not written, so that the history holds only tokens of the row.
    first = prompt[:, :1]
    in_prompt = tf.range(tf.shape(prompt)[1])[None] < lengths[:, None]
    history = tf.repeat(tf.where(in_prompt, prompt, first), num_beams, axis=0)
    add_token = BeamStep(
        limit, num_beams, length_penalty, early_stopping, rules, repetition_penalty
    )

    def emit(logits, step, beams: Open, kept: Beams, done):
        new = tf.reshape(beams.token_ids, [rows * num_beams, longest])
        return add_token(logits, tf.concat([history, new], 1), beams, kept, done, step)

    def body(step, beams: Open, kept: Beams, done, state):
        # A copy for each beam, also where two continue the same: caches are written in place.
        parent = tf.reshape(beams.parent, [-1])
        state = tf.nest.map_structure(lambda x: tf.gather(x, parent), state)
        # Rows that are done stay where they were; only their own cache sees it.
        positions = tf.where(done, lengths - 1, lengths + step - 1)
        visible = tf.minimum(rounded_up(tf.reduce_max(positions) + 1), capacity)
        last = tf.reshape(beams.last, [-1])
        logits, state = model.step(last, tf.repeat(positions, num_beams), visible, state)
        return step + 1, *emit(logits, step, beams, kept, done), state

    logits, state = model.prefill(prompt, lengths, capacity)
    no_tokens = tf.broadcast_to(first[..., None], [rows, num_beams, longest])
    zeros = tf.zeros([rows, num_beams])
    none = tf.zeros_like(zeros, tf.int32)
    # All beams of a prompt are the same text still: only the first may go on.
    only_first = zeros + ([0.0] + [NO_TEXT] * (num_beams - 1))
    beams = Open(no_tokens, last=none, parent=none, logprob=only_first)
    done = limit < 1
    score = tf.where(done[:, None], 0.0, zeros + NO_TEXT)
    kept = Beams(no_tokens, none, score=score, logprob=score, stopped=tf.zeros_like(none, tf.bool))
    beams, kept, done = emit(tf.repeat(logits, num_beams, axis=0), 0, beams, kept, done)
    # Until the first step the state has one row for all beams of a prompt.
    beams = beams._replace(parent=none + tf.range(rows)[:, None])
    loop = (tf.constant(1), beams, kept, done, state)
    _, _, kept, _, _ = tf.while_loop(
        lambda _step, _beams, _kept, done, _state: ~tf.reduce_all(done),
        body,
        loop,
        shape_invariants=tf.nest.map_structure(_for_any_rows, loop),
    )
    return kept


def _for_any_rows(tensor):
    """Its shape, but for the number of rows."""
    return tf.TensorShape([None] * min(1, tensor.shape.rank)).concatenate(tensor.shape[1:])
