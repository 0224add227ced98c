"""Layer norms."""

import keras
import tensorflow as tf


class _LayerNorm(keras.layers.LayerNormalization):
    """`keras.layers.LayerNormalization` over the last dimension, in fewer ops.

    At each token a decoder has two or three norms per layer, of a few rows each: it is the number
    of ops that costs there.
    """

    def call(self, inputs):
        gamma, beta = (tf.cast(weight, tf.float32) for weight in (self.gamma, self.beta))
        x = tf.cast(inputs, tf.float32)
        x -= tf.reduce_mean(x, -1, keepdims=True)
        variance = tf.reduce_mean(tf.square(x), -1, keepdims=True)
        y = x * tf.math.rsqrt(variance + self.epsilon) * gamma + beta
        return tf.cast(y, self.compute_dtype)


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
