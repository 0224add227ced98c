"""Layer norms."""

import keras
import tensorflow as tf

from tfllm.layers.fused import normalise


class LayerNormalization(keras.layers.LayerNormalization):
    """`keras.layers.LayerNormalization` over the last dimension, in fewer ops.

    At each token a decoder has two or three norms per layer, of a few rows each: it is the number
    of ops that costs there. In training it is how often the memory is read and written.
    """

    def call(self, inputs):
        gain, bias = (tf.cast(weight, tf.float32) for weight in (self.gamma, self.beta))
        x = tf.cast(inputs, self.compute_dtype)
        return normalise(x, gain, bias, self.epsilon)


class _LayerNorm(LayerNormalization):
    """By this name a norm that is one of a list stands in the files of weights."""


def layer_norm(shape, *, epsilon=1e-5, dtype, name) -> keras.layers.LayerNormalization:
    """A norm over the last dimension, with gain and bias, made and built at once.

    Args:
        shape: Of what it will normalise, a tuple of sizes or None.
        epsilon: Added to the variance.
        dtype: Policy; the norm computes in float32 whatever it is.
        name: Of the layer.

    Source:
        Ba et al. 2016, https://arxiv.org/abs/1607.06450
    """
    norm = _LayerNorm(epsilon=epsilon, dtype=dtype, name=name)
    norm.build(shape)
    return norm
