"""The matrix products of a training step alone, in TensorFlow: what no step can be faster than.

`floor` has each product of a layer, forward, and backward by what it multiplies; `peak` one product
of matrices of 2,048 × 2,048 per step.
"""

from worker import answer_lines, arguments

args = arguments()

import tensorflow as tf  # noqa: E402 - reads what `arguments` set

shape = args.shape
dtype = tf.as_dtype(args.precision)


def products(a, b, dy):
    """`a @ b` and, of the gradient of that, the gradients of both."""
    return (
        tf.matmul(a, b),
        tf.matmul(dy, b, transpose_b=True),
        tf.matmul(a, dy, transpose_a=True),
    )


def attention(q, k, dy):
    """Scores `q @ kᵀ`, and their gradients."""
    return tf.matmul(q, k, transpose_b=True), tf.matmul(dy, k), tf.matmul(dy, q, transpose_a=True)


def random(*size):
    return tf.cast(tf.random.normal(size), dtype)


def of(rows, inner, columns):
    """The arguments of `products`."""
    return random(rows, inner), random(inner, columns), random(rows, columns)


def gpt():
    tokens, m = shape.rows * shape.length, shape.width
    heads = (shape.rows, shape.num_heads)
    wide, square = (*heads, shape.length, m // shape.num_heads), (*heads, *[shape.length] * 2)
    layer = [(products, of(tokens, *size)) for size in ((m, 3 * m), (m, m), (m, 4 * m), (4 * m, m))]
    layer += [
        (attention, (random(*wide), random(*wide), random(*square))),
        (products, (random(*square), random(*wide), random(*wide))),
    ]
    return layer * shape.num_layers + [(products, of(tokens, m, shape.vocabulary_size))]


def lstm():
    tokens, m = shape.rows * shape.length, shape.width
    recurrent, back = random(m, 4 * m), random(4 * m, m)

    def steps(h, dz):
        """The recurrent products, one after the other in each direction."""
        for _ in range(shape.length):
            h = tf.matmul(h, recurrent)[:, :m]
            dz = tf.concat([tf.matmul(dz, back)] * 4, 1)
        return h, dz

    def recurrent_gradient(h, dz):
        return tf.matmul(h, dz, transpose_a=True)

    layer = [
        (products, of(tokens, m, 4 * m)),
        (steps, (random(shape.rows, m), random(shape.rows, 4 * m))),
        (
            lambda h, dz: tf.matmul(h, dz, transpose_a=True),
            (random(tokens, m), random(tokens, 4 * m)),
        ),
    ]
    return layer * shape.num_layers + [(products, of(tokens, m, shape.vocabulary_size))]


def peak():
    return [(tf.matmul, (random(2048, 2048), random(2048, 2048)))]


calls = peak() if args.variant == "peak" else {"gpt": gpt, "lstm": lstm}[args.model]()
compiled = {f: tf.function(f, autograph=False) for f, _ in calls}


def train(steps):
    for _ in range(steps):
        for function, arguments_of in calls:
            compiled[function](*arguments_of)
    return 0.0


answer_lines(train)
