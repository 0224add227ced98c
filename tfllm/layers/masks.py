"""Who may look at whom: bool masks of shape [b or 1, t, s], True where position t may look at s."""

import keras
import tensorflow as tf


def causal_mask(length) -> tf.Tensor:
    """Each position sees itself and what came before.

    Args:
        length: t = s, an int or an int32 scalar.

    Returns:
        bool[1, t, t].
    """
    positions = tf.range(length)
    return (positions[:, None] >= positions[None, :])[None]


@keras.saving.register_keras_serializable("tfllm")
class SegmentMask(keras.layers.Layer):
    """Causal, and only within the own document; the documents of a packed row never meet.

    Call arguments:
        segment_ids: int32[b, t], one number per document; 0 is padding and sees padding only.

    Returns:
        bool[b, t, t].
    """

    def call(self, segment_ids):
        same = tf.equal(segment_ids[:, :, None], segment_ids[:, None, :])
        return same & causal_mask(tf.shape(segment_ids)[1])


def padding_mask(present) -> tf.Tensor:
    """Every position sees every present one (an encoder's mask).

    Args:
        present: bool[b, s], False for padding.

    Returns:
        bool[b, 1, s].
    """
    return tf.cast(present, tf.bool)[:, None, :]


def pair_mask(queries, keys) -> tf.Tensor:
    """Every position sees what is present of its own pair, where a row holds several of them.

    Padding sees all that is present, so that rows of one pair are masked as by `padding_mask`.

    Args:
        queries: int32[b, t], the pair of each position, from 1; 0 = padding.
        keys: int32[b, s], the same of what is looked at.

    Returns:
        bool[b, t, s].
    """
    queries, keys = queries[:, :, None], keys[:, None, :]
    # In a graph of TensorFlow 1, as a plan traces, `==` asks whether they are one tensor.
    return (tf.equal(queries, keys) | tf.equal(queries, 0)) & tf.not_equal(keys, 0)


@keras.saving.register_keras_serializable("tfllm")
class PairMask(keras.layers.Layer):
    """`pair_mask` as a layer.

    Args:
        causal: Whether positions see only themselves and what came before; then t = s.

    Call arguments:
        queries: int32[b, t], the pair of each position, from 1; 0 = padding.
        keys: int32[b, s], the same of what is looked at.

    Returns:
        bool[b, t, s].
    """

    def __init__(self, causal=False, **kwargs):
        super().__init__(**kwargs)
        self.causal = causal

    def call(self, queries, keys):
        allowed = pair_mask(queries, keys)
        return allowed & causal_mask(tf.shape(keys)[1]) if self.causal else allowed

    def get_config(self):
        return {**super().get_config(), "causal": self.causal}


@keras.saving.register_keras_serializable("tfllm")
class PaddingMask(keras.layers.Layer):
    """Who sees whom in rows that are padded at their end.

    Args:
        causal: Whether positions see only themselves and what came before.

    Call arguments:
        present: int32[b, t] or bool[b, t], 0 for padding.

    Returns:
        bool[b, 1, t]; bool[b, t, t] if causal.
    """

    def __init__(self, causal=False, **kwargs):
        super().__init__(**kwargs)
        self.causal = causal

    def call(self, present):
        allowed = padding_mask(present)
        return allowed & causal_mask(tf.shape(present)[1]) if self.causal else allowed

    def get_config(self):
        return {**super().get_config(), "causal": self.causal}
