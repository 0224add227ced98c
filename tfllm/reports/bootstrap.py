"""An interval of the mean of a table whose rows and columns are both samples."""

import numpy as np

from tfllm.errors import UserError

_AT_ONCE = 500  # resamples


def crossed_interval(
    values: np.ndarray, *, resamples: int = 10_000, seed: int = 0, confidence: float = 0.95
) -> tuple[float, float] | None:
    """The percentile interval of a mean over sentences and pairs of words.

    A sentence's values share the sentence, a column's the words; resampling single values would
    take them for independent, and the interval would be too narrow. So rows and columns are drawn,
    each with repetition.

    Args:
        values: float[r, c].
        resamples: How many times.
        seed: Of the draws.
        confidence: Of the interval, in (0, 1).

    Returns:
        Its ends; None for a single value, which says nothing of its spread.

    Raises:
        UserError: `resamples` is below 1 or `confidence` not in (0, 1).

    Source:
        Owen 2007, "The pigeonhole bootstrap", https://arxiv.org/abs/0712.1111
    """
    if resamples < 1:
        raise UserError(f"resamples must be at least 1, got {resamples}.")
    if not 0 < confidence < 1:
        raise UserError(f"confidence must be between 0 and 1, got {confidence}.")
    if values.size < 2:
        return None
    numbers = np.random.default_rng(seed)
    means = []
    for begin in range(0, resamples, _AT_ONCE):
        some = min(_AT_ONCE, resamples - begin)
        rows, columns = (
            numbers.multinomial(size, np.full(size, 1 / size), some) / size for size in values.shape
        )
        means.append(np.einsum("br,rc,bc->b", rows, values, columns, optimize=True))
    tail = (1 - confidence) / 2
    low, high = np.quantile(np.concatenate(means), [tail, 1 - tail], method="inverted_cdf")
    return float(low), float(high)
