"""The signatures of a model that goes on writing what it reads."""

import tensorflow as tf

from tfllm import contract
from tfllm.decoding import Text
from tfllm.models.preprocessor import require_language_model_tokenizer
from tfllm.models.sessions import Sessions
from tfllm.models.start import Start
from tfllm.models.text_functions import with_defaults
from tfllm.models.text_generator import TextGenerator


class CausalTextGenerator(TextGenerator):
    """Continues what it reads.

    Args:
        model: See `TextGenerator`.
        tokenizer: See `TextGenerator`.
        sessions: Texts that stay in the server from one call to the next, for the signatures
            `contract.SESSION_SIGNATURES`; 0 = none.
        session_timeout_s: A text that no call was about for so long may lose its place to another.
        **options: Of `TextGenerator`.

    Raises:
        UserError: the tokenizer has more tokens than the model, or no begin or end of a text, or
            the model cannot have sessions.
    """

    task = "causal_lm"

    def __init__(self, model, tokenizer, *, sessions=0, session_timeout_s=60.0, **options):
        require_language_model_tokenizer(tokenizer, model.backbone.vocabulary_size)
        super().__init__(model, tokenizer, **options)
        self.sessions = Sessions(self, sessions, session_timeout_s) if sessions else None
        if self.sessions:
            self.signatures = self.signatures | with_defaults(
                contract.SESSION_SIGNATURES, self.defaults
            )

    def function(self, signature_name):
        of_sessions = signature_name in contract.SESSION_SIGNATURES
        return getattr(self.sessions if of_sessions else self, signature_name)

    def read(self, texts):
        ids = tf.cast(self.tokenizer.tokenize(texts), tf.int32)
        with_begin = self.tokenizer.begins_with_bos | (ids.row_lengths() == 0)
        begin = tf.RaggedTensor.from_row_lengths(
            tf.fill([tf.reduce_sum(tf.cast(with_begin, tf.int32))], self.tokenizer.bos_id),
            tf.cast(with_begin, tf.int64),
            validate=False,
        )
        return tf.concat([begin, ids], 1)

    def start(self, ids, completions=None):
        most = self.context_length
        if completions is not None:
            ids, most = tf.concat([ids, completions], 1), most + 1  # the last one is not read
        prompt, lengths = self.dense(ids, most)
        room = self.context_length - lengths + 1
        return Start(self.model, prompt, lengths, room, known=Text(prompt, lengths))

    def scored_length(self, prompt, completion):
        return "the prompt with its completion", prompt + completion, self.context_length + 1

    def finish(self, raw):
        return self.tokenizer.finish_text(raw)

    def requests(self):
        requests = super().requests()
        if self.sessions is None:
            return requests
        # The last two slots at most, in the order in which a new server gives them.
        leases = ["one", "two"][: self.sessions.num_slots]
        some = self.some_text(min(12, self.context_length // 4))
        prompts = [some, some[:1]][: len(leases)]
        slots = [*range(len(leases))]
        row = {"slot": slots, "lease": leases}
        zero = [0] * len(leases)
        return [
            *requests,
            (contract.PREFILL, {"prompt": prompts, "lease": leases}),
            (contract.DECODE, {**row, "position": zero, "max_tokens": [4]}),
            (contract.RELEASE, row),
        ]

    def metadata(self):
        known = super().metadata()
        if self.sessions is None:
            return known
        return known | {
            "sessions": self.sessions.num_slots,
            "session_timeout_s": self.sessions.timeout_s,
            "session_bytes": self.sessions.num_bytes,
        }
