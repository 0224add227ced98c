"""A model that finds the answer to a question in a text."""

import keras
import keras_hub
import tensorflow as tf
from keras import ops

from tfllm.calls import SpanQACalls
from tfllm.layers import Linear
from tfllm.models.bert import bert_initializer
from tfllm.models.encoder_inputs import Parts, join
from tfllm.models.encoder_task import EncoderTask, one_per_row
from tfllm.models.span_qa_text import SpanQAText, read, span_plan


@keras.saving.register_keras_serializable("tfllm")
class SpanQA(EncoderTask, SpanQACalls, keras_hub.models.Task):
    """Finds the answer to a question in a context.

    Trains with plain `compile` and `fit`, on a dataset of ((question, context), y): int[b, 2],
    where the answer begins in the context and where it ends (exclusive), in Unicode code points;
    0 and 0 where there is none. Of a long context the first window that holds the answer is
    used. With `loss="auto"` the loss is the mean over the global batch of the cross-entropies of
    its first and last token.

    Args:
        backbone: A `BertBackbone` or `LSTMEncoderBackbone`.
        preprocessor: An `EncoderPreprocessor`; None when only token ids are used.
        seed: Of dropout.

    Call arguments:
        inputs: The backbone's inputs, a dict of int32[b, t].

    Returns:
        Logits, float32[b, t, 2]: that an answer begins at a token, and that it ends with it.

    Source:
        Devlin et al. 2019, section 4.2, https://arxiv.org/abs/1810.04805;
        BertForQuestionAnswering of `transformers`.
    """

    def __init__(self, backbone, preprocessor=None, seed=0, **kwargs):
        self._set_up(backbone, preprocessor, seed)
        self.head = Linear(
            2, kernel_initializer=bert_initializer(), dtype=backbone.dtype_policy, name="head"
        )
        inputs = backbone.input
        logits = self.head(backbone(inputs)["sequence_output"])
        super().__init__(inputs=inputs, outputs=ops.cast(logits, "float32"), **kwargs)

    def target_weights(self, y, weight):
        return one_per_row(y, weight)

    def target_losses(self, y, outputs, label_smoothing=0.0):
        ends = tf.transpose(outputs, (0, 2, 1))  # [b, 2, t]
        return tf.reduce_mean(super().target_losses(y, ends, label_smoothing), -1)

    @tf.autograph.experimental.do_not_convert
    def preprocess_samples(self, x, y=None, sample_weight=None):
        if isinstance(x, tuple) and self.preprocessor is not None:
            x, y = self._window_of_answer(*x, y)
        return super().preprocess_samples(x, y, sample_weight)

    def _window_of_answer(self, question, context, y):
        """Inputs, and int32[b, 2]: the places of the answer's first and last token, 0 if none."""
        tokenizer, length = self._tokenizer(), self.preprocessor.sequence_length
        plan = span_plan(length)
        question, context = tf.convert_to_tensor(question), tf.convert_to_tensor(context)
        tokens = read(tokenizer, plan, question, context)
        asked, rows = tokens.question.size, tf.size(question)
        room, step = plan.room(asked), plan.step(asked)
        answer = tf.zeros([rows, 2], tf.int32) if y is None else tf.cast(y, tf.int32)
        begin, end = tf.unstack(answer, axis=-1)
        row = tokens.ids.value_rowids()
        nowhere = tf.zeros_like(begin)

        def number(those, limit):  # of tokens of each context that are on this side of it
            limit = tf.gather(tf.concat([nowhere, limit], 0), row)
            return tf.math.unsorted_segment_sum(tf.cast(those < limit, tf.int32), row, 2 * rows)[
                rows:
            ]

        first = number(tokens.ends.values - 1, begin)
        last = number(tokens.starts.values, end) - 1
        there = (begin < end) & (first <= last)
        start = step * tf.where(there, -(-tf.maximum(last + 1 - room, 0) // step), 0)
        there &= first >= start
        part = Parts(tokens.context.row, start, tf.minimum(tokens.context.size - start, room))
        inputs = join(
            tokenizer,
            tokens.ids,
            tokens.question,
            part,
            tf.fill([rows], True),
            length=length,
            to_longest=self.preprocessor.padding == "longest",
        )
        place = tf.stack([first, last], -1) + (asked + 2 - start)[:, None]
        return inputs, None if y is None else tf.where(there[:, None], place, 0)

    def text(self, **options):
        return SpanQAText(self, self._tokenizer(), **options)
