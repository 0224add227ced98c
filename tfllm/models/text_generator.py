"""Strings in, strings out, in the graph: what a live model and its export both run."""

import numpy as np
import tensorflow as tf

from tfllm import contract
from tfllm.decoding import Sampling, StopStrings, decode
from tfllm.decoding.loop import rounded_up
from tfllm.decoding.stopping import MAX_STOP_BYTES
from tfllm.models.preprocessor import require_language_model_tokenizer
from tfllm.tokenizers.utf8 import valid_utf8_in_graph

# Prompts are padded to a multiple of this: every new shape builds new kernels.
_PROMPT_MULTIPLE = 32
_NORMALIZED = 4
# Positions whose logits are held at once in `score`.
_SCORED_AT_ONCE = 64


def input_specs(signature: contract.Signature) -> list[tf.TensorSpec]:
    """What a function of that signature takes, for any number of rows."""
    return [
        tf.TensorSpec([None, *field.shape], field.dtype, name=field.name)
        for field in signature.inputs
    ]


class TextGenerator:
    """The signatures of a language model, as functions of tensors.

    Args:
        model: A `CausalLM`.
        tokenizer: Of `tfllm.tokenizers`.

    Raises:
        UserError: the tokenizer has more tokens than the model, or no begin or end of a text.
    """

    def __init__(self, model, tokenizer):
        require_language_model_tokenizer(tokenizer, model.backbone.vocabulary_size)
        self.model = model
        self.tokenizer = tokenizer
        self.context_length = model.backbone.max_sequence_length
        token_bytes = tokenizer.token_bytes()
        # A table may have more rows than there are tokens (a multiple of 64, say).
        unused = model.backbone.vocabulary_size - len(token_bytes)
        self._token_bytes = token_bytes + [b""] * unused
        # A longer text has too many tokens for sure, and tokenizing it would cost its neighbours
        # their memory. The factor is for models that normalize, which may shorten a text.
        self._most_bytes = _NORMALIZED * (self.context_length + 1) * max(map(len, token_bytes))

    def generate(
        self,
        prompt,
        max_new_tokens,
        temperature,
        top_k,
        top_p,
        min_p,
        repetition_penalty,
        seed,
        stop,
    ):
        """See `contract.GENERATOR_SIGNATURES`; parameters of one row serve all rows."""
        rows = tf.shape(prompt)[0]

        def per_row(x):
            return tf.broadcast_to(x, tf.concat([[rows], tf.shape(x)[1:]], 0))

        limit = per_row(max_new_tokens)
        sampling = Sampling(
            *map(per_row, (temperature, top_k, top_p, min_p, repetition_penalty, seed))
        )
        stop = tf.reshape(stop, [tf.shape(stop)[0], contract.MAX_STOP_STRINGS])
        stop = valid_utf8_in_graph(per_row(stop))
        prompt, huge = self._without_huge(prompt)
        prompts = self._with_begin(prompt)
        lengths = tf.cast(prompts.row_lengths(), tf.int32)
        error = _first_error(
            [
                (huge, self._huge("the prompt", self.context_length)),
                (
                    lengths > self.context_length,
                    _too_long("the prompt", lengths, self.context_length),
                ),
                (limit < 0, _wrong("max_new_tokens must be at least 0", limit)),
                *_sampling_errors(sampling),
                (
                    tf.reduce_any(tf.strings.length(stop) > MAX_STOP_BYTES, -1),
                    f"a stop string is longer than {MAX_STOP_BYTES} bytes",
                ),
            ]
        )
        fine = error == ""
        # A refused row becomes the shortest there is, so that the others do not pay for it.
        lengths = tf.where(fine, lengths, 1)
        limit = tf.where(fine, tf.minimum(limit, self.context_length - lengths + 1), 0)
        sampling = Sampling(
            *(tf.where(fine, given, off) for given, off in zip(sampling, _OFF, strict=True))
        )
        stop = tf.where(fine[:, None], stop, "")
        token_bytes = tf.constant(self._token_bytes)
        stops = StopStrings(stop, token_bytes)
        decoded = decode(
            self.model, self._dense(prompts, lengths, self.context_length), lengths,
            limit=limit, sampling=sampling, stops=stops,
        )  # fmt: skip
        shown = tf.sequence_mask(decoded.num_tokens, tf.shape(decoded.token_ids)[1])
        pieces = tf.where(shown, tf.gather(token_bytes, decoded.token_ids), "")
        text = self.tokenizer.finish_text(stops.cut(tf.strings.reduce_join(pieces, -1)))
        reason = tf.where(decoded.stopped, contract.STOP, contract.LENGTH)
        return {
            "text": text,
            "finish_reason": tf.where(fine, reason, contract.ERROR_PREFIX + error),
            "num_tokens": decoded.num_tokens,
            "logprob": decoded.logprob,
        }

    def score(self, prompt, completion):
        """See `contract.GENERATOR_SIGNATURES`."""
        prompt, huge_prompt = self._without_huge(prompt)
        completion, huge_completion = self._without_huge(completion)
        prompts = self._with_begin(prompt)
        wanted = tf.cast(self.tokenizer.tokenize(completion), tf.int32)
        ids = tf.concat([prompts, wanted], 1)
        lengths = tf.cast(ids.row_lengths(), tf.int32)
        # The last token is predicted, not read.
        most = self.context_length + 1
        what = "the prompt with its completion"
        error = _first_error(
            [
                (huge_prompt | huge_completion, self._huge(what, most)),
                (lengths > most, _too_long(what, lengths, most)),
            ]
        )
        fine = error == ""
        count = tf.where(fine, tf.cast(wanted.row_lengths(), tf.int32), 0)
        lengths = tf.where(fine, lengths, 1)
        dense = self._dense(ids, lengths, most)
        logprob, best = self._scores_of_next(dense)
        place = tf.range(1, tf.shape(dense)[1])[None]
        scored = (place >= (lengths - count)[:, None]) & (place < lengths[:, None])
        return {
            "logprob": tf.reduce_sum(tf.where(scored, logprob, 0.0), -1),
            "num_tokens": count,
            "is_greedy": tf.reduce_all(best | ~scored, -1) & fine,
            "error": error,
        }

    def tokenize(self, text):
        """See `contract.GENERATOR_SIGNATURES`."""
        ids = tf.cast(self.tokenizer.tokenize(text), tf.int32)
        return {
            "token_ids": ids.to_tensor(contract.PADDING),
            "num_tokens": tf.cast(ids.row_lengths(), tf.int32),
        }

    def detokenize(self, token_ids):
        """See `contract.GENERATOR_SIGNATURES`."""
        return {"text": self.tokenizer.detokenize(token_ids)}

    def _without_huge(self, texts):
        """Texts, "" where one cannot fit whatever its tokens are; and bool[b], where that is."""
        huge = tf.strings.length(texts) > self._most_bytes
        return tf.where(huge, "", texts), huge

    def _huge(self, what: str, most: int) -> str:
        return f"{what} is too long: above {self._most_bytes} bytes, the model takes {most}"

    def _with_begin(self, texts):
        ids = tf.cast(self.tokenizer.tokenize(texts), tf.int32)
        begin = tf.fill([tf.shape(texts)[0], 1], self.tokenizer.bos_id)
        return tf.concat([begin, ids], 1)

    def _dense(self, ids, lengths, most: int):
        """int32[b, t]: rows of the given lengths, cut or padded; t is rounded up, to `most`."""
        longest = tf.reduce_max(tf.concat([lengths, [1]], 0))
        width = tf.minimum(rounded_up(longest, _PROMPT_MULTIPLE), most)
        return ids[:, :width].to_tensor(
            self.tokenizer.padding_id, shape=tf.stack([tf.shape(lengths)[0], width])
        )

    def _scores_of_next(self, ids):
        """float32[b, t - 1], log-probability of each next token; bool[b, t - 1], is it the best."""
        read, wanted = ids[:, :-1], ids[:, 1:]
        hidden = self.model.backbone(
            {
                "token_ids": read,
                "segment_ids": tf.ones_like(read),
                "positions": tf.zeros_like(read) + tf.range(tf.shape(read)[1])[None],
            },
            training=False,
        )
        steps = tf.shape(read)[1]

        def some(start, logprob, best):
            end = tf.minimum(start + _SCORED_AT_ONCE, steps)
            logits = self.model.backbone.token_embedding(hidden[:, start:end], reverse=True)
            target = wanted[:, start:end]
            chosen = tf.gather(logits, target, batch_dims=2) - tf.reduce_logsumexp(logits, -1)
            is_best = tf.argmax(logits, -1, output_type=tf.int32) == target
            return end, tf.concat([logprob, chosen], 1), tf.concat([best, is_best], 1)

        none = wanted[:, :0]
        _, logprob, best = tf.while_loop(
            lambda start, *_: start < steps,
            some,
            (tf.constant(0), tf.cast(none, tf.float32), tf.cast(none, tf.bool)),
            shape_invariants=(
                tf.TensorShape([]), tf.TensorShape([None, None]), tf.TensorShape([None, None])
            ),
        )  # fmt: skip
        return logprob, best


