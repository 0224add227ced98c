"""Where a token stands, and three ways to tell a model: learned, sinusoidal, relative."""

import math

import keras
import numpy as np
import tensorflow as tf
from keras import ops

from tfllm.layers.embedding import look_up


@keras.saving.register_keras_serializable("tfllm")
class PositionEmbedding(keras.layers.Layer):
    """A learned vector per position.

    Args:
        max_sequence_length: Positions there are vectors for.
        hidden_dim: m.
        embeddings_initializer: Of the vectors.

    Call arguments:
        positions: int32[b, t], each in [0, max_sequence_length).

    Returns:
        float[b, t, m].
    """

    def __init__(
        self, max_sequence_length, hidden_dim, *, embeddings_initializer="uniform", **kwargs
    ):
        super().__init__(**kwargs)
        self.max_sequence_length = max_sequence_length
        self.hidden_dim = hidden_dim
        self.embeddings_initializer = keras.initializers.get(embeddings_initializer)

    def build(self, _):
        self.embeddings = self.add_weight(
            name="embeddings",
            shape=(self.max_sequence_length, self.hidden_dim),
            initializer=self.embeddings_initializer,
        )
        self.built = True

    def call(self, positions):
        return look_up(self.embeddings, positions)

    def get_config(self):
        return {
            **super().get_config(),
            "max_sequence_length": self.max_sequence_length,
            "hidden_dim": self.hidden_dim,
            "embeddings_initializer": keras.initializers.serialize(self.embeddings_initializer),
        }


@keras.saving.register_keras_serializable("tfllm")
class Positions(keras.layers.Layer):
    """Where each token of a row stands, counted from 0.

    Call arguments:
        token_ids: int32[b, t].

    Returns:
        int32[1, t].
    """

    def call(self, token_ids):
        return tf.range(tf.shape(token_ids)[1])[None]

    def compute_output_spec(self, token_ids):
        return keras.KerasTensor((1, token_ids.shape[1]), dtype="int32")


@keras.saving.register_keras_serializable("tfllm")
class PairPositions(keras.layers.Layer):
    """Where each token stands in its pair, in rows that hold several pairs one after the other.

    Call arguments:
        pairs: int32[b, t], the pair of each token, from 1; 0 = padding.

    Returns:
        int32[b, t], from 0 in each pair; padding is counted on.
    """

    def call(self, pairs):
        # Above 1: a row of one pair is counted through, whatever is padding in it.
        begins = tf.not_equal(pairs[:, 1:], pairs[:, :-1]) & (pairs[:, 1:] > 1)
        number = tf.cumsum(tf.pad(tf.cast(begins, tf.int32), [[0, 0], [1, 0]]), axis=1)
        return tf.range(tf.shape(pairs)[1])[None] - tf.searchsorted(number, number)


@keras.saving.register_keras_serializable("tfllm")
class SinusoidalPositions(keras.layers.Layer):
    """Sines in the first half of the vector, cosines in the second, of falling frequency.

    Args:
        hidden_dim: m, even.

    Call arguments:
        positions: int32[b, t].

    Returns:
        float[b, t, m].

    Raises:
        ValueError: `hidden_dim` is odd.

    Source:
        Vaswani et al. 2017, section 3.5, https://arxiv.org/abs/1706.03762; the halves are side by
        side as in tensor2tensor and Marian, where the paper interleaves them.
    """

    def __init__(self, hidden_dim, **kwargs):
        super().__init__(**kwargs)
        if hidden_dim % 2:
            raise ValueError(f"hidden_dim must be even. Received: hidden_dim={hidden_dim}")
        self.hidden_dim = hidden_dim

    def call(self, positions):
        half = self.hidden_dim // 2
        frequencies = 10_000.0 ** (-2.0 * np.arange(half) / self.hidden_dim) / (2 * np.pi)
        turns = ops.cast(positions, "float64")[..., None] * np.tile(frequencies, 2)  # [b, t, m]
        turns += np.repeat([0.0, 0.25], half)  # a cosine is a sine a quarter of a turn ahead
        # In float32 the waves of position 500 would be 3e-5 off; what is left of whole turns is
        # not, and its sine is ten times as fast.
        part = ops.cast(turns - ops.round(turns), "float32")
        return ops.cast(ops.sin(part * (2 * np.pi)), self.compute_dtype)

    def get_config(self):
        return {**super().get_config(), "hidden_dim": self.hidden_dim}


