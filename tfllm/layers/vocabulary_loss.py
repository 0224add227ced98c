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
        hidden: float[b, t, m]; what XLA compiles as a whole must know t.
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

        def of_part(x, targets, of_targets):
            logits = tf.matmul(x, matrix, transpose_b=True)
            if bias:
                logits = tf.nn.bias_add(logits, tf.cast(bias[0], logits.dtype))
            if not are_compiled():  # then it is oneDNN's softmax that computes in float32 inside
                logits = tf.cast(logits, tf.float32)
            losses, d, *told = _losses_and_gradient(logits, targets, of_targets, label_smoothing)
            d = tf.cast(d, hidden.dtype)
            d_table = tf.cast(tf.matmul(d, x, transpose_a=True), table.dtype)
            d_bias = [tf.cast(sum_of_rows(d), one.dtype) for one in bias]
            sums = [tf.reduce_sum(losses * of_targets), d_table, *d_bias]
            return [tf.matmul(d, matrix), *told], sums

        flat = [tf.reshape(hidden, [-1, hidden.shape[-1]])]
        flat += [tf.reshape(tensor, [-1]) for tensor in (y, weights)]
        rows, sums = flat[0].shape[0], list(map(tf.zeros_like, (0.0, table, *bias)))
        if rows is None and (hidden.shape[1] is None or are_compiled()):
            columns, sums = _in_a_loop(of_part, flat, sums, table.shape[0])
        else:
            columns, sums = _one_by_one(of_part, flat, sums, _parts(rows, table.shape[0]))
        total, *d_weights = sums
        d_hidden = tf.reshape(columns[0], tf.shape(hidden))
        at_tokens = [tf.reshape(column, tf.shape(y)) for column in columns[1:]]

        def gradient(upstream, *_):
            return d_hidden * tf.cast(upstream, d_hidden.dtype), *(d * upstream for d in d_weights)

        return (total, *at_tokens), gradient

    given = [tf.convert_to_tensor(tensor) for tensor in (table, bias) if tensor is not None]
    return Scored(*scored(hidden, *given))


def _one_by_one(of_part, rows, sums, parts: int):
    """What a function says of the rows of equal parts, and its sums over them.

    Args:
        of_part: From the rows of a part to tensors of as many rows, and to what is summed.
        rows: Tensors of rows.
        sums: What the sums begin with.
        parts: How many.
    """
    found = []
    for part in zip(*(tf.split(tensor, parts) for tensor in rows), strict=True):
        with tf.control_dependencies(sums):  # one part after the other
            inputs = list(map(tf.identity, part))
        of_rows, more = of_part(*inputs)
        found.append(of_rows)
        sums = list(map(tf.add, sums, more))
    return [tf.concat(column, 0) for column in zip(*found, strict=True)], sums


def _in_a_loop(of_part, rows, sums, vocabulary_size: int):
    """As `_one_by_one`, of so many parts as the rows need that come when it runs.

    Not for what XLA compiles: there rows of a known length are taken together, if their number is
    not known.
    """
    count = tf.shape(rows[0])[0]
    parts = tf.maximum(-(-count // max(1, _LOGITS_AT_ONCE // vocabulary_size)), 1)
    size = -(-count // parts)

    def add(i, columns, sums):
        of_rows, more = of_part(*(tensor[i * size : (i + 1) * size] for tensor in rows))
        columns = [column.write(i, of) for column, of in zip(columns, of_rows, strict=True)]
        return i + 1, columns, list(map(tf.add, sums, more))

    columns = [
        tf.TensorArray(dtype, parts, infer_shape=False, element_shape=[None, *shape])
        for dtype, shape in [(rows[0].dtype, rows[0].shape[1:])] + 2 * [(tf.float32, [])]
    ]
    _, columns, sums = tf.while_loop(
        lambda i, *_: i < parts, add, (0, columns, sums), parallel_iterations=1
    )
    return [column.concat() for column in columns], sums


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
