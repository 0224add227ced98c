"""Texts that stay in a server from one call to the next: the signatures of a session export."""

from __future__ import annotations

import math
import uuid
from typing import TYPE_CHECKING

import tensorflow as tf

from tfllm import contract
from tfllm.decoding import Sampling, StopStrings
from tfllm.decoding.advancing import Told, advance
from tfllm.decoding.decodable import NewTokens, rounded_up
from tfllm.decoding.ngrams import joined
from tfllm.decoding.row_step import Rows, RowStep
from tfllm.decoding.slot_memory import SlotMemory
from tfllm.decoding.stopping import MAX_STOP_BYTES
from tfllm.errors import UserError
from tfllm.models.row_errors import sampling_errors, too_long, wrong
from tfllm.models.session_rules import BiasedRules, Biases, bias_errors
from tfllm.models.session_slot_finding import NOT_YOURS, Places, own_slots, place_texts
from tfllm.models.session_slots import Change, Slots, SlotTable, at, put
from tfllm.models.session_text import new_part, shown_so_far
from tfllm.models.text_functions import first_error, per_row
from tfllm.tokenizers.utf8 import valid_utf8_in_graph

if TYPE_CHECKING:
    from tfllm.models.causal_text_generator import CausalTextGenerator

_READ_AT_ONCE = 32  # tokens of prompts are read in multiples of this: new shapes make new kernels
_GOES_ON, _STOPPED, _FULL = range(3)  # of `Slots.ended`


