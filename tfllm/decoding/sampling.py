"""How the next token is chosen: greedy or sampled, per row."""

from collections.abc import Callable
from typing import NamedTuple

import tensorflow as tf

from tfllm.decoding.ngrams import Text
from tfllm.decoding.penalties import Penalties
from tfllm.decoding.uniform import uniform
from tfllm.decoding.vocabulary import best

_LEAST_TEMPERATURE = 1e-6  # below it float32 cannot divide by it; the sample is the best token
_FEW = 128  # tokens that are looked at first
_PART = 128  # tokens whose weights are summed up together


class Sampling(NamedTuple):
    """Per-row settings; the defaults of the contract choose the best token.

    Attributes:
        temperature: float32[b], at least 0; 0 = greedy.
        top_k: int32[b], keep the k best tokens; 0 = off.
        top_p: float32[b] in [0, 1], keep the fewest best tokens whose probability reaches p (at
            least one); 1 = off. Holtzman et al. 2020, https://arxiv.org/abs/1904.09751
        min_p: float32[b] in [0, 1], keep tokens at least p times as probable as the best; 0 = off.
            Nguyen et al. 2024, https://arxiv.org/abs/2407.01082
        repetition_penalty, presence_penalty, frequency_penalty: As of `Penalties`.
        seed: int64[b].
    """

    temperature: tf.Tensor
    top_k: tf.Tensor
    top_p: tf.Tensor
    min_p: tf.Tensor
    repetition_penalty: tf.Tensor
    presence_penalty: tf.Tensor
    frequency_penalty: tf.Tensor
    seed: tf.Tensor

    @property
    def penalties(self) -> Penalties:
        return Penalties(self.repetition_penalty, self.presence_penalty, self.frequency_penalty)


def choose(
    logits,
    sampling: Sampling,
    *,
    history: Callable[[], tf.Tensor],
    written: Text,
    step,
    restrict: Callable[[tf.Tensor], tf.Tensor],
) -> tf.Tensor:
    """The next token of each row.

    Settings apply in the order of `transformers`: penalties, rules, temperature, top-k, top-p and
    min-p.

    Args:
        logits: float32[b, v].
        sampling: Settings per row.
        history: Makes int32[b, n], the row's tokens so far, for the repetition penalty; repeats are
            fine.
        written: Of these, what the row itself wrote, for the other penalties.
        step: int32 scalar or int32[b], the index of the new token.
        restrict: Scores float32[b, v] to scores, minus infinity for what may not be said.

    Returns:
        int32[b].
    """
    logits = restrict(sampling.penalties.taken_from(logits, history, written))
    greedy = tf.argmax(logits, -1, output_type=tf.int32)
    sampled = sampling.temperature > 0

    def sample(rows):
        settings = Sampling(*(tf.gather(each, rows) for each in sampling))
        drawn = uniform(settings.seed, tf.gather(tf.broadcast_to(step, tf.shape(greedy)), rows))
        return _sample(tf.gather(logits, rows), settings, drawn)

    return tf.cond(
        tf.reduce_any(sampled), lambda: _replaced(greedy, sampled, sample), lambda: greedy
    )


def _sample(logits, sampling: Sampling, drawn):
    """int32[b], by the numbers `drawn` float32[b] in [0, 1)."""
    logits /= tf.maximum(sampling.temperature, _LEAST_TEMPERATURE)[:, None]
    logits -= tf.reduce_max(logits, -1, keepdims=True)
    # In whole parts: of what fills no vector, the last of the last row, exponents round otherwise.
    filling = [[0, 0], [0, -logits.shape[-1] % _PART]]
    logits = tf.pad(logits, filling, constant_values=float("-inf"))
    weight = tf.exp(logits)
    among_all = _among_all(weight, drawn)
    limited = (sampling.top_k > 0) | (sampling.top_p < 1.0) | (sampling.min_p > 0.0)
    return tf.cond(
        tf.reduce_any(limited),
        lambda: _replaced(
            among_all,
            limited,
            lambda each: _among_best(logits, tf.reduce_sum(weight, -1), sampling, drawn, each),
        ),
        lambda: among_all,
    )


def _replaced(tokens, where, by):
    """int32[b], those of `by(int64[r])` in the r rows where bool[b] says so."""
    rows = tf.where(where)
    return tf.tensor_scatter_nd_update(tokens, rows, by(tf.squeeze(rows, 1)))


def _among_all(weight, drawn):
    """int32[b], of tokens with weights float32[b, v], v whole parts: sums stay exact by these."""
    parts = tf.reshape(weight, [-1, weight.shape[-1] // _PART, _PART])
    sums = tf.reduce_sum(parts, -1)
    part, before = _first_beyond(sums, drawn * tf.reduce_sum(sums, -1))
    place, _ = _first_beyond(tf.gather(parts, part, batch_dims=1), before)
    return part * _PART + place


def _first_beyond(weight, target):
    """The first of float32[b, n] up to which they sum up to more than float32[b].

    Returns:
        int32[b], which is none without weight; float32[b], what the target exceeds those before by.
    """
    sums = tf.cumsum(weight, axis=-1)
    place = tf.reduce_sum(tf.cast(sums <= target[:, None], tf.int32), -1)
    # Rounding must not pass the last that is possible.
    some = tf.where(weight > 0, tf.range(tf.shape(weight)[-1])[None], 0)
    place = tf.minimum(place, tf.reduce_max(some, -1))
    here = tf.gather(sums - weight, place, batch_dims=1)
    return place, target - here


def _among_best(logits, total, sampling: Sampling, drawn, rows):
    """int32[r], of the tokens that the settings of rows int64[r] leave, best first.

    Sorting a vocabulary takes longer than the model's own step, so it is looked at only as far as
    the limits go; a row for which that is not far enough is sorted whole. Both give the same.

    Args:
        logits: float32[b, v], of which the best is 0.
        total: float32[b], the sum of their exponents.
        sampling: Settings per row.
        drawn: float32[b] in [0, 1).
        rows: int64[r].
    """
    logits, total, drawn = (tf.gather(x, rows) for x in (logits, total, drawn))
    sampling = Sampling(*(tf.gather(x, rows) for x in sampling))
    size = logits.shape[-1]
    few = _draw(*best(logits, min(_FEW, size)), total, drawn, sampling)
    if size <= _FEW:
        return few.token

    def look_further(rows):
        everything, tokens = tf.math.top_k(tf.gather(logits, rows), size)
        settings = Sampling(*(tf.gather(x, rows) for x in sampling))
        return _draw(
            everything, tokens, tf.gather(total, rows), tf.gather(drawn, rows), settings
        ).token

    return tf.cond(
        tf.reduce_all(few.far_enough),
        lambda: few.token,
        lambda: _replaced(few.token, ~few.far_enough, look_further),
    )


class _Drawn(NamedTuple):
    token: tf.Tensor  # int32[b]
    far_enough: tf.Tensor  # bool[b], more candidates would not change it


def _draw(logits, tokens, total, drawn, sampling: Sampling) -> _Drawn:
    """A token of each row, among those that are kept.

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
    kept |= rank == 0
    probability = tf.where(kept, probability, 0.0)
    place, _ = _first_beyond(probability, drawn * tf.reduce_sum(probability, -1))
    # Of more than the k best the total is not known here.
    far_enough = limited | ((sampling.top_k == 0) & ~kept[:, -1])
    return _Drawn(tf.gather(tokens, place, batch_dims=1), far_enough)
