"""Numbers that a client adds to the scores of some tokens, row by row."""

from typing import NamedTuple

import tensorflow as tf

from tfllm import contract
from tfllm.decoding.rules import Rules
from tfllm.models.row_errors import wrong


class Biases(NamedTuple):
    """What is added to which tokens.

    Attributes:
        bias_token_ids: int32[b, n], `contract.PADDING` = unused.
        bias: float32[b, n].
    """

    bias_token_ids: tf.Tensor
    bias: tf.Tensor

    @classmethod
    def of(cls, token_ids, bias) -> "Biases":
        """Those of a request, int32[b, i] and float32[b, j], in as many columns as a slot has."""
        most = contract.MAX_BIASES

        def filled(x, value):
            room = tf.maximum(most - tf.shape(x)[1], 0)
            x = tf.pad(x, [[0, 0], [0, room]], constant_values=value)[:, :most]
            return tf.ensure_shape(x, [None, most])

        return cls(filled(token_ids, contract.PADDING), filled(bias, 0.0))

    def added_to(self, scores):
        """float32[b, v] scores with them."""
        used = self.bias_token_ids != contract.PADDING

        def add():
            rows = tf.range(tf.shape(scores)[0])[:, None] + tf.zeros_like(self.bias_token_ids)
            place = tf.stack([rows, tf.where(used, self.bias_token_ids, 0)], -1)
            return tf.tensor_scatter_nd_add(scores, place, tf.where(used, self.bias, 0.0))

        return tf.cond(tf.reduce_any(used), add, lambda: scores)


class BiasedRules(NamedTuple):
    """`Rules` that are applied after the biases of each row."""

    rules: Rules
    biases: Biases

    def restrict(self, scores, *others):
        """As of `Rules`."""
        return self.rules.restrict(self.biases.added_to(scores), *others)

    def ends(self, token_ids):
        """As of `Rules`."""
        return self.rules.ends(token_ids)


def bias_errors(token_ids, biases: Biases, vocabulary_size: int) -> list[tuple]:
    """Pairs of bool[b] and a message, for `first_error`.

    Args:
        token_ids: int32[b, i], as they were given.
        biases: Made of them.
        vocabulary_size: Of the model.
    """
    used = token_ids != contract.PADDING
    unknown = used & ((token_ids < 0) | (token_ids >= vocabulary_size))
    last = tf.reduce_max(tf.where(used, tf.range(1, tf.shape(used)[1] + 1), 0), -1)
    finite = tf.math.is_finite(biases.bias) | (biases.bias_token_ids == contract.PADDING)
    return [
        (tf.reduce_any(unknown, -1), "bias_token_ids has numbers that are no tokens"),
        (
            last > contract.MAX_BIASES,
            wrong(f"at most {contract.MAX_BIASES} tokens have a bias", last),
        ),
        (~tf.reduce_all(finite, -1), "bias must be finite"),
    ]