class Sessions:
    """The functions of `contract.SESSION_SIGNATURES`.

    Args:
        text: The other signatures of the model.
        num_slots: Texts at a time.
        timeout_s: A slot that was not used for so long may be given to another text.

    Attributes:
        num_bytes: Of the memory of all slots.

    Raises:
        UserError: the model remembers nothing that a slot could keep, or a number is out of range.
    """

    def __init__(self, text: CausalTextGenerator, num_slots: int, timeout_s: float):
        if num_slots < 1:
            raise UserError(f"sessions must be at least 1, got {num_slots}.")
        if not 0 < timeout_s < math.inf:
            raise UserError(f"session_timeout_s must be finite and above 0, got {timeout_s}.")
        self.text = text
        self.num_slots = num_slots
        self.timeout_s = timeout_s
        # No other model of a process may have variables of these names.
        name = f"tfllm-sessions-{uuid.uuid4().hex}"
        self._memory = SlotMemory(
            f"{name}/memory", _caches_of(text.model), num_slots + 1, text.context_length
        )
        self._table = SlotTable(name, self._memory, num_slots, text.context_length)
        self.num_bytes = self._memory.num_bytes

    def prefill(  # noqa: PLR0913 - the inputs of a signature
        self, prompt, lease, generated, max_prefill_tokens, max_new_tokens, temperature, top_k,
        top_p, min_p, repetition_penalty, seed, stop, num_alternatives, bias_token_ids, bias,
    ):  # fmt: skip
        """See `contract.SIGNATURES`; parameters of one row serve all rows."""
        text, most = self.text, self.text.context_length
        vocabulary_size = text.model.backbone.vocabulary_size
        sampling = Sampling(
            *(
                per_row(x, prompt)
                for x in (temperature, top_k, top_p, min_p, repetition_penalty, seed)
            )
        )
        stop = tf.reshape(stop, [tf.shape(stop)[0], contract.MAX_STOP_STRINGS])
        stop = valid_utf8_in_graph(per_row(stop, prompt))
        bias_token_ids = per_row(bias_token_ids, prompt)
        biases = Biases.of(bias_token_ids, per_row(bias, prompt))
        limit, generated = per_row(max_new_tokens, prompt), per_row(generated, prompt)
        texts, huge = text.without_huge(prompt)
        ids = text.read(texts)
        lengths = tf.cast(ids.row_lengths(), tf.int32)
        count = tf.reduce_sum(tf.cast(generated != contract.PADDING, tf.int32), -1)
        room = most - lengths + 1
        error = first_error(
            [
                (lease == "", "lease must be a word that no other text has, got none"),
                (huge, text.huge("the prompt", most)),
                (lengths > most, too_long("the prompt", lengths, most)),
                (limit < 0, wrong("max_new_tokens must be at least 0", limit)),
                (
                    tf.reduce_any(
                        (generated < contract.PADDING) | (generated >= vocabulary_size), -1
                    ),
                    "generated has numbers that are no tokens",
                ),
                (
                    count > room,
                    too_long("the prompt with what was generated", lengths + count, most + 1),
                ),
                (
                    tf.reduce_any(tf.strings.length(stop) > MAX_STOP_BYTES, -1),
                    f"a stop string is longer than {MAX_STOP_BYTES} bytes",
                ),
                *bias_errors(bias_token_ids, biases, vocabulary_size),
                *sampling_errors(sampling),
            ]
        )
        fine = error == ""
        lengths_read, count = tf.where(fine, lengths, 1), tf.where(fine, count, 0)
        limit = tf.minimum(limit, room)
        dense = ids.to_tensor(0, shape=[None, most + 1])
        generated = tf.where(fine[:, None], tf.maximum(generated, 0), 0)
        known = joined(dense, lengths_read, generated, count)
        tokens = known.token_ids[:, : most + 1]
        last = tf.gather(tokens, known.count - 1, batch_dims=1)
        ended = tf.where(
            (count > 0) & text.rules.ends(last),
            _STOPPED,
            tf.where(count >= limit, _FULL, _GOES_ON),
        )
        wanted = known.count - 1  # the last token is read by `decode`
        most_read = tf.maximum(per_row(max_prefill_tokens, prompt), 0)

        def body(slots: Slots, values) -> Change:
            now = tf.timestamp()
            place = place_texts(
                slots, lease, tokens, lengths_read, count, error, now, self.timeout_s
            )
            accepted = place.error == ""
            reads = tf.where(accepted, tf.minimum(wanted - place.reused, most_read), 0)
            num_read = place.reused + reads
            # Until all is written, the slot is nobody's and has what it will keep.
            kept = tf.where(place.source == place.slot, place.reused, 0)
            fields = {
                "used_at": tf.fill(tf.shape(lengths), now),
                "tokens": tokens,
                "num_prompt_tokens": lengths_read,
                "count": count,
                "before": count,
                "ended": ended,
                "limit": limit,
                **sampling._asdict(),
                "stop": stop,
                "num_alternatives": per_row(num_alternatives, prompt),
                **biases._asdict(),
            }
            return Change(
                {
                    "slot": tf.where(accepted, place.slot, -1),
                    "is_ready": accepted & (num_read == wanted),
                    "num_prompt_tokens": lengths,
                    "num_read": num_read,
                    "num_reused": place.reused,
                    "max_new_tokens": tf.where(accepted, limit, 0),
                    "error": place.error,
                },
                [
                    put(slots, place.slot, lease=tf.fill(tf.shape(lease), ""), num_read=kept),
                    lambda: self._read_prompts(values, place, tokens, reads),
                    put(slots, place.slot, **fields),
                    put(slots, place.slot, num_read=num_read),
                    put(slots, place.slot, lease=tf.where(accepted, lease, "")),
                ],
            )

        return self._table.call(body)

    def _read_prompts(self, values, place: Places, tokens, reads):
        """Has the model read so many tokens of each row; the ops that write what it remembers."""
        start = place.reused
        longest = tf.reduce_max(tf.concat([reads, [0]], 0))
        width = tf.maximum(rounded_up(longest, _READ_AT_ONCE), 1)
        entries = rounded_up(tf.reduce_max(tf.concat([start, [0]], 0)) + width)
        before = self._memory.read(values, place.source, entries)

        def read():
            places = tf.range(entries)
            positions = start[:, None] + tf.range(width)
            within = tf.minimum(positions, tf.shape(tokens)[1] - 1)
            new = NewTokens(
                tf.gather(tokens, within, batch_dims=1),
                tf.minimum(positions, self.text.context_length - 1),
                start=start,
                visible=places <= positions[..., None],
                entry_positions=places[None],
                parent=None,
                wanted=tf.zeros_like(start)[:, None],
            )
            _, after = self.text.model.step(new, before)
            for one, other in zip(tf.nest.flatten(after), tf.nest.flatten(before), strict=True):
                one.set_shape(other.shape)
            return after

        def keep():
            return tf.nest.map_structure(tf.identity, before)

        after = tf.cond(longest > 0, read, keep)
        begin = tf.where(place.source == place.slot, start, 0)
        return self._memory.write(values, after, place.slot, begin, start + reads)

    def decode(self, slot, lease, position, max_tokens):
        """See `contract.SIGNATURES`; parameters of one row serve all rows."""
        text = self.text
        most = tf.clip_by_value(per_row(max_tokens, slot), 1, contract.MAX_DECODED_TOKENS)

        def body(slots: Slots, values) -> Change:
            place, own = own_slots(slots, slot, lease)
            row = at(slots, place)
            again = own & (position == row.before) & (position != row.count)
            lengths = tf.maximum(row.num_prompt_tokens, 1)
            is_read = row.num_read >= lengths + row.count - 1
            error = first_error(
                [
                    (~own, NOT_YOURS),
                    (
                        ~again & (position != row.count),
                        tf.strings.join(
                            [
                                "position must be ",
                                tf.strings.as_string(row.count),
                                ", got ",
                                tf.strings.as_string(position),
                            ]
                        ),
                    ),
                    (~again & ~is_read, "the prompt is not read whole: call prefill again"),
                ]
            )
            runs = (error == "") & ~again & (row.ended == _GOES_ON)
            steps = tf.where(runs, most, 0)
            stops = StopStrings(
                tf.where(own[:, None], row.stop, ""),
                text.token_bytes.look_up,
                text.token_bytes.longest,
            )
            rows, told, memory = self._advance(values, row, place, lengths, steps, stops)
            ended = tf.where(
                runs & rows.stopped,
                _STOPPED,
                tf.where(runs & (rows.count >= row.limit), _FULL, row.ended),
            )
            before = tf.where(runs, row.count, row.before)
            told = Told(
                *(
                    tf.where(tf.reshape(runs, [-1] + [1] * (old.shape.rank - 1)), new, old)
                    for new, old in zip(
                        told, (row.logprob, row.alternatives, row.alternative_logprobs),
                        strict=True,
                    )
                )
            )  # fmt: skip
            begin = tf.where(again | runs, before, rows.count)
            answer = self._answer(rows, begin, ended, stops, told)
            fields = {
                "used_at": tf.fill(tf.shape(slot), tf.timestamp()),
                "tokens": _with_written(row.tokens, lengths, rows),
                "num_read": tf.maximum(row.num_read, tf.where(runs, lengths + rows.count - 1, 0)),
                "before": before,
                "ended": ended,
                **told._asdict(),
            }
            reason = tf.gather(["", contract.STOP, contract.LENGTH], ended)
            answer["finish_reason"] = tf.where(error == "", reason, contract.ERROR_PREFIX + error)
            return Change(
                answer,
                [memory, put(slots, place, **fields), put(slots, place, count=rows.count)],
            )

        return self._table.call(body)

    def _advance(self, values, row: Slots, place, lengths, steps, stops: StopStrings):
        """Some tokens more for each row.

        Returns:
            `Rows`; `Told` of as many tokens as a slot keeps; a function that writes the memory.
        """
        text = self.text
        width = tf.reduce_max(tf.concat([row.count + steps, [1]], 0))
        behind = tf.minimum(lengths[:, None] + tf.range(width), text.context_length)
        # Filled so that the history holds only tokens of the row.
        is_written = tf.range(width) < row.count[:, None]
        written = tf.gather(row.tokens, behind, batch_dims=1)
        written = tf.where(is_written, written, row.tokens[:, :1])
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
            row.tokens[:, : tf.reduce_max(tf.concat([lengths, [1]], 0))],
            lengths,
            limit=row.limit,
            rules=BiasedRules(text.rules, Biases(row.bias_token_ids, row.bias)),
            sampling=row.sampling,
            stops=stops,
        )
        start = lengths + row.count - 1
        entries = rounded_up(tf.reduce_max(tf.concat([start + steps, [0]], 0)) + 1)
        rows, told, state = advance(
            text.model, add_token, before, self._memory.read(values, place, entries), steps,
            entries, tf.reduce_any(row.num_alternatives > 0), contract.MAX_ALTERNATIVES,
        )  # fmt: skip

        def kept(x):  # as many columns as a slot has
            room = contract.MAX_DECODED_TOKENS - tf.shape(x)[1]
            x = tf.pad(x, [[0, 0], [0, room], *[[0, 0]] * (x.shape.rank - 2)])
            x.set_shape([None, contract.MAX_DECODED_TOKENS, *x.shape[2:]])
            return x

        # A row that does not run writes the entry that it has.
        end = tf.where(steps > 0, lengths + rows.count - 1, start)
        return (
            rows,
            Told(*map(kept, told)),
            lambda: self._memory.write(values, state, place, start, end),
        )

    def _answer(self, rows: Rows, begin, ended, stops: StopStrings, told: Told):
        """What is said of the tokens from int32[b] on."""
        count = rows.count - begin
        most = tf.reduce_max(tf.concat([count, [0]], 0))
        here = tf.range(most)
        is_one = here < count[:, None]
        place = tf.minimum(begin[:, None] + here, tf.shape(rows.token_ids)[1] - 1)
        token_ids = tf.gather(rows.token_ids, place, batch_dims=1)
        token_ids = tf.where(is_one, token_ids, contract.PADDING)
        alternatives = told.alternatives[:, :most]
        alternatives = tf.where(is_one[..., None], alternatives, contract.PADDING)
        pieces = self.text.token_bytes.look_up(rows.token_ids)
        raw = _joined(pieces, rows.count)
        shown = tf.where(ended == _GOES_ON, shown_so_far(raw, stops), stops.cut(raw))
        earlier = shown_so_far(_joined(pieces, begin), stops)
        return {
            "text": new_part(self.text.finish(earlier), self.text.finish(shown)),
            "position": rows.count,
            "num_tokens": count,
            "token_ids": token_ids,
            "token_bytes": tf.where(is_one, tf.gather(pieces, place, batch_dims=1), ""),
            "logprobs": tf.where(is_one, told.logprob[:, :most], 0.0),
            "alternative_ids": alternatives,
            "alternative_bytes": self.text.token_bytes.look_up(alternatives),
            "alternative_logprobs": tf.where(
                is_one[..., None], told.alternative_logprobs[:, :most], 0.0
            ),
        }

    def release(self, slot, lease):
        """See `contract.SIGNATURES`."""

        def body(slots: Slots, _values) -> Change:
            place, own = own_slots(slots, slot, lease)
            freed = put(slots, place, lease=tf.fill(tf.shape(lease), ""))
            return Change({"error": tf.where(own, "", NOT_YOURS)}, [freed])

        return self._table.call(body)

    def slots(self, slot):
        """See `contract.SIGNATURES`."""

        def body(slots: Slots, _values) -> Change:
            is_one = (slot >= 0) & (slot < self.num_slots)
            row = at(slots, tf.where(is_one, slot, self.num_slots))
            idle_s = tf.timestamp() - row.used_at
            is_free = is_one & ((row.lease == "") | (idle_s > self.timeout_s))
            rule = f"slot must be from 0 to {self.num_slots - 1}"
            return Change(
                {
                    "is_free": is_free,
                    "idle_s": tf.where(is_one, tf.cast(idle_s, tf.float32), 0.0),
                    "num_tokens": tf.where(is_free, 0, row.num_prompt_tokens + row.count),
                    "num_slots": tf.fill(tf.shape(slot), self.num_slots),
                    "error": tf.where(is_one, "", wrong(rule, slot)),
                },
                [],
            )

        return self._table.call(body)


