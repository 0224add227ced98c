"""A question with a long context: overlapping windows, and the best span over all of them."""

from typing import NamedTuple

import tensorflow as tf

from tfllm.models.encoder_inputs import Parts

_NEVER = -1e30  # a log-probability below all others, of which two can be added


class Plan(NamedTuple):
    """How a context is parted.

    Attributes:
        length: Tokens of a window at most, with the question and three special tokens.
        stride: Tokens of the context that a window shares with the next one.
    """

    length: int
    stride: int

    @property
    def most_question(self) -> int:
        """Tokens of a question that leave room for a new token of the context in each window."""
        return self.length - 3 - self.stride - 1

    def room(self, question):
        """Tokens of the context in a window beside int32[b] of the question."""
        return self.length - 3 - question

    def step(self, question):
        """Tokens of the context from one window to the next."""
        return self.room(question) - self.stride


def count_windows(plan: Plan, question, context):
    """int32[b], windows of contexts of int32[b] tokens; one for an empty context."""
    beyond = tf.maximum(context - plan.room(question), 0)
    return 1 + -(-beyond // plan.step(question))


def windows(plan: Plan, question, context, counts) -> Parts:
    """The parts of the contexts of all rows, in order.

    Args:
        plan: How to part.
        question: int32[b], tokens of each.
        context: int32[b], tokens of each.
        counts: int32[b], windows of each.
    """
    row = tf.repeat(tf.range(tf.shape(counts)[0]), counts)
    number = tf.range(tf.size(row)) - tf.gather(tf.cumsum(counts, exclusive=True), row)
    start = number * tf.gather(plan.step(question), row)
    size = tf.minimum(tf.gather(context, row) - start, tf.gather(plan.room(question), row))
    return Parts(row, start, size)


class Spans(NamedTuple):
    """The best span of each window.

    Attributes:
        score: float32[n], its probability.
        first: int32[n], its first token in the context.
        last: int32[n], its last one.
        nothing: float32[n], the probability that the window has no answer.
    """

    score: tf.Tensor
    first: tf.Tensor
    last: tf.Tensor
    nothing: tf.Tensor


def best_spans(logits, asked, some: Parts, most: int) -> Spans:
    """The most probable span of each window; a start and an end are chosen independently.

    Args:
        logits: float32[n, t, 2], of starts and ends.
        asked: int32[n], tokens of the question.
        some: The contexts' parts, each with a token.
        most: Tokens of a span at most.

    Source:
        Devlin et al. 2019, section 4.2, https://arxiv.org/abs/1810.04805; the probabilities are
        those of `QuestionAnsweringPipeline` of `transformers` 4: over the tokens of the context
        and the first token, which stands for no answer.
    """
    steps = tf.shape(logits)[1]
    of_context = tf.range(steps)[None] - asked[:, None] - 2
    in_context = (of_context >= 0) & (of_context < some.size[:, None])
    may_be = in_context | (tf.range(steps) == 0)
    logprob = tf.nn.log_softmax(tf.where(may_be[..., None], logits, _NEVER), 1)
    nothing = tf.exp(logprob[:, 0, 0] + logprob[:, 0, 1])
    logprob = tf.where(in_context[..., None], logprob, _NEVER)
    ends = tf.pad(logprob[..., 1], [[0, 0], [0, most - 1]], constant_values=_NEVER)
    reach = tf.range(steps)[:, None] + tf.range(most)[None]  # [t, most], the ends of each start
    together = logprob[..., 0][..., None] + tf.gather(ends, reach, axis=1)
    flat = tf.reshape(together, tf.stack([tf.shape(logits)[0], steps * most]))
    best = tf.argmax(flat, -1, output_type=tf.int32)
    first = best // most + some.start - asked - 2
    return Spans(tf.exp(tf.gather(flat, best, batch_dims=1)), first, first + best % most, nothing)


def whole_words(is_continued) -> tuple[tf.Tensor, tf.Tensor]:
    """The first and the last token of the word that each token is of.

    Args:
        is_continued: bool[n], whether a token continues the word of the one before it.

    Returns:
        int32[n] for both, places of tokens.
    """
    place = tf.range(tf.size(is_continued))
    word = tf.cumsum(tf.cast(~is_continued, tf.int32)) - 1
    return (
        tf.gather(tf.boolean_mask(place, ~is_continued), word),
        tf.gather(tf.math.segment_max(place, word), word),
    )
