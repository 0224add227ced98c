"""Where a generator begins to write, and how likely what stands there already is."""

from typing import NamedTuple, Protocol

import tensorflow as tf

from tfllm.decoding import Decodable, Text

# Positions whose logits are held at once.
_SCORED_AT_ONCE = 64


class Scorable(Decodable, Protocol):
    """What scoring asks of a model besides."""

    def hidden_states(self, token_ids) -> tf.Tensor:
        """float[b, t, m], after each of int32[b, t]."""

    def logits(self, hidden) -> tf.Tensor:
        """float32[..., v] of hidden states float[..., m]."""


class Start(NamedTuple):
    """Where writing begins.

    Attributes:
        model: Gives the logits.
        prompt: int32[b, t], what it reads first.
        lengths: int32[b], tokens of each.
        room: int32[b], new tokens that there is room for.
        known: What is read before anything is written: what is written may repeat it.
    """

    model: Scorable
    prompt: tf.Tensor
    lengths: tf.Tensor
    room: tf.Tensor
    known: Text


def scores_of_next(start: Start) -> tuple[tf.Tensor, tf.Tensor]:
    """How likely each token of the prompts is after those before it.

    Args:
        start: With prompts int32[b, t].

    Returns:
        float32[b, t - 1], the log-probability of each next token; bool[b, t - 1], is it the best.
    """
    read, wanted = start.prompt[:, :-1], start.prompt[:, 1:]
    hidden = start.model.hidden_states(read)
    steps = tf.shape(read)[1]

    def some(begin, logprob, best):
        end = tf.minimum(begin + _SCORED_AT_ONCE, steps)
        logits = start.model.logits(hidden[:, begin:end])
        target = wanted[:, begin:end]
        chosen = tf.gather(logits, target, batch_dims=2) - tf.reduce_logsumexp(logits, -1)
        is_best = tf.argmax(logits, -1, output_type=tf.int32) == target
        return end, tf.concat([logprob, chosen], 1), tf.concat([best, is_best], 1)

    none = wanted[:, :0]
    _, logprob, best = tf.while_loop(
        lambda begin, *_: begin < steps,
        some,
        (tf.constant(0), tf.cast(none, tf.float32), tf.cast(none, tf.bool)),
        shape_invariants=(
            tf.TensorShape([]), tf.TensorShape([None, None]), tf.TensorShape([None, None])
        ),
    )  # fmt: skip
    return logprob, best