@keras.saving.register_keras_serializable("tfllm")
class RelativePositionBias(keras.layers.Layer):
    """A learned number per head and bucket of distance, added to attention scores.

    Half of the buckets stand for exact small distances, the rest grow logarithmically up to
    `max_distance`; all longer distances share the last.

    Args:
        num_heads: h.
        num_buckets: Buckets over both directions if `bidirectional`, else for the past alone.
        max_distance: The distance from which on all share one bucket; above the exact ones.
        bidirectional: True in an encoder, where positions also look ahead.
        embeddings_initializer: Of the numbers.

    Call arguments:
        query_positions: int32[b or 1, t].
        key_positions: int32[b or 1, s].

    Returns:
        float32[b or 1, h, t, s].

    Raises:
        ValueError: no distance is left for the buckets that are not exact.

    Source:
        Raffel et al. 2020, section 2.1, https://arxiv.org/abs/1910.10683; in float32 as there, so
        that the borders of the buckets are those of trained models.
    """

    def __init__(
        self,
        num_heads,
        *,
        num_buckets=32,
        max_distance=128,
        bidirectional=False,
        embeddings_initializer="normal",
        **kwargs,
    ):
        super().__init__(**kwargs)
        if max_distance <= num_buckets // (4 if bidirectional else 2):
            raise ValueError(
                "max_distance must be above the exact buckets. Received: max_distance="
                f"{max_distance}, num_buckets={num_buckets}, bidirectional={bidirectional}"
            )
        self.num_heads = num_heads
        self.num_buckets = num_buckets
        self.max_distance = max_distance
        self.bidirectional = bidirectional
        self.embeddings_initializer = keras.initializers.get(embeddings_initializer)

    def build(self, query_positions_shape, key_positions_shape):  # noqa: ARG002 - Keras's names
        self.embeddings = self.add_weight(
            name="embeddings",
            shape=(self.num_buckets, self.num_heads),
            initializer=self.embeddings_initializer,
        )
        self.built = True

    def buckets(self, distance):
        """The bucket of each distance.

        Args:
            distance: int32[...], key position minus query position.

        Returns:
            int32[...] in [0, num_buckets).
        """
        bucket = 0
        if self.bidirectional:
            bucket = tf.where(distance > 0, self.num_buckets // 2, 0)
            distance = tf.abs(distance)
        else:
            distance = tf.maximum(-distance, 0)
        return bucket + tf.gather(self._table(), tf.minimum(distance, self.max_distance))

    def _table(self):
        """int32[max_distance + 1], the bucket of each distance in one direction.

        Not in the graph: TensorFlow makes products of quotients there, which on the border of two
        buckets may give the other one.
        """
        num_buckets = self.num_buckets // 2 if self.bidirectional else self.num_buckets
        exact = num_buckets // 2
        distance = np.arange(self.max_distance + 1, dtype="int32")
        ratio = np.maximum(distance, 1).astype("float32") / np.float32(exact)
        log_ratio = np.log(ratio) / np.float32(math.log(self.max_distance / exact))
        far = exact + (log_ratio * np.float32(num_buckets - exact)).astype("int32")
        return np.where(distance < exact, distance, np.minimum(far, num_buckets - 1))

    def call(self, query_positions, key_positions):
        distance = key_positions[:, None, :] - query_positions[:, :, None]  # [b, t, s]
        bias = look_up(ops.cast(self.embeddings, "float32"), self.buckets(distance))
        return ops.transpose(bias, (0, 3, 1, 2))

    def get_config(self):
        return {
            **super().get_config(),
            "num_heads": self.num_heads,
            "num_buckets": self.num_buckets,
            "max_distance": self.max_distance,
            "bidirectional": self.bidirectional,
            "embeddings_initializer": keras.initializers.serialize(self.embeddings_initializer),
        }
