"""The signatures of an encoder–decoder model."""

import tensorflow as tf

from tfllm.decoding import Text
from tfllm.models.seq2seq_preprocessor import require_seq2seq_tokenizer
from tfllm.models.start import Start
from tfllm.models.text_generator import TextGenerator


class Seq2SeqTextGenerator(TextGenerator):
    """Reads a prompt as the source, and writes a target.

    In `score` a completion is a whole target, its end included: the score of what `generate`
    wrote is the `logprob` that it gave.

    Raises:
        UserError: the tokenizer has more tokens than the model, or no end of a text.
    """

    task = "seq2seq_lm"
    written_name = "what was generated, with its begin,"

    def __init__(self, model, tokenizer, **options):
        require_seq2seq_tokenizer(tokenizer, model.backbone)
        super().__init__(model, tokenizer, **options)

    def read(self, texts):
        return self.model.preprocessor.source_ids(texts)

    def tokenize_completion(self, texts):
        return self.model.preprocessor.target_ids(texts)

    @property
    def decoder(self):
        return self.model.writing()

    @property
    def most_tokens(self):
        return 2 * self.context_length

    def with_begin(self, ids):
        return tf.concat([ids, self._begin_of(ids)], 1), tf.cast(ids.row_lengths(), tf.int32)

    def _begin_of(self, ids):
        return tf.fill([ids.nrows(tf.int32), 1], self.model.preprocessor.start_id)

    def start(self, ids, completions=None):
        most = self.context_length
        source = Text(*self.dense(ids, most))
        reading = self.model.reading(*source)
        prompt = begin = self._begin_of(ids)
        lengths = tf.ones_like(begin[:, 0])
        if completions is not None:
            written, counts = self.dense(completions, most)
            prompt, lengths = tf.concat([begin, written], 1), 1 + counts
        # The last token that is written is not read.
        return Start(reading, prompt, lengths, most - lengths + 1, known=source)

    def scored_length(self, prompt, completion):
        return "the prompt or the completion", tf.maximum(prompt, completion), self.context_length

    def finish(self, raw):
        return self.tokenizer.finish_whole_text(raw)
