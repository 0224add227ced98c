"""Cross-entropy over a vocabulary without ever holding the logits of a whole batch."""

import tensorflow as tf

from tfllm.layers.clusters import are_compiled, cluster

_LOGITS_AT_ONCE = 2**23
_LEAST = 2.0**-126  # the smallest normal number: no loss is above 87 nats


def vocabulary_loss(hidden, table, y, weights, label_smoothing=0.0) -> tf.Tensor:
    """The weighted sum of the cross-entropies of tokens under `hidden @ tableᵀ`.

    Gradients are computed together with the loss, a part of the rows at a time, so that the logits
    of a part are all that is held of them. Products are in the dtype of `hidden`.

    Args:
        hidden: float[b, t, m]; t is known at tracing.
        table: float32[v, m].
        y: int32[b, t].
        weights: float32[b, t]; there is no gradient of them.
        label_smoothing: As of `Task.compile`.

    Returns:
        float32[], in nats.

    Source:
        Gradients with the loss, in parts: Hsu et al. 2024, section 3.2,
        https://arxiv.org/abs/2410.10989
    """

    @tf.custom_gradient
    def summed(hidden, table):
        matrix = tf.cast(table, hidden.dtype)
        flat = [tf.reshape(hidden, [-1, hidden.shape[-1]])]
        flat += [tf.reshape(tensor, [-1]) for tensor in (y, weights)]
        parts = _parts(flat[0].shape[0], table.shape[0])
        total, d_hidden, d_table = tf.zeros([]), [], tf.zeros_like(table)
        for x, targets, of_targets in zip(*(tf.split(t, parts) for t in flat), strict=True):
            with tf.control_dependencies([d_table]):  # one part after the other
                x = tf.identity(x)
            logits = tf.matmul(x, matrix, transpose_b=True)
            losses, d = _losses_and_gradient(logits, targets, of_targets, label_smoothing)
            total += tf.reduce_sum(losses * of_targets)
            d_hidden.append(tf.matmul(d, matrix))
            d_table += tf.cast(tf.matmul(d, x, transpose_a=True), table.dtype)
        d_hidden = tf.reshape(tf.concat(d_hidden, 0), tf.shape(hidden))

        def gradient(upstream):
            return d_hidden * tf.cast(upstream, d_hidden.dtype), d_table * upstream

        return total, gradient

    return summed(hidden, tf.convert_to_tensor(table))


def _losses_and_gradient(logits, y, weights, label_smoothing):
    """float32[n] of float[n, v], and float[n, v], that of the weighted sum."""
    shares = tf.nn.softmax(logits)
    target = tf.cast(tf.gather(shares, y, batch_dims=1), tf.float32)
    losses = -tf.math.log(tf.maximum(target, _LEAST))
    if label_smoothing:
        target = tf.cast(tf.gather(logits, y, batch_dims=1), tf.float32)
        # From the target's loss to the mean of all classes' losses.
        apart = target - tf.reduce_mean(tf.cast(logits, tf.float32), -1)
        losses += label_smoothing * apart
    gradient = _gradient_cluster if are_compiled() else _gradient
    return losses, gradient(shares, y, weights, label_smoothing=label_smoothing)


def _gradient(shares, y, weights, *, label_smoothing):
    size = shares.shape[-1]
    is_target = tf.range(size)[None] == y[:, None]
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
