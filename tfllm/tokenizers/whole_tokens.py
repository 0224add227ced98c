"""Tokens that a piece of text can only be as a whole, because no merges lead to them."""

from collections.abc import Mapping
from typing import NamedTuple

import numpy as np
import tensorflow as tf

from tfllm.tokenizers.byte_alphabet import ALPHABET, unspelled
from tfllm.tokenizers.pieces import Pieces

_MOST_HASHES = 2**63 - 1
_CHARACTERS = frozenset(ALPHABET)


class WholeTokens(NamedTuple):
    """k tokens, found by the hash of their bytes and then compared with them.

    Attributes:
        hashes: int64[k + 1], rising, closed by the highest value.
        spellings: string[k + 1], their bytes, closed by what is in no text.
        ids: int32[k + 1].
    """

    hashes: tf.Tensor
    spellings: tf.Tensor
    ids: tf.Tensor

    @classmethod
    def of(cls, vocabulary: Mapping[str, int], reached: np.ndarray) -> "WholeTokens | None":
        """Those of a vocabulary; None if there are none.

        Args:
            vocabulary: Id of each token.
            reached: bool, by id, of the tokens that merges are known to lead to.
        """
        raw = {
            unspelled(token): token_id
            for token, token_id in vocabulary.items()
            if not reached[token_id] and token and set(token) <= _CHARACTERS
        }
        if not raw:
            return None
        hashes = _hashed(tf.constant(list(raw))).numpy()
        order = np.argsort(hashes)
        spellings, ids = list(raw), list(raw.values())
        return cls(
            tf.constant([*hashes[order], tf.int64.max], tf.int64),
            tf.constant([*(spellings[i] for i in order), b"\xff"]),
            tf.constant([*(ids[i] for i in order), -1], tf.int32),
        )

    def put(self, pieces: Pieces, tokens: tf.Tensor, places: tf.Tensor):
        """Puts them in the place of what their pieces were merged to.

        Args:
            pieces: p pieces.
            tokens: int32[n], of all pieces.
            places: int32[n], which piece each one is of.

        Returns:
            The tokens and the places after it.
        """
        strings = pieces.strings()
        at = tf.searchsorted(self.hashes, _hashed(strings))
        found = tf.equal(tf.gather(self.spellings, at), strings)
        others = tf.where(~tf.gather(found, places))
        whole = tf.where(found)
        tokens = tf.concat(
            [tf.gather_nd(tokens, others), tf.gather(self.ids, tf.gather_nd(at, whole))], 0
        )
        places = tf.concat([tf.gather_nd(places, others), tf.cast(whole[:, 0], tf.int32)], 0)
        order = tf.argsort(places, stable=True)
        return tf.gather(tokens, order), tf.gather(places, order)


def _hashed(strings: tf.Tensor) -> tf.Tensor:
    # FarmHash's fingerprint, which is the same in every version. That two of a million tokens
    # share one, so that one of them is not found, has a probability of 1e-7.
    return tf.strings.to_hash_bucket_fast(strings, _MOST_HASHES)
