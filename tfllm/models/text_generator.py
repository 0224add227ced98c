"""The signatures of a model that writes text."""

import json
from typing import Any

import numpy as np
import tensorflow as tf

from tfllm import contract
from tfllm.decoding import (
    Lookup,
    Penalties,
    Rules,
    Sampling,
    StopStrings,
    Text,
    beam_search,
    decode,
)
from tfllm.decoding.decodable import rounded_up
from tfllm.decoding.stopping import MAX_STOP_BYTES
from tfllm.errors import UserError
from tfllm.models.row_errors import sampling_errors, too_long, wrong
from tfllm.models.sessions import Sessions
from tfllm.models.start import Start, scores_of_next
from tfllm.models.text_functions import TextFunctions, first_error, per_row, with_defaults
from tfllm.tokenizers.byte_table import ByteTable
from tfllm.tokenizers.utf8 import valid_utf8_in_graph

# Prompts are padded to a multiple of this: every new shape builds new kernels.
_PROMPT_MULTIPLE = 32
_NORMALIZED = 4
_DEFAULT_BEAMS = 4


class TextGenerator(TextFunctions):
    """The signatures of `contract.GENERATOR_SIGNATURES` but for where writing begins.

    With a chat template there is also `describe`.

    A subclass gives `read`, `start` and `finish`, and for sessions `decoder`, `most_tokens`,
    `written_name` and `with_begin`.

    Args:
        model: A `CausalLM` or `Seq2SeqLM`.
        tokenizer: Of `tfllm.tokenizers`.
        beams: Width of `beam_search`; None means the model's own `num_beams`, or 4.
        prompt_lookup: Tokens that `generate` takes over from the text so far at a time where it may
            repeat itself, without any change of what is written; 0 = none. See
            `tfllm.decoding.prompt_lookup`.
        sessions: Texts that stay in the server from one call to the next, for the signatures
            `contract.SESSION_SIGNATURES`; 0 = none.
        session_timeout_s: A text that no call was about for so long may lose its place to another.

    Raises:
        UserError: `beams` is no number of beams, or the model cannot look up its prompts or have
            sessions.
    """

    written_name: str  # what the decoder's text is called in errors

    def __init__(
        self,
        model,
        tokenizer,
        beams: int | None = None,
        prompt_lookup: int = 0,
        *,
        sessions: int = 0,
        session_timeout_s: float = 60.0,
    ):
        super().__init__(model, tokenizer)
        if beams is not None and beams < 1:
            raise UserError(f"beams must be at least 1, got {beams}.")
        if prompt_lookup < 0:
            raise UserError(f"prompt_lookup must be at least 0, got {prompt_lookup}.")
        if prompt_lookup and not getattr(model.backbone, "rewinds", False):
            raise UserError(
                f"A {type(model).__name__} cannot forget what it has read, so that nothing can be "
                "guessed for it: export it without prompt_lookup."
            )
        self.prompt_lookup = prompt_lookup
        settings = model.generation
        self.settings = settings
        self.beams = beams or (settings.num_beams if settings.num_beams > 1 else _DEFAULT_BEAMS)
        self.defaults = {
            "max_new_tokens": settings.max_new_tokens,
            "temperature": settings.temperature,
            "top_k": settings.top_k,
            "top_p": settings.top_p,
            "min_p": settings.min_p,
            "repetition_penalty": settings.repetition_penalty,
            "presence_penalty": settings.presence_penalty,
            "frequency_penalty": settings.frequency_penalty,
            "length_penalty": settings.length_penalty,
        }
        chats = tokenizer.chat_template is not None
        table = contract.CHAT_SIGNATURES if chats else contract.GENERATOR_SIGNATURES
        self.signatures = with_defaults(table, self.defaults)
        self.rules = Rules(
            _end_token_ids(settings, tokenizer),
            settings.suppressed_token_ids,
            settings.forced_bos_token_id,
            settings.forced_eos_token_id,
            settings.min_new_tokens,
            settings.no_repeat_ngram_size,
        )
        self.context_length = model.backbone.max_sequence_length
        self.token_bytes = ByteTable(tokenizer.token_bytes())
        # A longer text has too many tokens for sure, and tokenizing it would cost its neighbours
        # their memory. The factor is for models that normalize, which may shorten a text.
        self._most_bytes = _NORMALIZED * (self.context_length + 1) * self.token_bytes.longest
        self.sessions = Sessions(self, sessions, session_timeout_s) if sessions else None
        if self.sessions:
            self.signatures = self.signatures | with_defaults(
                contract.SESSION_SIGNATURES, self.defaults
            )

    def function(self, signature_name):
        of_sessions = signature_name in contract.SESSION_SIGNATURES
        return getattr(self.sessions if of_sessions else self, signature_name)

    def read(self, texts) -> tf.RaggedTensor:
        """int32[b, None], prompts as the model reads them, each at least one token."""
        raise NotImplementedError

    def start(self, ids, completions=None) -> Start:
        """Where writing begins.

        Args:
            ids: Ragged int32[b, None], of `read`, each short enough.
            completions: Ragged int32[b, None], what stands behind the prompts already, for `score`.
        """
        raise NotImplementedError

    @property
    def decoder(self):
        """What takes the steps: as of `tfllm.decoding.Decodable`, but without `begin`."""
        raise NotImplementedError

    @property
    def most_tokens(self) -> int:
        """Of a prompt and what is written behind it, but for the last one."""
        raise NotImplementedError

    def with_begin(self, ids) -> tuple[tf.RaggedTensor, tf.Tensor]:
        """What stands before anything is written.

        Args:
            ids: Ragged int32[b, None], of `read`.

        Returns:
            Ragged int32[b, None], with what the decoder begins with; int32[b], how many tokens of
            it are a source, which the decoder does not go on with.
        """
        raise NotImplementedError

    def finish(self, raw) -> tf.Tensor:
        """string[b], texts of the joined bytes of the tokens that were written."""
        raise NotImplementedError

    def serving_default(self, functions, *required):
        """`generate` with the model's own settings: its best beam if it has several."""
        (prompt,) = required
        if self.settings.num_beams == 1:
            return functions[contract.GENERATE](prompt)
        limit = tf.constant([self.settings.max_new_tokens])
        penalty = tf.constant([self.settings.length_penalty])
        out = self._search(prompt, limit, penalty, self.settings.num_beams)
        return {name: column[:, 0] for name, column in out.items() if name != "score"}

    def generate(  # noqa: PLR0913 - the inputs of a signature
        self,
        prompt,
        max_new_tokens,
        temperature,
        top_k,
        top_p,
        min_p,
        repetition_penalty,
        presence_penalty,
        frequency_penalty,
        seed,
        stop,
    ):
        """See `contract.SIGNATURES`; parameters of one row serve all rows."""
        limit = per_row(max_new_tokens, prompt)
        sampling = Sampling(
            *(
                per_row(x, prompt)
                for x in (
                    temperature, top_k, top_p, min_p, repetition_penalty, presence_penalty,
                    frequency_penalty, seed,
                )
            )
        )  # fmt: skip
        stop = tf.reshape(stop, [tf.shape(stop)[0], contract.MAX_STOP_STRINGS])
        stop = valid_utf8_in_graph(per_row(stop, prompt))
        long_stop = tf.reduce_any(tf.strings.length(stop) > MAX_STOP_BYTES, -1)
        # Several samples of a prompt read it once.
        texts, prompt_of = tf.unique(prompt)
        start, limit, error = self._begin(
            texts,
            prompt_of,
            limit,
            [
                *sampling_errors(sampling),
                (long_stop, f"a stop string is longer than {MAX_STOP_BYTES} bytes"),
            ],
        )
        fine = error == ""
        sampling = Sampling(
            *(tf.where(fine, given, off) for given, off in zip(sampling, _OFF, strict=True))
        )
        stops = StopStrings(
            tf.where(fine[:, None], stop, ""),
            self.token_bytes.look_up,
            self.token_bytes.longest,
        )
        decoded = decode(
            start.model, start.prompt, start.lengths,
            limit=limit, rules=self.rules, sampling=sampling, stops=stops, prompt_of=prompt_of,
            lookup=self._lookup(start.known, prompt_of),
        )  # fmt: skip
        raw = self._joined(decoded.token_ids, decoded.num_tokens)
        return {
            "text": self.finish(stops.cut(raw)),
            "finish_reason": _reason(decoded.stopped, error),
            "num_tokens": decoded.num_tokens,
            "logprob": decoded.logprob,
        }

    def beam_search(self, prompt, max_new_tokens, length_penalty):
        """See `contract.SIGNATURES`; parameters of one row serve all rows."""
        out = self._search(prompt, max_new_tokens, length_penalty, self.beams)
        return {name: out[name] for name in ("text", "score", "finish_reason")}

    def _search(self, prompt, max_new_tokens, length_penalty, num_beams: int):
        limit, penalty = per_row(max_new_tokens, prompt), per_row(length_penalty, prompt)
        finite = tf.math.is_finite(penalty)
        start, limit, error = self._begin(
            prompt,
            tf.range(tf.size(prompt)),
            limit,
            [(~finite, wrong("length_penalty must be finite", penalty))],
        )
        found = beam_search(
            start.model, start.prompt, start.lengths,
            limit=limit, num_beams=num_beams, rules=self.rules,
            length_penalty=tf.where(finite, penalty, 1.0),
            early_stopping=self.settings.early_stopping,
            penalties=self._penalties(tf.shape(limit)),
        )  # fmt: skip
        raw = self._joined(found.token_ids, found.num_tokens)
        text = tf.reshape(self.finish(tf.reshape(raw, [-1])), tf.shape(raw))
        return {
            "text": text,
            "score": found.score,
            "finish_reason": _reason(found.stopped, error[:, None]),
            "num_tokens": found.num_tokens,
            "logprob": found.logprob,
        }

    def _penalties(self, rows) -> Penalties | None:
        """The model's own, for so many rows."""
        settings = self.settings
        own = Penalties(
            settings.repetition_penalty, settings.presence_penalty, settings.frequency_penalty
        )
        if own == Penalties(1.0, 0.0, 0.0):
            return None
        return Penalties(*(tf.fill(rows, float(x)) for x in own))

    def _begin(self, texts, prompt_of, limit, checks):
        """Where prompts begin, int32[b] new tokens each row may have, string[b] what is wrong.

        A prompt that no row goes on from becomes the shortest there is, so that the others do not
        pay for it.

        Args:
            texts: string[p], prompts.
            prompt_of: int32[b], the prompt of each row.
            limit: int32[b], new tokens that are asked for.
            checks: More that may be wrong with rows, as of `first_error`.
        """
        texts, huge = self.without_huge(texts)
        ids = self.read(texts)
        lengths = tf.cast(ids.row_lengths(), tf.int32)
        of_row, most = tf.gather(lengths, prompt_of), self.context_length
        error = first_error(
            [
                (tf.gather(huge, prompt_of), self.huge("the prompt", most)),
                (of_row > most, too_long("the prompt", of_row, most)),
                (limit < 0, wrong("max_new_tokens must be at least 0", limit)),
                *checks,
            ]
        )
        fine = error == ""
        used = tf.math.unsorted_segment_max(tf.cast(fine, tf.int32), prompt_of, tf.size(texts)) > 0
        start = self.start(_cut(ids, tf.where(used, lengths, 1)))
        room = tf.gather(start.room, prompt_of)
        return start, tf.where(fine, tf.minimum(limit, room), 0), error

    def _lookup(self, known: Text, prompt_of) -> Lookup | None:
        if not self.prompt_lookup:
            return None
        return Lookup(Text(*(tf.gather(x, prompt_of) for x in known)), self.prompt_lookup)

    def _joined(self, token_ids, num_tokens):
        """string[...], the bytes of int32[..., n] tokens."""
        shown = tf.sequence_mask(num_tokens, tf.shape(token_ids)[-1])
        return tf.strings.reduce_join(self.token_bytes.look_up(tf.where(shown, token_ids, -1)), -1)

    def score(self, prompt, completion):
        """See `contract.SIGNATURES`."""
        prompt, huge_prompt = self.without_huge(prompt)
        completion, huge_completion = self.without_huge(completion)
        prompts = self.read(prompt)
        wanted = tf.cast(self.tokenize_completion(completion), tf.int32)
        lengths = tf.cast(prompts.row_lengths(), tf.int32)
        count = tf.cast(wanted.row_lengths(), tf.int32)
        what, used, most = self.scored_length(lengths, count)
        error = first_error(
            [
                (huge_prompt | huge_completion, self.huge(what, most)),
                (used > most, too_long(what, used, most)),
            ]
        )
        fine = error == ""
        count = tf.where(fine, count, 0)
        start = self.start(_cut(prompts, tf.where(fine, lengths, 1)), _cut(wanted, count))
        logprob, best = scores_of_next(start)
        place = tf.range(1, tf.shape(start.prompt)[1])[None]
        end = start.lengths[:, None]
        scored = (place >= end - count[:, None]) & (place < end)
        return {
            "logprob": tf.reduce_sum(tf.where(scored, logprob, 0.0), -1),
            "num_tokens": count,
            "is_greedy": tf.reduce_all(best | ~scored, -1) & fine,
            "error": error,
        }

    def tokenize_completion(self, texts) -> tf.RaggedTensor:
        """int32[b, None], texts as the model writes them."""
        return self.tokenizer.tokenize(texts)

    def scored_length(self, prompt, completion):
        """What `score` counts: its name, int32[b] how much there is, and how much there may be."""
        raise NotImplementedError

    def describe(self, key):
        """See `contract.SIGNATURES`."""
        known = {"task": self.task, **self.metadata()}
        keys = tf.constant([*known])
        values = tf.constant([*(json.dumps(v, ensure_ascii=False) for v in known.values()), ""])
        equal = tf.cast(key[:, None] == keys, tf.int32)
        place = tf.argmax(equal, -1, tf.int32)
        return {
            "value": tf.gather(values, tf.where(tf.reduce_any(equal > 0, -1), place, len(known)))
        }

    def requests(self):
        some = self.some_text(min(12, self.context_length // 4))
        too_long = some * self.context_length
        prompts = ["", some, some[:1]]
        requests = [
            (contract.SERVING_DEFAULT, {"prompt": [some]}),
            (contract.GENERATE, {"prompt": [*prompts, too_long], "max_new_tokens": [8]}),
            (
                contract.GENERATE,
                {"prompt": prompts, "temperature": [1.0], "seed": [7], "max_new_tokens": [8]},
            ),
            (contract.BEAM_SEARCH, {"prompt": [*prompts, too_long], "max_new_tokens": [8]}),
            (contract.SCORE, {"prompt": ["", some, too_long], "completion": [some, some[:3], "x"]}),
            *(
                (name, {"key": ["task", contract.CHAT_TEMPLATE, ""]})
                for name in self.signatures
                if name == contract.DESCRIBE
            ),
            *super().requests(),
        ]
        if self.sessions is None:
            return requests
        # The last two slots at most, in the order in which a new server gives them.
        leases = ["one", "two"][: self.sessions.num_slots]
        slots = [*range(len(leases))]
        row = {"slot": slots, "lease": leases}
        return [
            *requests,
            (contract.PREFILL, {"prompt": [some, some[:1]][: len(leases)], "lease": leases}),
            (contract.DECODE, {**row, "position": [0] * len(leases), "max_tokens": [4]}),
            (contract.RELEASE, row),
        ]

    def metadata(self) -> dict[str, Any]:
        template = self.tokenizer.chat_template
        known = {} if template is None else {contract.CHAT_TEMPLATE: template.as_dict()}
        if self.sessions:
            known |= {
                "sessions": self.sessions.num_slots,
                "session_timeout_s": self.sessions.timeout_s,
                "session_bytes": self.sessions.num_bytes,
            }
        return {
            "context_length": self.context_length,
            "beams": self.beams,
            "prompt_lookup": self.prompt_lookup,
            **known,
        }

    def without_huge(self, texts):
        """Texts, "" where one cannot fit whatever its tokens are; and bool[b], where that is."""
        huge = tf.strings.length(texts) > self._most_bytes
        return tf.where(huge, "", texts), huge

    def huge(self, what: str, most: int) -> str:
        return f"{what} is too long: above {self._most_bytes} bytes, the model takes {most}"

    def dense(self, ids, most: int):
        """int32[b, t] of ragged ids, padded; t is rounded up, to `most`; and int32[b], lengths."""
        lengths = tf.cast(ids.row_lengths(), tf.int32)
        longest = tf.reduce_max(tf.concat([lengths, [1]], 0))
        width = tf.minimum(rounded_up(longest, _PROMPT_MULTIPLE), most)
        shape = tf.stack([tf.shape(lengths)[0], width])
        return ids.to_tensor(self.tokenizer.padding_id, shape=shape), lengths


def _cut(ids, lengths):
    """Ragged rows, cut to the given lengths."""
    place = tf.ragged.range(ids.row_lengths())
    keep = place.values < tf.cast(tf.gather(lengths, ids.value_rowids()), tf.int64)
    return tf.ragged.boolean_mask(ids, ids.with_values(keep))


def _end_token_ids(settings, tokenizer) -> tuple[int, ...]:
    """What ends a text: also a stop string of the chat template that is a token without text."""
    ids = settings.end_token_ids or (tokenizer.eos_id,)
    stop = () if tokenizer.chat_template is None else tokenizer.chat_template.stop
    ends = [token.id for token in tokenizer.added_tokens if token.text in stop]
    return (*ids, *(end for end in ends if end not in ids))


def _reason(stopped, error):
    reason = tf.where(stopped, contract.STOP, contract.LENGTH)
    return tf.where(error == "", reason, contract.ERROR_PREFIX + error)


# Sampling of a refused row: greedy, no penalty, so that it costs nothing.
_OFF = Sampling(0.0, 0, 1.0, 0.0, 1.0, 0.0, 0.0, np.int64(0))
