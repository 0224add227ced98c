"""Skip-gram with negative sampling: each word is to tell its neighbours from other words."""

import functools
import math
from dataclasses import dataclass

import numpy as np
import tensorflow as tf

from tfllm.data.objectives.draws import uniform
from tfllm.errors import UserError
from tfllm.tokenizers import Tokenizer
from tfllm.tokenizers.whole_words import WordTokenizer

BLOCK = 32  # words that share one matrix of scores with the words around them

_KEPT, _REACH, _NEGATIVES = range(3)  # which of a step's draws is for what
_POWER = 0.75


@dataclass(frozen=True)
class SkipGram:
    """What word2vec's skip-gram learns from, in blocks of neighbouring words.

    As in word2vec, frequent words are left out at random *before* the windows are laid, each
    word's window is drawn from 1 to `window` words to either side, and a drawn word that is the
    neighbour itself is no counterexample to it. Otherwise than there, counterexamples are drawn
    once per row and shared by its words: `shared_negatives` of them, which together weigh as much
    as `negatives` per pair. So the scores of a row are two matrix products, and their expectation
    is the same. A window does not reach from one row into another: of rows of 256 words, about 1 %
    of the pairs are lost.

    The words that are kept move together, from row to row, so that a batch has few empty places;
    one that keeps more than 6 standard deviations above what is expected loses its last words.

    Args:
        tokenizer: A `WordTokenizer`, which knows how often each word occurs.
        window: w, the most words to either side.
        negatives: What counterexamples weigh beside one pair.
        shared_negatives: n, the words drawn for each row.
        sample: The frequency from which words are thinned out; 0 = all are kept.

    Call arguments:
        columns: `token_ids` and `segment_ids`, int[b, r], of `layouts.words`.
        seed: int64[2], the run's seed and the step.

    Returns:
        x: `centers` int32[b, k, c]; `contexts` int32[b, k, c + 2w], the words from w before the
            block's first to w behind its last; `negatives` int32[b, n].
        y: `contexts` float32[b, k, c, c + 2w], 1 where the two words are a pair, else 0;
            `negatives` float32[b, k, c, n], what each counterexample weighs.
        weight: float32[b, k, c], pairs of each word; 0 for empty places.

    Raises:
        UserError: at construction, a setting is out of range or the tokenizer is of another kind.

    Source:
        Mikolov et al. 2013, https://arxiv.org/abs/1310.4546, equation 4. Subsampling and windows
        as the code published with it (word2vec.c), whose probability of keeping a word of
        frequency f is sqrt(s/f) + s/f, not the paper's sqrt(s/f) of equation 5. Shared
        counterexamples: Ji et al. 2016, https://arxiv.org/abs/1604.04661
    """

    tokenizer: Tokenizer
    window: int = 5
    negatives: int = 5
    shared_negatives: int = 64
    sample: float = 1e-3

    def __post_init__(self):
        if not isinstance(self.tokenizer, WordTokenizer):
            raise UserError(
                "skip_gram needs data of whole words, prepared with a WordTokenizer; this has a "
                f"{type(self.tokenizer).__name__}."
            )
        for name in ("window", "negatives", "shared_negatives"):
            if getattr(self, name) < 1:
                raise UserError(f"{name} must be at least 1, got {getattr(self, name)}.")
        if not 0 <= self.sample <= 1:
            raise UserError(f"sample must be in [0, 1], got {self.sample}.")

    @functools.cached_property
    def keep_probabilities(self) -> np.ndarray:
        """float32[v], how likely each occurrence of a word is kept."""
        frequency = self.tokenizer.counts / self.tokenizer.counts.sum()
        if not self.sample:
            return np.ones(len(frequency), np.float32)
        ratio = self.sample / frequency
        return np.minimum(np.sqrt(ratio) + ratio, 1).astype(np.float32)

    @functools.cached_property
    def negative_probabilities(self) -> np.ndarray:
        """float64[v], how likely each word is drawn as a counterexample: its count to the 3/4."""
        weights = self.tokenizer.counts.astype(np.float64) ** _POWER
        return weights / weights.sum()

    def num_blocks(self, rows: int, size: int) -> int:
        """k, blocks per row that hold what is kept of rows of `size` words."""
        counts = self.tokenizer.counts
        words = rows * size
        expected = words * float(counts @ self.keep_probabilities) / counts.sum()
        # A sum of independent draws has a standard deviation of at most sqrt(words) / 2.
        most = min(words, expected + 6 * math.sqrt(words) / 2)
        return math.ceil(most / rows / BLOCK)

    def __call__(self, columns, seed):
        ids, segments = (tf.cast(columns[name], tf.int32) for name in ("token_ids", "segment_ids"))
        rows, size = ids.shape
        blocks = self.num_blocks(rows, size)
        ids, documents = self._thinned(ids, segments, rows * blocks * BLOCK, seed)

        contexts, context_documents = (
            self._around(values, rows, blocks) for values in (ids, documents)
        )
        centers, center_documents = (
            tf.reshape(values, [rows, blocks, BLOCK]) for values in (ids, documents)
        )
        reach = 1 + tf.cast(uniform(seed, _REACH, centers.shape) * self.window, tf.int32)
        reach = tf.where(center_documents > 0, reach, 0)[..., None]
        places = np.arange(BLOCK + 2 * self.window) - self.window
        distance = np.abs(places - np.arange(BLOCK)[:, None])
        is_pair = (
            (distance > 0)
            & (distance <= reach)
            & (context_documents[:, :, None, :] == center_documents[..., None])
        )
        pairs = tf.cast(is_pair, tf.float32)
        weight = tf.reduce_sum(pairs, -1)

        negatives = self._drawn([rows, self.shared_negatives], seed)
        same = contexts[..., None] == negatives[:, None, None, :]
        others = weight[..., None] - tf.matmul(pairs, tf.cast(same, tf.float32))
        share = self.negatives / self.shared_negatives
        x = {"centers": centers, "contexts": contexts, "negatives": negatives}
        return x, {"contexts": pairs, "negatives": others * share}, weight

    def _thinned(self, ids, segments, places: int, seed):
        """int32[places] twice: the words that are kept, and their documents, numbered from 1."""
        rows, size = ids.shape
        drawn = uniform(seed, _KEPT, [rows, size])
        keep = (segments > 0) & (drawn < tf.gather(self.keep_probabilities, ids))
        documents = tf.range(rows)[:, None] * size + segments
        kept = (tf.boolean_mask(values, keep)[:places] for values in (ids, documents))
        return tuple(
            tf.ensure_shape(tf.pad(values, [[0, places - tf.size(values)]]), [places])
            for values in kept
        )

    def _around(self, values, rows: int, blocks: int):
        """int32[b, k, c + 2w]: each block of int32[b * k * c] with what stands around it."""
        first = np.arange(rows * blocks).reshape(rows, blocks, 1) * BLOCK
        places = first + np.arange(BLOCK + 2 * self.window)
        return tf.gather(tf.pad(values, [[self.window] * 2]), places)

    def _drawn(self, shape, seed):
        # In float64: float32 has 2**23 numbers in [0, 1), too few for the rare of many words.
        step = tf.random.experimental.stateless_fold_in(seed, tf.constant(_NEGATIVES, tf.int64))
        drawn = tf.random.stateless_uniform(shape, step, dtype=tf.float64)
        below = np.cumsum(self.negative_probabilities)[:-1]
        found = tf.searchsorted(below, tf.reshape(drawn, [-1]), side="right")
        return tf.reshape(found, shape)
