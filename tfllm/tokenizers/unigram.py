"""SentencePiece's unigram segmentation in the graph, equal to the last bit of its scores.

TF-Text's operation carries an older SentencePiece, which compares the score of a path in double
precision with one that it stored in single precision. Since 0.2.2 SentencePiece compares both in
single precision, so where segmentations are equally likely ("..." "." and "." "...") the two
choose differently. Here are the sums of SentencePiece, in its order and its precision, for all
texts of a batch at once.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import tensorflow as tf

from tfllm.tokenizers.best_path import best_path, scores_before, segments_of
from tfllm.tokenizers.trie import Trie


class Tokens(NamedTuple):
    """What texts were cut into, in order.

    Attributes:
        ids: Ragged int32[b, None].
        surfaces: Ragged string[b, None], the part of the normalized text that each token is.
    """

    ids: tf.RaggedTensor
    surfaces: tf.RaggedTensor


class Unigram:
    """The best segmentation of normalized texts under a unigram model.

    Between two characters where no piece of the vocabulary that occurs in the text lies across,
    every path has a boundary. So a text is cut there into segments, mostly of a few characters,
    which are solved side by side. One thing connects them: a sum in single precision depends, by
    its rounding, on the score of the whole path before. That score is taken from a path that is
    guessed, then from the one that was found, until it does not change any more: every turn
    settles one segment more at least, and one or two turns are the rule.

    Args:
        pieces: Texts of the pieces that may be used, not empty, all different.
        ids: Of each.
        scores: Of each, the logarithm of its probability.
        unk_id: Of characters that no piece spells; several in a row are one token.
        unk_score: Of one such character.
        byte_ids: Ids of the 256 bytes that spell such characters instead, if any do.

    Source:
        Kudo 2018, https://arxiv.org/abs/1804.10959; the order of the comparisons is that of
        `Model::EncodeOptimized` in SentencePiece's src/unigram_model.cc: of equally likely paths
        to the same place the one with the longest last piece wins.
    """

    def __init__(
        self,
        pieces: Sequence[str],
        ids: Sequence[int],
        scores: Sequence[float] | np.ndarray,
        *,
        unk_id: int,
        unk_score: float,
        byte_ids: Sequence[int] | None = None,
    ):
        self._trie = Trie(pieces)
        # A candidate is the number of a piece; the last two: an unknown character, and none.
        self._unknown, self._none = len(pieces), len(pieces) + 1
        self._ids = np.array([*ids, unk_id, -1], np.int32)
        self._scores = np.array([*scores, unk_score, -np.inf], np.float32)
        self._byte_ids = None if byte_ids is None else np.array(byte_ids, np.int32)

    def tokenize(self, pieces: tf.RaggedTensor) -> Tokens:
        """Tokens of texts, normalized and valid UTF-8. Call it inside a tf.function.

        Args:
            pieces: Ragged string[b, None], texts cut in any way; a good cut saves a turn.
        """
        texts = tf.strings.reduce_join(pieces, -1)
        characters = tf.strings.unicode_decode(texts, "UTF-8")
        candidates = self._candidates(characters)
        scores = tf.gather(self._scores, candidates)
        segments = segments_of(candidates != self._none)

        def turn(_, starting, *__):
            ends, lengths = best_path(scores, segments, starting)
            chosen = tf.gather_nd(candidates, tf.stack([ends, lengths - 1], 1))
            along = tf.gather(self._scores, chosen)
            corrected = scores_before(along, ends, segments, characters)
            return tf.reduce_any(corrected != starting), corrected, ends, lengths, chosen

        guess = self._guess(pieces.values, candidates, segments, characters)
        none = tf.zeros([0], tf.int32)
        *_, ends, lengths, chosen = tf.while_loop(
            lambda changed, *_: changed,
            turn,
            [True, guess, none, none, none],
            shape_invariants=[tf.TensorShape([])] + [tf.TensorShape([None])] * 4,
        )
        return self._tokens(characters, ends, lengths, chosen)

    def _guess(self, pieces, candidates, segments, characters):
        """float32[s], the score before each segment if the pieces are right."""
        lengths = tf.strings.length(pieces, "UTF8_CHAR")
        ends = tf.cumsum(lengths) - 1
        column = tf.minimum(lengths, self._trie.longest) - 1
        chosen = tf.gather_nd(candidates, tf.stack([ends, column], 1))
        unknown = self._scores[self._unknown] * tf.cast(lengths, tf.float32)  # there may be many
        along = tf.where(chosen == self._none, unknown, tf.gather(self._scores, chosen))
        return scores_before(along, ends, segments, characters)

    def _candidates(self, characters):
        """int32[n, longest]: at the end of each character, the piece of each length."""
        candidates = self._trie.find(characters, self._none)
        one = candidates[:, :1]
        one = tf.where(one == self._none, self._unknown, one)
        return tf.concat([one, candidates[:, 1:]], 1)

    def _tokens(self, characters, ends, lengths, chosen):
        rows = tf.gather(characters.value_rowids(), ends)
        unknown = chosen == self._unknown
        if self._byte_ids is None:
            joined = unknown[1:] & unknown[:-1] & (rows[1:] == rows[:-1])
            is_first = tf.concat([[True], ~joined], 0)[: tf.size(rows)]
            is_last = tf.concat([~joined, [True]], 0)[: tf.size(rows)]
            begins = tf.boolean_mask(ends - lengths, is_first)
            lengths = tf.boolean_mask(ends, is_last) - begins
            rows, chosen = tf.boolean_mask(rows, is_first), tf.boolean_mask(chosen, is_first)
        spans = tf.RaggedTensor.from_row_lengths(characters.values, lengths, validate=False)
        surfaces = tf.strings.unicode_encode(spans, "UTF-8")
        ids = tf.gather(self._ids, chosen)
        if self._byte_ids is not None:
            spelled = tf.strings.bytes_split(tf.where(unknown, surfaces, "?"))
            of = spelled.value_rowids()
            byte = tf.cast(tf.reshape(tf.io.decode_raw(spelled.values, tf.uint8), [-1]), tf.int32)
            unknown, ids, surfaces, rows = (
                tf.gather(x, of) for x in (unknown, ids, surfaces, rows)
            )
            ids = tf.where(unknown, tf.gather(self._byte_ids, byte), ids)
            surfaces = tf.where(unknown, spelled.values, surfaces)
        ids = tf.RaggedTensor.from_value_rowids(ids, rows, characters.nrows(), validate=False)
        return Tokens(ids, ids.with_values(surfaces))
