"""How two columns of numbers go together."""

import numpy as np

from tfllm.metrics.classification import ranks


def pearson(x, y) -> float:
    """Pearson's correlation of two float[n], in [−1, 1]; NaN if one of them is constant."""
    x, y = _centred(x), _centred(y)
    spread = np.sqrt((x @ x) * (y @ y))
    return float(np.clip(x @ y / spread, -1.0, 1.0)) if spread else float("nan")


def spearman(x, y) -> float:
    """Spearman's rank correlation of two float[n]: Pearson's of their ranks, ties sharing one.

    Returns:
        In [−1, 1]; NaN if one of them is constant or has a NaN.

    Source:
        Spearman 1904; with ties as `scipy.stats.spearmanr`.
    """
    return pearson(ranks(x), ranks(y))


def _centred(values) -> np.ndarray:
    values = np.asarray(values, float)
    if values.size and (values == values[0]).all():  # the mean of equal numbers may round
        return np.zeros_like(values)
    return values - values.mean() if values.size else values
