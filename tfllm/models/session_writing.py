"""Texts in slots, some tokens further, and what is said of these."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import tensorflow as tf

from tfllm import contract
from tfllm.decoding import StopStrings
from tfllm.decoding.advancing import Told, advance
from tfllm.decoding.decodable import rounded_up
from tfllm.decoding.row_step import Rows, RowStep
from tfllm.decoding.slot_memory import SlotMemory
from tfllm.models.session_rules import BiasedRules, Biases
from tfllm.models.session_slots import GOES_ON, Slots
from tfllm.models.session_text import new_part, shown_so_far

if TYPE_CHECKING:
    from tfllm.models.text_generator import TextGenerator


def advance_rows(  # noqa: PLR0913 - a row, and what there is
    text: TextGenerator,
    memory: SlotMemory,
    values,
    row: Slots,
    place,
    lengths,
    steps,
    stops: StopStrings,
) -> tuple[Rows, Told, Callable[[], list[tf.Operation]]]:
    """Some tokens more for each row.

    Args:
        text: Of the model.
        memory: Of the slots.
        values: Of its variables.
        row: What is known of each text.
        place: int32[b], their slots.
        lengths: int32[b], tokens of their prompts.
        steps: int32[b], new tokens at most.
        stops: Stop strings per row.

    Returns:
        `Rows`; `Told` of as many tokens as a slot keeps; a function that writes the memory.
    """
    own = lengths - row.num_source_tokens  # of the text that is gone on with
    end = tf.shape(row.tokens)[1] - 1
    begin = tf.range(tf.reduce_max(tf.concat([own, [1]], 0)))
    begin = tf.minimum(row.num_source_tokens[:, None] + begin, end)
    begin = tf.gather(row.tokens, begin, batch_dims=1)
    width = tf.reduce_max(tf.concat([row.count + steps, [1]], 0))
    behind = tf.minimum(lengths[:, None] + tf.range(width), end)
    # Filled so that the history holds only tokens of the row.
    is_written = tf.range(width) < row.count[:, None]
    written = tf.gather(row.tokens, behind, batch_dims=1)
    written = tf.where(is_written, written, begin[:, :1])
    before = Rows(
        written,
        row.count,
        last=tf.gather(row.tokens, lengths + row.count - 1, batch_dims=1),
        logprob=tf.zeros_like(row.temperature),
        stopped=steps == 0,
        tail=tf.cond(
            stops.any,
            lambda: _joined(text.token_bytes.look_up(written), row.count),
            lambda: tf.fill(tf.shape(lengths), ""),
        ),
    )
    add_token = RowStep.of(
        begin,
        own,
        limit=row.limit,
        rules=BiasedRules(text.rules, Biases(row.bias_token_ids, row.bias)),
        sampling=row.sampling,
        stops=stops,
    )
    start = own + row.count - 1
    entries = rounded_up(tf.reduce_max(tf.concat([start + steps, [0]], 0)) + 1)
    rows, told, state = advance(
        text.decoder, add_token, before,
        memory.read(values, place, start, entries, row.num_source_tokens), steps, entries,
        tf.reduce_any(row.num_alternatives > 0), contract.MAX_ALTERNATIVES,
    )  # fmt: skip

    def kept(x):  # as many columns as a slot has
        room = contract.MAX_DECODED_TOKENS - tf.shape(x)[1]
        x = tf.pad(x, [[0, 0], [0, room], *[[0, 0]] * (x.shape.rank - 2)])
        x.set_shape([None, contract.MAX_DECODED_TOKENS, *x.shape[2:]])
        return x

    # A row that does not run writes the entry that it has.
    end = tf.where(steps > 0, own + rows.count - 1, start)
    return (
        rows,
        Told(*map(kept, told)),
        lambda: memory.write(values, state, place, start, end),
    )


def answer_of(
    text: TextGenerator, rows: Rows, begin, ended, stops: StopStrings, told: Told
) -> dict[str, tf.Tensor]:
    """What `decode` says of the tokens from `begin` on, but for the `finish_reason`.

    Args:
        text: Of the model.
        rows: What is written.
        begin: int32[b].
        ended: int32[b], as of `Slots`.
        stops: Stop strings per row.
        told: Of these tokens.
    """
    count = rows.count - begin
    most = tf.reduce_max(tf.concat([count, [0]], 0))
    here = tf.range(most)
    is_one = here < count[:, None]
    place = tf.minimum(begin[:, None] + here, tf.shape(rows.token_ids)[1] - 1)
    token_ids = tf.gather(rows.token_ids, place, batch_dims=1)
    token_ids = tf.where(is_one, token_ids, contract.PADDING)
    alternatives = told.alternatives[:, :most]
    alternatives = tf.where(is_one[..., None], alternatives, contract.PADDING)
    pieces = text.token_bytes.look_up(rows.token_ids)
    raw = _joined(pieces, rows.count)
    shown = tf.where(ended == GOES_ON, shown_so_far(raw, stops), stops.cut(raw))
    earlier = shown_so_far(_joined(pieces, begin), stops)
    return {
        "text": new_part(text.finish(earlier), text.finish(shown)),
        "position": rows.count,
        "num_tokens": count,
        "token_ids": token_ids,
        "token_bytes": tf.where(is_one, tf.gather(pieces, place, batch_dims=1), ""),
        "logprobs": tf.where(is_one, told.logprob[:, :most], 0.0),
        "alternative_ids": alternatives,
        "alternative_bytes": text.token_bytes.look_up(alternatives),
        "alternative_logprobs": tf.where(
            is_one[..., None], told.alternative_logprobs[:, :most], 0.0
        ),
    }


def with_written(tokens, lengths, rows: Rows):
    """int32[b, t], the tokens of slots with what was written."""
    place = tf.range(tf.shape(tokens)[1]) - lengths[:, None]
    is_new = (place >= 0) & (place < rows.count[:, None])
    within = tf.clip_by_value(place, 0, tf.shape(rows.token_ids)[1] - 1)
    return tf.where(is_new, tf.gather(rows.token_ids, within, batch_dims=1), tokens)


def _joined(pieces, count):
    """string[b], the first int32[b] of string[b, n]."""
    shown = tf.sequence_mask(count, tf.shape(pieces)[1])
    return tf.strings.reduce_join(tf.where(shown, pieces, ""), -1)
