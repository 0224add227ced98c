"""The signatures of a model that goes on writing what it reads."""

import tensorflow as tf

from tfllm.decoding import Text
from tfllm.models.preprocessor import require_language_model_tokenizer
from tfllm.models.start import Start
from tfllm.models.text_generator import TextGenerator


class CausalTextGenerator(TextGenerator):
    """Continues what it reads.

    Args:
        model: See `TextGenerator`.
        tokenizer: See `TextGenerator`.
        **options: Of `TextGenerator`.

    Raises:
        UserError: the tokenizer has more tokens than the model, or no begin or end of a text.
    """

    task = "causal_lm"

    written_name = "the prompt with what was generated"

    def __init__(self, model, tokenizer, **options):
        require_language_model_tokenizer(tokenizer, model.backbone.vocabulary_size)
        super().__init__(model, tokenizer, **options)

    @property
    def decoder(self):
        return self.model

    @property
    def most_tokens(self):
        return self.context_length

    def with_begin(self, ids):
        return ids, tf.zeros([ids.nrows(tf.int32)], tf.int32)

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