# Sampling of a refused row: greedy, no penalty, so that it costs nothing.
_OFF = Sampling(0.0, 0, 1.0, 0.0, 1.0, np.int64(0))


def _first_error(checks):
    """string[b]: the message of the first check that is true in a row, or ""."""
    error = tf.fill(tf.shape(checks[0][0]), "")
    for wrong, message in reversed(checks):
        error = tf.where(wrong, message, error)
    return error


def _wrong(rule: str, value):
    return tf.strings.join([rule, ", got ", tf.strings.as_string(value)])


def _too_long(what: str, lengths, most: int):
    return tf.strings.join(
        [what, " is too long: ", tf.strings.as_string(lengths), f" tokens, the model takes {most}"]
    )


def _sampling_errors(sampling: Sampling):
    def outside(x, least, most):
        return ~((x >= least) & (x <= most))  # true for NaN too

    t, p, m, r = (
        sampling.temperature, sampling.top_p, sampling.min_p, sampling.repetition_penalty
    )  # fmt: skip
    largest = tf.float32.max
    return [
        (outside(t, 0.0, largest), _wrong("temperature must be finite and at least 0", t)),
        (sampling.top_k < 0, _wrong("top_k must be at least 0", sampling.top_k)),
        (outside(p, 0.0, 1.0), _wrong("top_p must be from 0 to 1", p)),
        (outside(m, 0.0, 1.0), _wrong("min_p must be from 0 to 1", m)),
        (
            outside(r, 0.0, largest) | (r == 0.0),
            _wrong("repetition_penalty must be finite and above 0", r),
        ),
    ]
