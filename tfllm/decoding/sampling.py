"""How the next token is chosen: greedy or sampled, per row."""

from collections.abc import Callable
from typing import NamedTuple

import tensorflow as tf

from tfllm.decoding.uniform import uniform

_LEAST_TEMPERATURE = 1e-6  # below it float32 cannot divide by it; the sample is the best token


class Sampling(NamedTuple):
    """Per-row settings; the defaults of the contract choose the best token.

    Attributes:
        temperature: float32[b], at least 0; 0 = greedy.
        top_k: int32[b], keep the k best tokens; 0 = off.
        top_p: float32[b] in [0, 1], keep the fewest best tokens whose probability reaches p (at
            least one); 1 = off. Holtzman et al. 2020, https://arxiv.org/abs/1904.09751
        min_p: float32[b] in [0, 1], keep tokens at least p times as probable as the best; 0 = off.
            Nguyen et al. 2024, https://arxiv.org/abs/2407.01082
        repetition_penalty: float32[b], above 0; 1 = off.
            Keskar et al. 2019, section 4.1, https://arxiv.org/abs/1909.05858
        seed: int64[b].
    """

    temperature: tf.Tensor
    top_k: tf.Tensor
    top_p: tf.Tensor
    min_p: tf.Tensor
    repetition_penalty: tf.Tensor
    seed: tf.Tensor


def choose(
    logits, sampling: Sampling, *, history, step, restrict: Callable[[tf.Tensor], tf.Tensor]
) -> tf.Tensor:
    """The next token of each row.

    Settings apply in the order of `transformers`: penalty, rules, temperature, top-k, top-p, min-p.

    Args:
        logits: float32[b, v].
        sampling: Settings per row.
        history: int32[b, n], the row's tokens so far, for the repetition penalty; repeats are fine.
        step: int32 scalar, the index of the new token.
        restrict: Scores float32[b, v] to scores, minus infinity for what may not be said.

    Returns:
        int32[b].
    """
    logits = tf.cond(
        tf.reduce_any(sampling.repetition_penalty != 1.0),
        lambda: penalized(logits, sampling.repetition_penalty, history),
        lambda: logits,
    )
    logits = restrict(logits)
    best = tf.argmax(logits, -1, output_type=tf.int32)
    sampled = sampling.temperature > 0
    return tf.cond(
        tf.reduce_any(sampled),
        lambda: tf.where(sampled, _sample(logits, sampling, step), best),
        lambda: best,
    )


def penalized(logits, penalty, history):
    seen = tf.gather(logits, history, batch_dims=1)  # [b, n]
    penalty = penalty[:, None]
    seen = tf.where(seen < 0, seen * penalty, seen / penalty)
    rows = tf.broadcast_to(tf.range(tf.shape(history)[0])[:, None], tf.shape(history))
    return tf.tensor_scatter_nd_update(logits, tf.stack([rows, history], -1), seen)


def _sample(logits, sampling: Sampling, step):
    temperature = tf.maximum(sampling.temperature, _LEAST_TEMPERATURE)[:, None]
    logits = (logits - tf.reduce_max(logits, -1, keepdims=True)) / temperature
    logits, tokens = tf.math.top_k(logits, k=logits.shape[-1])  # best first
    rank = tf.range(logits.shape[-1])[None]
    top_k = sampling.top_k[:, None]
    kept = (top_k == 0) | (rank < top_k)
    probability = tf.nn.softmax(tf.where(kept, logits, logits.dtype.min))
    before = tf.cumsum(probability, axis=-1, exclusive=True)
    top_p = sampling.top_p[:, None]
    kept &= (top_p == 1.0) | (before < top_p)
    kept &= probability >= sampling.min_p[:, None] * probability[:, :1]
    mass = tf.cumsum(tf.where(kept, probability, 0.0), axis=-1)  # [b, v]
    drawn = uniform(sampling.seed, step)[:, None] * mass[:, -1:]
    place = tf.reduce_sum(tf.cast(mass <= drawn, tf.int32), -1)
    # Where nothing is kept it is the best; rounding must not pass the last that is.
    last = tf.reduce_max(tf.where(kept, rank, 0), -1)
    return tf.gather(tokens, tf.minimum(place, last), batch_dims=1)
