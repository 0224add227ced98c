"""What a Transformer does between its products of matrices, each with a gradient of its own.

Inside `compiled_clusters` they are made of clusters, outside of it of plain ops under autodiff.
"""

from functools import partial

import tensorflow as tf

from tfllm.layers.cache import MASKED
from tfllm.layers.clusters import are_compiled, cluster, narrowed, sum_of_rows


def normalise(x, gain, bias, epsilon) -> tf.Tensor:
    """Layer norm over the last dimension.

    Args:
        x: float[..., m].
        gain: float32[m].
        bias: float32[m].
        epsilon: Added to the variance.

    Returns:
        float[..., m] of the dtype of `x`, computed in float32.

    Source:
        Ba et al. 2016, https://arxiv.org/abs/1607.06450
    """
    if not are_compiled():
        return _normalised(x, gain, bias, epsilon=epsilon)[0]

    @tf.custom_gradient
    def compiled(x, gain, bias):
        y, mean, scale = _normalised_cluster(x, gain, bias, epsilon=epsilon)

        def gradient(dy):
            dx, d_gains = _normalised_gradient(x, mean, scale, gain, dy)
            sums = (sum_of_rows(d_gains), sum_of_rows(dy))
            return dx, *(tf.cast(total, tf.float32) for total in sums)

        return y, gradient

    return compiled(x, gain, bias)


def _mean(x):
    return tf.reduce_mean(x, -1, keepdims=True)


def _normalised(x, gain, bias, *, epsilon, mean_of=_mean):
    centred = tf.cast(x, tf.float32)
    mean = mean_of(centred)
    centred -= mean
    deviation = tf.sqrt(mean_of(tf.square(centred)) + epsilon)
    # Eigen's rsqrt rounds differently where it has eight rows at a time: a text would depend on how
    # many others there are. A plain quotient by a root is made to be a rsqrt by Grappler.
    scale = tf.math.divide_no_nan(1.0, deviation)
    return tf.cast(centred * scale * gain + bias, x.dtype), mean, scale


def _mean_by_product(x):
    """As `_mean`: XLA sums along a row number by number, but a product many at a time."""
    size = x.shape[-1]
    return tf.tensordot(x, tf.fill([size, 1], 1 / size), 1)


_normalised_cluster = cluster(partial(_normalised, mean_of=_mean_by_product))


@cluster
def _normalised_gradient(x, mean, scale, gain, dy):
    """Of x; and of the gain at each position."""
    dtype = x.dtype
    x = (tf.cast(x, tf.float32) - mean) * scale
    dy = tf.cast(dy, tf.float32)
    dx = dy * gain
    dx -= _mean_by_product(dx) + x * _mean_by_product(dx * x)
    return narrowed(dx * scale, dtype), narrowed(dy * x, dtype)


def activate(x, activation) -> tf.Tensor:
    """`activation(x)`, elementwise, of float[...] in float32, as the dtype of `x`."""
    if not are_compiled():
        return activation(x)

    @tf.custom_gradient
    def compiled(x):
        return _activated(x, activation=activation), lambda dy: _activated_gradient(
            x, dy, activation=activation
        )

    return compiled(x)


@cluster
def _activated(x, *, activation):
    return narrowed(activation(tf.cast(x, tf.float32)), x.dtype)


@cluster
def _activated_gradient(x, dy, *, activation):
    wide = tf.cast(x, tf.float32)
    with tf.GradientTape() as tape:  # of the one op, and XLA fuses it
        tape.watch(wide)
        y = activation(wide)
    return narrowed(tape.gradient(y, wide, tf.cast(dy, tf.float32)), x.dtype)


def attention_weights(q, k, allowed, bias, scale) -> tf.Tensor:
    """How much of each position each one takes.

    Args:
        q: float[b, h, t, d].
        k: float[b, h, s, d].
        allowed: bool[b or 1, t or 1, s], True where a position may look; None = everywhere.
        bias: float[b or 1, h, t, s], added to the scores; or None.
        scale: Factor of the scores.

    Returns:
        float32[b, h, t, s], each row of which sums to 1.
    """
    # Softmax in float32: in bfloat16 a long row of small weights does not add up to 1.
    scores = tf.cast(tf.matmul(q, k, transpose_b=True), tf.float32) * scale
    if bias is not None:
        scores += tf.cast(bias, tf.float32)
    if allowed is not None:
        scores = tf.where(allowed[:, None], scores, MASKED)
    return tf.nn.softmax(scores)


def attend(q, k, v, allowed, bias, scale) -> tf.Tensor:
    """float[b, h, t, d], what each position takes of float[b, h, s, d]; see `attention_weights`."""
    if not are_compiled():
        weights = attention_weights(q, k, allowed, bias, scale)
        return tf.matmul(tf.cast(weights, v.dtype), v)
    added = [] if bias is None else [tf.cast(bias, q.dtype)]

    @tf.custom_gradient
    def compiled(q, k, v, *bias):
        scores = tf.matmul(q * tf.cast(scale, q.dtype), k, transpose_b=True)
        if bias:
            scores += bias[0]
        if allowed is not None:
            scores += tf.where(allowed[:, None], tf.zeros([], q.dtype), MASKED)
        weights = tf.nn.softmax(scores)  # oneDNN's computes in float32, whatever it stores
        y = tf.matmul(weights, v)

        def gradient(dy):
            d_weights = tf.matmul(dy, v, transpose_b=True)
            d_scores = _softmax_gradient(weights, d_weights, _products(y, dy), scale=scale)
            dq = tf.matmul(d_scores, k)
            dk = tf.matmul(d_scores, q, transpose_a=True)
            dv = tf.matmul(weights, dy, transpose_a=True)
            if not bias:
                return dq, dk, dv
            shared = bias[0].shape[0] == 1 and q.shape[0] != 1
            d_bias = tf.reduce_sum(d_scores, 0, keepdims=True) if shared else d_scores
            return dq, dk, dv, d_bias / tf.cast(scale, q.dtype)

        return y, gradient

    return compiled(q, k, v, *added)


@cluster
def _products(y, dy):
    """float32[b, h, t, 1]: the sum over s of weights times their gradients, in the width of a head.

    Source:
        Dao et al. 2022, appendix B.2, https://arxiv.org/abs/2205.14135
    """
    return tf.reduce_sum(tf.cast(y, tf.float32) * tf.cast(dy, tf.float32), -1, keepdims=True)


@cluster
def _softmax_gradient(weights, d_weights, products, *, scale):
    """Of the products of queries and keys, which `scale` multiplies."""
    d = tf.cast(weights, tf.float32) * (tf.cast(d_weights, tf.float32) - products)
    return narrowed(d * scale, weights.dtype)


def transposed(x, order) -> tf.Tensor:
    """`tf.transpose(x, order)`."""
    if not are_compiled():
        return tf.transpose(x, order)

    @tf.custom_gradient
    def compiled(x):
        back = tuple(order.index(i) for i in range(len(order)))
        return _transposed(x, order=order), lambda dy: _transposed(dy, order=back)

    return compiled(x)


@cluster
def _transposed(x, *, order):
    return tf.transpose(x, order)
