"""How the next token is chosen: greedy or sampled, per row."""

from collections.abc import Callable
from typing import NamedTuple

import tensorflow as tf

from tfllm.decoding.uniform import uniform
from tfllm.decoding.vocabulary import best

_LEAST_TEMPERATURE = 1e-6  # below it float32 cannot divide by it; the sample is the best token
_FEW = 128  # tokens that are looked at first


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
    logits,
    sampling: Sampling,
    *,
    history: Callable[[], tf.Tensor],
    step,
    restrict: Callable[[tf.Tensor], tf.Tensor],
) -> tf.Tensor:
    """The next token of each row.

    Settings apply in the order of `transformers`: penalty, rules, temperature, top-k, top-p, min-p.

    Args:
        logits: float32[b, v].
        sampling: Settings per row.
        history: Makes int32[b, n], the row's tokens so far, for the repetition penalty; repeats are
            fine.
        step: int32 scalar, the index of the new token.
        restrict: Scores float32[b, v] to scores, minus infinity for what may not be said.

    Returns:
        int32[b].
    """
    logits = tf.cond(
        tf.reduce_any(sampling.repetition_penalty != 1.0),
        lambda: penalized(logits, sampling.repetition_penalty, history()),
        lambda: logits,
    )
    logits = restrict(logits)
    greedy = tf.argmax(logits, -1, output_type=tf.int32)
    sampled = sampling.temperature > 0
    return tf.cond(
        tf.reduce_any(sampled),
        lambda: tf.where(sampled, _sample(logits, sampling, step), greedy),
        lambda: greedy,
    )


def penalized(logits, penalty, history):
    seen = tf.gather(logits, history, batch_dims=1)  # [b, n]
    penalty = penalty[:, None]
    seen = tf.where(seen < 0, seen * penalty, seen / penalty)
    rows = tf.broadcast_to(tf.range(tf.shape(history)[0])[:, None], tf.shape(history))
    return tf.tensor_scatter_nd_update(logits, tf.stack([rows, history], -1), seen)


def _sample(logits, sampling: Sampling, step):
    """int32[b], drawn from the tokens that are kept, best first.

    Sorting a vocabulary takes longer than the model's own step, so it is looked at only as far as
    the draw goes; where that is not far enough for every row, all of it is. Both give the same.
    """
    logits /= tf.maximum(sampling.temperature, _LEAST_TEMPERATURE)[:, None]
    logits -= tf.reduce_max(logits, -1, keepdims=True)
    drawn = uniform(sampling.seed, step)
    total = tf.reduce_sum(tf.exp(logits), -1)
    size = logits.shape[-1]
    first, tokens = best(logits, min(_FEW, size))
    few = _draw(first, tokens, total, drawn, sampling)
    if size <= _FEW:
        return few.token

    def among_all():
        everything, tokens = tf.math.top_k(logits, size)
        return _draw(everything, tokens, total, drawn, sampling).token

    enough = tf.reduce_all(few.far_enough | (sampling.temperature == 0))
    return tf.cond(enough, lambda: few.token, among_all)


class _Drawn(NamedTuple):
    token: tf.Tensor  # int32[b]
    far_enough: tf.Tensor  # bool[b], more candidates would not change it


def _draw(logits, tokens, total, drawn, sampling: Sampling) -> _Drawn:
    """A token of each row.

    Args:
        logits: float32[b, k], the k best, best first; the best is 0.
        tokens: int32[b, k].
        total: float32[b], the sum of the exponents of all logits of the vocabulary.
        drawn: float32[b] in [0, 1).
        sampling: Settings per row.
    """
    rank = tf.range(tf.shape(logits)[-1])[None]
    top_k = sampling.top_k[:, None]
    kept = (top_k == 0) | (rank < top_k)
    weight = tf.exp(logits)
    limited = (sampling.top_k > 0) & (sampling.top_k <= tf.shape(logits)[-1])
    total = tf.where(limited, tf.reduce_sum(tf.where(kept, weight, 0.0), -1), total)
    probability = weight / total[:, None]
    before = tf.cumsum(probability, axis=-1, exclusive=True)
    top_p, min_p = sampling.top_p[:, None], sampling.min_p[:, None]
    kept &= (top_p == 1.0) | (before < top_p)
    kept &= probability >= min_p * probability[:, :1]
    mass = tf.cumsum(tf.where(kept, probability, 0.0), axis=-1)  # [b, k]
    # Where nothing limits the tokens that are kept, they are all, and what is not seen counts.
    all_seen = limited | ~kept[:, -1]
    free = (sampling.top_k == 0) & (sampling.top_p == 1.0) & (sampling.min_p == 0.0)
    drawn *= tf.where(free, 1.0, mass[:, -1])
    place = tf.reduce_sum(tf.cast(mass <= drawn[:, None], tf.int32), -1)
    # Where nothing is kept it is the best; rounding must not pass the last that is.
    last = tf.reduce_max(tf.where(kept, rank, 0), -1)
    token = tf.gather(tokens, tf.minimum(place, last), batch_dims=1)
    return _Drawn(token, all_seen | (free & (drawn < mass[:, -1])))
