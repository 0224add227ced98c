"""The signatures of a model that finds answers."""

from typing import NamedTuple

import tensorflow as tf

from tfllm import contract
from tfllm.errors import UserError
from tfllm.models.encoder_inputs import Parts, are_lost, beginnings, join
from tfllm.models.encoder_task import EncoderText, too_long
from tfllm.models.length_groups import in_length_groups
from tfllm.models.span_windows import (
    Plan,
    Spans,
    best_spans,
    count_windows,
    whole_words,
    windows,
)
from tfllm.models.text_functions import first_error
from tfllm.tokenizers.utf8 import valid_utf8_in_graph

_STRIDE = 128
_LENGTH = 384
_MOST_WINDOWS = 128
_BYTES_PER_TOKEN = 8


def span_plan(sequence_length: int, max_seq_len: int = _LENGTH, doc_stride: int = _STRIDE) -> Plan:
    """How contexts are parted for a model of that length.

    Raises:
        UserError: no question fits in.
    """
    length = min(sequence_length, max_seq_len)
    plan = Plan(length, min(doc_stride, length // 2))
    if plan.stride < 0 or plan.most_question < 1:
        raise UserError(
            f"Windows of {length} tokens that share {plan.stride} have no room for a question: "
            "give more tokens or a smaller doc_stride."
        )
    return plan


class Read(NamedTuple):
    """Questions and contexts as tokens.

    Attributes:
        ids: Ragged int32[2 b, None], of the questions and then of the contexts.
        starts: Ragged int32[2 b, None], where each token begins, in code points of its text.
        ends: Ragged int32[2 b, None], where it ends.
        question: Of the questions, as much as there is room for.
        context: Of the contexts.
        is_lost: bool[b], where a question could not be read to its cut.
    """

    ids: tf.RaggedTensor
    starts: tf.RaggedTensor
    ends: tf.RaggedTensor
    question: Parts
    context: Parts
    is_lost: tf.Tensor


def read(tokenizer, plan: Plan, question, context) -> Read:
    """Tokenizes string[b] questions and contexts, in one go."""
    rows = tf.size(question)
    texts = tf.concat([beginnings(question, plan.most_question), context], 0)
    ids, starts, ends = tokenizer.tokenize_with_offsets(texts)
    sizes = tf.cast(ids.row_lengths(), tf.int32)
    row, zero = tf.range(rows), tf.zeros([rows], tf.int32)
    return Read(
        ids,
        starts,
        ends,
        Parts(row, zero, tf.minimum(sizes[:rows], plan.most_question)),
        Parts(rows + row, zero, sizes[rows:]),
        are_lost(question, sizes[:rows], plan.most_question),
    )


class SpanQAText(EncoderText):
    """The signatures of `contract.SPAN_QA_SIGNATURES`.

    Args:
        model: A `SpanQA`.
        tokenizer: A `WordPieceTokenizer`.
        max_seq_len: Tokens of a window at most, if the model takes so many.
        doc_stride: Tokens that two windows share, at most half of them.
        max_answer_len: Tokens of an answer at most.
        handle_impossible_answer: Whether there may be no answer, as in SQuAD 2.
        align_to_words: Whether an answer is made of whole words.

    Raises:
        UserError: a number is too small.

    Source:
        `QuestionAnsweringPipeline` of `transformers` 4, whose options these are. It adds up the
        scores of equal answers, which here stay apart. It fails for a question that leaves no
        room; here it is cut.
    """

    task = "span_qa"
    signatures = contract.SPAN_QA_SIGNATURES

    def __init__(
        self,
        model,
        tokenizer,
        max_seq_len: int = _LENGTH,
        doc_stride: int = _STRIDE,
        max_answer_len: int = 15,
        handle_impossible_answer: bool = False,
        align_to_words: bool = True,
    ):
        super().__init__(model, tokenizer)
        self.plan = span_plan(self.sequence_length, max_seq_len, doc_stride)
        if max_answer_len < 1:
            raise UserError(f"max_answer_len must be at least 1, got {max_answer_len}.")
        self.max_answer_len = max_answer_len
        self.handle_impossible_answer = handle_impossible_answer
        self.align_to_words = align_to_words
        self._most_bytes = _BYTES_PER_TOKEN * _MOST_WINDOWS * self.plan.length

    def answer(self, question, context):
        """See `contract.SIGNATURES`."""
        context = valid_utf8_in_graph(context)
        rows = tf.size(question)
        huge = tf.strings.length(context) > self._most_bytes
        tokens = read(self.tokenizer, self.plan, question, tf.where(huge, "", context))
        sizes = tokens.question.size, tokens.context.size
        counts = count_windows(self.plan, *sizes)
        error = first_error(
            [
                (tokens.is_lost, too_long("the question", self.plan.most_question)),
                (question == "", "the question is empty"),
                (huge, f"the context is too long: above {self._most_bytes} bytes"),
                (sizes[1] == 0, "the context is empty"),
                (counts > _MOST_WINDOWS, _too_many(counts)),
            ]
        )
        found = windows(self.plan, *sizes, tf.where(error == "", counts, 0))
        spans = self._spans(tokens, found)
        place = self._characters(tokens, found, spans)
        best, there = _best_of_rows(spans.score, found.row, rows)
        score, start, end = (
            tf.where(there, tf.gather(tf.concat([column, [0]], 0), best), 0)
            for column in (spans.score, *place)
        )
        if self.handle_impossible_answer:
            nothing = tf.math.unsorted_segment_min(spans.nothing, found.row, rows)
            none = there & (nothing > score)
            score = tf.where(none, nothing, score)
            start, end = tf.where(none, 0, start), tf.where(none, 0, end)
        return {
            "answer": tf.strings.substr(context, start, end - start, unit="UTF8_CHAR"),
            "score": score,
            "start": start,
            "end": end,
            "error": error,
        }

    def _spans(self, tokens: Read, found: Parts) -> Spans:
        """The best span of every window."""
        asked = Parts(*(tf.gather(column, found.row) for column in tokens.question))
        part = found._replace(row=tf.gather(tokens.context.row, found.row))

        def some(rows, _):
            question, context = (
                Parts(*(tf.gather(column, rows) for column in parts)) for parts in (asked, part)
            )
            inputs = join(
                self.tokenizer, tokens.ids, question, context, tf.fill(tf.shape(rows), True),
                length=self.plan.length,
            )  # fmt: skip
            logits = self.model(inputs, training=False)
            return best_spans(logits, question.size, context, self.max_answer_len)

        dtypes = Spans(tf.float32, tf.int32, tf.int32, tf.float32)
        return Spans(
            *in_length_groups(
                asked.size + part.size + 3,
                self.plan.length,
                some,
                [tf.TensorSpec([], dtype) for dtype in dtypes],
            )
        )

    def _characters(self, tokens: Read, found: Parts, spans: Spans):
        """int32[n] twice: where the best span of each window begins and ends in its context."""
        row = tf.gather(tokens.context.row, found.row)
        before = tf.cast(tf.gather(tokens.ids.row_splits, row), tf.int32)
        first, last = before + spans.first, before + spans.last
        if self.align_to_words:
            pieces = self.tokenizer.get_vocabulary()
            continues = tf.constant([piece.startswith("##") for piece in pieces])
            is_first = tf.ragged.range(tokens.ids.row_lengths()).values == 0
            begin, end = whole_words(tf.gather(continues, tokens.ids.values) & ~is_first)
            # As much of a word as its window has.
            start = before + found.start
            first = tf.maximum(tf.gather(begin, first), start)
            last = tf.minimum(tf.gather(end, last), start + found.size - 1)
        return tf.gather(tokens.starts.values, first), tf.gather(tokens.ends.values, last)

    def some_texts(self):
        some = self.some_text()
        return [some, "", some, f"{some} " * self.plan.length]


def _too_many(counts):
    return tf.strings.join(
        [
            "the context is too long: it has ",
            tf.strings.as_string(counts),
            f" windows, the model reads {_MOST_WINDOWS}",
        ]
    )


def _best_of_rows(score, row, num_rows):
    """int32[b], the first window with the best score of each row; bool[b], whether there is one."""
    best = tf.math.unsorted_segment_max(score, row, num_rows)
    total = tf.size(score)
    number = tf.where(score == tf.gather(best, row), tf.range(total), total)
    first = tf.minimum(tf.math.unsorted_segment_min(number, row, num_rows), total)
    return first, first < total
