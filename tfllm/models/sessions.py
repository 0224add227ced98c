"""Texts that stay in a server from one call to the next: the signatures of a session export."""

from __future__ import annotations

import math
import uuid
from typing import TYPE_CHECKING

import tensorflow as tf

from tfllm import contract
from tfllm.decoding import Sampling, StopStrings
from tfllm.decoding.advancing import Told
from tfllm.errors import UserError
from tfllm.models.row_errors import wrong
from tfllm.models.session_asked import texts_asked_for
from tfllm.models.session_memory import memory_of
from tfllm.models.session_reading import read_prompts
from tfllm.models.session_slot_finding import NOT_YOURS, own_slots, place_texts
from tfllm.models.session_slots import FULL, GOES_ON, STOPPED, Change, Slots, SlotTable, at, put
from tfllm.models.session_writing import advance_rows, answer_of, with_written
from tfllm.models.text_functions import first_error, per_row

if TYPE_CHECKING:
    from tfllm.models.text_generator import TextGenerator


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

    def __init__(self, text: TextGenerator, num_slots: int, timeout_s: float):
        if num_slots < 1:
            raise UserError(f"sessions must be at least 1, got {num_slots}.")
        if not 0 < timeout_s < math.inf:
            raise UserError(f"session_timeout_s must be finite and above 0, got {timeout_s}.")
        self.text = text
        self.num_slots = num_slots
        self.timeout_s = timeout_s
        # No other model of a process may have variables of these names.
        name = f"tfllm-sessions-{uuid.uuid4().hex}"
        self._memory = memory_of(text, f"{name}/memory", num_slots + 1)
        self._table = SlotTable(name, self._memory, num_slots, text.most_tokens)
        self.num_bytes = sum(variable.num_bytes for variable in self._memory.variables)

    def prefill(  # noqa: PLR0913 - the inputs of a signature
        self, prompt, lease, generated, max_prefill_tokens, max_new_tokens, temperature, top_k,
        top_p, min_p, repetition_penalty, presence_penalty, frequency_penalty, seed, stop,
        num_alternatives, bias_token_ids, bias,
    ):  # fmt: skip
        """See `contract.SIGNATURES`; parameters of one row serve all rows."""
        sampling = Sampling(
            *(
                per_row(x, prompt)
                for x in (
                    temperature, top_k, top_p, min_p, repetition_penalty, presence_penalty,
                    frequency_penalty, seed,
                )
            )
        )  # fmt: skip
        asked = texts_asked_for(
            self.text,
            prompt,
            lease,
            per_row(generated, prompt),
            limit=per_row(max_new_tokens, prompt),
            sampling=sampling,
            stop=per_row(stop, prompt),
            bias_token_ids=per_row(bias_token_ids, prompt),
            bias=per_row(bias, prompt),
        )
        most_read = tf.maximum(per_row(max_prefill_tokens, prompt), 0)

        def body(slots: Slots, values) -> Change:
            now = tf.timestamp()
            place = place_texts(slots, self._memory, lease, asked, now, self.timeout_s)
            accepted = place.error == ""
            wanted = asked.num_prompt_tokens + asked.count - 1  # `decode` reads the last token
            # A source is read whole or not at all.
            source = tf.where(most_read > 0, asked.num_source_tokens - place.reused, 0)
            most = tf.maximum(most_read, source)
            reads = tf.where(accepted, tf.minimum(wanted - place.reused, most), 0)
            num_read = place.reused + reads
            # Until all is written, the slot is nobody's and has what it will keep.
            kept = tf.where(place.source == place.slot, place.reused, 0)
            fields = {
                **asked.fields(),
                "used_at": tf.fill(tf.shape(lease), now),
                "before": asked.count,
                **sampling._asdict(),
                "num_alternatives": per_row(num_alternatives, prompt),
            }
            return Change(
                {
                    "slot": tf.where(accepted, place.slot, -1),
                    "is_ready": accepted & (num_read == wanted),
                    "num_prompt_tokens": asked.length,
                    "num_read": num_read,
                    "num_reused": place.reused,
                    "max_new_tokens": tf.where(accepted, asked.limit, 0),
                    "error": place.error,
                },
                [
                    put(slots, place.slot, lease=tf.fill(tf.shape(lease), ""), num_read=kept),
                    lambda: read_prompts(self.text, self._memory, values, place, asked, reads),
                    put(slots, place.slot, **fields),
                    put(slots, place.slot, num_read=num_read),
                    put(slots, place.slot, lease=tf.where(accepted, lease, "")),
                ],
            )

        return self._table.call(body)

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
            runs = (error == "") & ~again & (row.ended == GOES_ON)
            steps = tf.where(runs, most, 0)
            stops = StopStrings(
                tf.where(own[:, None], row.stop, ""),
                text.token_bytes.look_up,
                text.token_bytes.longest,
            )
            rows, told, memory = advance_rows(
                text, self._memory, values, row, place, lengths, steps, stops
            )
            ended = tf.where(
                runs & rows.stopped,
                STOPPED,
                tf.where(runs & (rows.count >= row.limit), FULL, row.ended),
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
            answer = answer_of(text, rows, begin, ended, stops, told)
            fields = {
                "used_at": tf.fill(tf.shape(slot), tf.timestamp()),
                "tokens": with_written(row.tokens, lengths, rows),
                "num_read": tf.where(runs, lengths + rows.count - 1, row.num_read),
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
