"""a is to b as c is to what? By the nearest vector to b − a + c."""

import numpy as np

_ROWS = 256  # questions whose similarities to all words are in memory at once


def nearest_by_sum(vectors: np.ndarray, questions: np.ndarray) -> np.ndarray:
    """What each analogy is completed with.

    Args:
        vectors: float[v, m], one per word; their lengths do not matter.
        questions: int[n, 3], the words a, b and c by their rows.

    Returns:
        int64[n], the word whose cosine with b − a + c is greatest, all of unit length; never a, b
        or c.

    Source:
        Mikolov et al. 2013, "Linguistic regularities in continuous space word representations",
        section 4; called 3CosAdd by Levy and Goldberg 2014.
    """
    vectors = np.asarray(vectors, np.float32)
    lengths = np.linalg.norm(vectors, axis=1, keepdims=True)
    unit = np.divide(vectors, lengths, out=np.zeros_like(vectors), where=lengths > 0)
    questions = np.asarray(questions, np.int64).reshape(-1, 3)
    found = [np.empty(0, np.int64)]
    for begin in range(0, len(questions), _ROWS):
        words = questions[begin : begin + _ROWS]
        a, b, c = (unit[column] for column in words.T)
        cosines = (b - a + c) @ unit.T  # up to a factor per row, which moves no maximum
        np.put_along_axis(cosines, words, -np.inf, axis=1)
        found.append(np.argmax(cosines, axis=1))
    return np.concatenate(found)


def analogy_accuracy(vectors: np.ndarray, questions: np.ndarray) -> float:
    """The fraction of int[n, 4] questions (a, b, c, d) whose nearest word is d; NaN of none."""
    questions = np.asarray(questions, np.int64).reshape(-1, 4)
    if not len(questions):
        return float("nan")
    return float(np.mean(nearest_by_sum(vectors, questions[:, :3]) == questions[:, 3]))
