"""Cross-entropy over a vocabulary without ever holding the logits of a whole batch."""

from typing import NamedTuple

import tensorflow as tf

from tfllm.layers.clusters import are_compiled, cluster, sum_of_rows

_LOGITS_AT_ONCE = 2**23
_LEAST = 2.0**-126  # the smallest normal number: no loss is above 87 nats


class Scored(NamedTuple):
    """What a vocabulary comes to at each token.

    Attributes:
        loss: float32[], the weighted sum of the losses in nats. It alone has a gradient.
        cross_entropies: float32[b, t], without weights and smoothing.
        is_best: float32[b, t], 1 where the target is the likeliest token.
    """

    loss: tf.Tensor
    cross_entropies: tf.Tensor
    is_best: tf.Tensor


def vocabulary_loss(  # noqa: PLR0913 - five tensors and a number
    hidden, table, y, weights, label_smoothing=0.0, bias=None
) -> Scored:
    """The weighted sum of the cross-entropies of tokens under `hidden @ tableᵀ + bias`.

    Gradients are computed together with the loss, a part of the rows at a time, so that the logits
    of a part are all that is held of them. Products are in the dtype of `hidden`.

    Args:
        hidden: float[b, t, m]; t is known at tracing.
        table: float32[v, m].
        y: int32[b, t].
        weights: float32[b, t]; there is no gradient of them.
        label_smoothing: As of `Task.compile`.
        bias: float32[v], or None.

    Source:
        Gradients with the loss, in parts: Hsu et al. 2024, section 3.2,
        https://arxiv.org/abs/2410.10989
    """

    @tf.custom_gradient
    def scored(hidden, table, *bias):
        matrix = tf.cast(table, hidden.dtype)
        flat = [tf.reshape(hidden, [-1, hidden.shape[-1]])]
        flat += [tf.reshape(tensor, [-1]) for tensor in (y, weights)]
        parts = _parts(flat[0].shape[0], table.shape[0])
        total, d_hidden, d_table = tf.zeros([]), [], tf.zeros_like(table)
        d_bias = [tf.zeros_like(one) for one in bias]
        at_tokens = []
        for x, targets, of_targets in zip(*(tf.split(t, parts) for t in flat), strict=True):
            with tf.control_dependencies([d_table]):  # one part after the other
                x = tf.identity(x)
            logits = tf.matmul(x, matrix, transpose_b=True)
            if bias:
                logits = tf.nn.bias_add(logits, tf.cast(bias[0], logits.dtype))
            if not are_compiled():  # then it is oneDNN's softmax that computes in float32 inside
                logits = tf.cast(logits, tf.float32)
            losses, d, *told = _losses_and_gradient(logits, targets, of_targets, label_smoothing)
            total += tf.reduce_sum(losses * of_targets)
            at_tokens.append(told)
            d = tf.cast(d, hidden.dtype)
            d_hidden.append(tf.matmul(d, matrix))
            d_table += tf.cast(tf.matmul(d, x, transpose_a=True), table.dtype)
            d_bias = [one + tf.cast(sum_of_rows(d), one.dtype) for one in d_bias]
        d_hidden = tf.reshape(tf.concat(d_hidden, 0), tf.shape(hidden))
        at_tokens = [
            tf.reshape(tf.concat(part, 0), tf.shape(y)) for part in zip(*at_tokens, strict=True)
        ]

        def gradient(upstream, *_):
            return d_hidden * tf.cast(upstream, d_hidden.dtype), *(
                d * upstream for d in (d_table, *d_bias)
            )

        return (total, *at_tokens), gradient

    given = [tf.convert_to_tensor(tensor) for tensor in (table, bias) if tensor is not None]
    return Scored(*scored(hidden, *given))


def _losses_and_gradient(logits, y, weights, label_smoothing):
    """Of float[n, v], each float32[n] but the second one.

    Returns:
        The losses; float[n, v], the gradient of their weighted sum; the cross-entropies; whether
        the target is the likeliest.
    """
    shares = tf.nn.softmax(logits)
    of_target = tf.gather(shares, y, batch_dims=1)
    cross_entropies = -tf.math.log(tf.maximum(tf.cast(of_target, tf.float32), _LEAST))
    is_best = tf.cast(tf.equal(tf.argmax(logits, -1, output_type=y.dtype), y), tf.float32)
    losses = cross_entropies
    if label_smoothing:
        target = tf.cast(tf.gather(logits, y, batch_dims=1), tf.float32)
        # From the target's loss to the mean of all classes' losses.
        apart = target - tf.reduce_mean(tf.cast(logits, tf.float32), -1)
        losses += label_smoothing * apart
    gradient = _gradient_cluster if are_compiled() else _gradient
    d = gradient(shares, y, weights, label_smoothing=label_smoothing)
    return losses, d, cross_entropies, is_best


def _gradient(shares, y, weights, *, label_smoothing):
    size = shares.shape[-1]
    is_target = tf.equal(tf.range(size)[None], y[:, None])
    wanted = tf.where(is_target, 1.0 - label_smoothing, 0.0) + label_smoothing / size
    gradient = (tf.cast(shares, tf.float32) - wanted) * weights[:, None]
    return tf.cast(gradient, shares.dtype)


_gradient_cluster = cluster(_gradient)


def _parts(rows: int | None, vocabulary_size: int) -> int:
    """The fewest equal parts of the rows with few enough logits; 1 if the rows are not known."""
    if rows is None:
        return 1
    fewest = -(-rows * vocabulary_size // _LOGITS_AT_ONCE)
    return next(parts for parts in range(fewest, rows + 1) if rows % parts == 0)
