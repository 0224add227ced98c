"""Exposure of canaries: whether a model knows a random number better than others like it."""

import math
import random
import re
import sys
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from tqdm import tqdm

from tfllm.errors import UserError

_SECRET = re.compile(r"\{([^{}]*)\}")
_DIGIT = re.compile("[0-9]")
_MOST_SKEW = 0.99  # a skew-normal's is below 0.9953
# Where the density of a normal is no longer of any weight, and steps up to there.
_FAR, _STEPS = 12.0, 20_001


class Canary(NamedTuple):
    """A text with a secret that was put among the training texts.

    Attributes:
        text: As it was put there.
        before: What stands before the secret.
        secret: With at least one digit.
        after: What stands behind it.
    """

    text: str
    before: str
    secret: str
    after: str

    @property
    def space(self) -> int:
        """How many secrets of this form there are: 10 to the power of its digits."""
        return 10 ** len(_DIGIT.findall(self.secret))

    def filled(self, value: int) -> str:
        """The text with the digits of a number, from 0 to `space` − 1, in place of the secret's."""
        digits = iter(str(value).zfill(len(_DIGIT.findall(self.secret))))
        return self.before + _DIGIT.sub(lambda _: next(digits), self.secret) + self.after

    @property
    def value(self) -> int:
        """The number that the secret's digits make."""
        return int("".join(_DIGIT.findall(self.secret)))

    @classmethod
    def of(cls, marked: str) -> "Canary":
        """A canary whose secret stands in braces, as in "the code is {281-265}".

        Raises:
            UserError: there is not one pair of braces with a digit in it.
        """
        secrets = list(_SECRET.finditer(marked))
        if len(secrets) != 1 or not _DIGIT.search(secrets[0][1]):
            raise UserError(
                'A canary has its secret in one pair of braces, as "the code is {281-265}", with a '
                f"digit in it; got {marked!r}."
            )
        (found,) = secrets
        before, secret, after = marked[: found.start()], found[1], marked[found.end() :]
        return cls(before + secret + after, before, secret, after)


class Exposure(NamedTuple):
    """How much better a model knows a canary than the same text with other digits.

    Attributes:
        canary: The text.
        logprob: Of all of it, natural logarithm.
        space: How many secrets of its form there are.
        candidates: How many of them were compared, the canary among them.
        rank: Of the canary among these, 1 = the likeliest; what is as likely counts as likelier.
        is_exact: Whether all were compared.
        exposure: log2 of the candidates − log2 of the rank, in bits. Where not all were compared,
            the approximation by sampling: it cannot be above log2 of the candidates.
        extrapolated: The same by a skew-normal distribution fitted to the candidates' log-
            probabilities, at most log2 of the space; None where all were compared.
    """

    canary: str
    logprob: float
    space: int
    candidates: int
    rank: int
    is_exact: bool
    exposure: float
    extrapolated: float | None


def exposure(
    model: Any, canary: Canary | str, *, sample: int = 1000, seed: int = 0, batch_size: int = 16
) -> Exposure:
    """Scores a canary and the same text with other digits.

    Args:
        model: A `CausalLM`, or a client of one.
        canary: A `Canary`, or its text with the secret in braces.
        sample: Other secrets to compare, drawn without repetition; all where there are no more.
        seed: Of that draw.
        batch_size: Texts per call.

    Raises:
        UserError: `canary` is none, a number is below 1, or the model refuses a text.

    Source:
        Carlini et al. 2019, https://arxiv.org/abs/1802.08232, section 4.2 (exposure) and 4.3
        (approximation by sampling, and by a skew-normal distribution; here fitted by moments).
    """
    canary = Canary.of(canary) if isinstance(canary, str) else canary
    for name, value in {"sample": sample, "batch_size": batch_size}.items():
        if value < 1:
            raise UserError(f"{name} must be at least 1, got {value}.")
    others = _others(canary, sample, seed)
    logprobs = _logprobs(model, [canary.text, *map(canary.filled, others)], batch_size)
    logprob, rest = logprobs[0], logprobs[1:]
    # A tie counts against the canary: a model that knows nothing finds all alike.
    rank = 1 + sum(other >= logprob for other in rest)
    is_exact = len(logprobs) == canary.space
    return Exposure(
        canary.text,
        logprob,
        canary.space,
        len(logprobs),
        rank,
        is_exact,
        math.log2(len(logprobs)) - math.log2(rank),
        None if is_exact else _extrapolated(logprob, rest, canary.space),
    )


def _others(canary: Canary, sample: int, seed: int) -> Sequence[int]:
    others = canary.space - 1
    if others <= sample:
        drawn: Sequence[int] = range(others)
    elif others <= sys.maxsize:
        drawn = random.Random(seed).sample(range(others), sample)
    else:  # a longer range has no length in Python; numbers drawn twice are as good as never there
        numbers = random.Random(seed)
        drawn = list(dict.fromkeys(numbers.randrange(others) for _ in range(sample)))
    return [value + (value >= canary.value) for value in drawn]  # the secret itself is left out


def _logprobs(model: Any, texts: list[str], batch_size: int) -> list[float]:
    found = []
    for at in tqdm(range(0, len(texts), batch_size), desc="scoring", disable=None):
        batch = texts[at : at + batch_size]
        for text, score in zip(batch, model.score([""] * len(batch), batch), strict=True):
            if score.error:
                raise UserError(f"The model refused {text!r}: {score.error}.")
            found.append(score.logprob)
    return found


def _extrapolated(logprob: float, others: Sequence[float], space: int) -> float:
    tail = skew_normal_tail(logprob, others)
    most = math.log2(space)
    return most if tail <= 0 else min(most, -math.log2(min(tail, 1.0)))


def skew_normal_tail(x: float, values: Sequence[float]) -> float:
    """How probable a number above `x` is under the skew-normal fitted to `values`, by moments.

    Where the values are all the same, 0 above them and 1 elsewhere.

    Source:
        Azzalini 1985, "A class of distributions which includes the normal ones".
    """
    array = np.asarray(values, np.float64)
    mean, deviation = array.mean(), array.std()
    # Below this the values differ by the rounding of float32 alone.
    if deviation <= 1e-6 * max(1.0, abs(mean)):
        return 0.0 if x > array.max() else 1.0
    skew = float(np.clip(np.mean(((array - mean) / deviation) ** 3), -_MOST_SKEW, _MOST_SKEW))
    ratio = abs(skew) ** (2 / 3)
    delta = math.copysign(
        math.sqrt(math.pi / 2 * ratio / (ratio + ((4 - math.pi) / 2) ** (2 / 3))), skew
    )
    scale = deviation / math.sqrt(1 - 2 * delta**2 / math.pi)
    place = mean - scale * delta * math.sqrt(2 / math.pi)
    shape = delta / math.sqrt(1 - delta**2)
    begin = max((x - place) / scale, -_FAR)
    z = np.linspace(begin, max(begin, 0.0) + _FAR, _STEPS)
    normal = np.exp(-(z**2) / 2) / math.sqrt(2 * math.pi)
    below = np.array([math.erfc(-shape * each / math.sqrt(2)) / 2 for each in z])
    density = 2 * normal * below
    return float((density.sum() - (density[0] + density[-1]) / 2) * (z[1] - z[0]))