def _with_written(tokens, lengths, rows: Rows):
    """int32[b, t], the tokens of slots with what was written."""
    place = tf.range(tf.shape(tokens)[1]) - lengths[:, None]
    is_new = (place >= 0) & (place < rows.count[:, None])
    within = tf.clip_by_value(place, 0, tf.shape(rows.token_ids)[1] - 1)
    return tf.where(is_new, tf.gather(rows.token_ids, within, batch_dims=1), tokens)


def _joined(pieces, count):
    """string[b], the first int32[b] of string[b, n]."""
    shown = tf.sequence_mask(count, tf.shape(pieces)[1])
    return tf.strings.reduce_join(tf.where(shown, pieces, ""), -1)


def _caches_of(model):
    """The caches of a model as it begins: a nest of `tf.TensorSpec`s."""

    def refuse():
        raise UserError(
            f"A {type(model).__name__} cannot be exported with sessions: they are for decoders "
            "that remember by caches of attention (a GPT). Export it without."
        )

    def spec(cache):
        if cache.shape.rank != 4 or None in (cache.shape[1], cache.shape[3]):
            refuse()
        return tf.TensorSpec([None, cache.shape[1], None, cache.shape[3]], cache.dtype)

    if not getattr(model.backbone, "rewinds", False):
        refuse()
    with tf.Graph().as_default():
        one = tf.ones([1], tf.int32)
        return tf.nest.map_structure(spec, model.begin(one[None], one).state)
