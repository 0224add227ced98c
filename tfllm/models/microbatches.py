"""The gradient of a batch from its parts, one after the other.

Keras's own `gradient_accumulation_steps` fails under a strategy (a merge_call inside a cond), and
counts each part as much as another however many targets it has.
"""

import itertools

import tensorflow as tf

from tfllm.errors import UserError


def accumulate(gradients, data, num_parts: int):
    """The sums of gradients over parts of the rows, as equal as can be.

    Args:
        gradients: From the number of rows before a part, an int32 scalar, and its rows of each of
            `data` to the gradients of the variables and a list of float32 scalars.
        data: Tensors of rows, dicts and tuples of them, and None; the rows of each (pairs of texts
            are two rows for one target) are parted alike.
        num_parts: A divisor of the rows, where their number is known at tracing.

    Returns:
        A dense gradient per variable, None for one that the loss does not depend on, and the summed
        scalars.

    Raises:
        UserError: at tracing, the number of rows is known and no multiple of `num_parts`.
    """
    rows = num_rows(data)
    if num_parts == 1:
        found, sums = gradients(0, *data)
        return _dense(found), sums
    known = isinstance(rows, int)
    if known and rows % num_parts:
        raise UserError(
            f"microbatches must divide the rows of a replica's batch: got {num_parts} for {rows}."
        )

    def part(i):
        begin, end = i * rows // num_parts, (i + 1) * rows // num_parts

        def rows_of(tensor):
            if tensor is None:
                return None
            if known:  # XLA wants sizes that it can see
                size = tensor.shape[0] // num_parts
                rest = [-1 if length is None else length for length in tensor.shape[1:]]
                return tf.slice(tensor, [i * size] + [0] * len(rest), [size, *rest])
            each = tf.shape(tensor)[0] // tf.maximum(rows, 1)
            return tensor[begin * each : end * each]

        return gradients(begin, *tf.nest.map_structure(rows_of, data))

    # The first part, outside of the loop, tells which gradients and how many sums there are.
    first, sums = part(0)
    there = [gradient is not None for gradient in first]

    def add(i, found, sums):
        here, here_sums = part(i)
        here = itertools.compress(_dense(here), there)
        return i + 1, list(map(tf.add, found, here)), list(map(tf.add, sums, here_sums))

    _, found, sums = tf.while_loop(
        lambda i, *_: i < num_parts,
        add,
        (1, list(itertools.compress(_dense(first), there)), sums),
        parallel_iterations=1,
        maximum_iterations=num_parts - 1,
    )
    found = iter(found)
    return [next(found) if is_there else None for is_there in there], sums


def num_rows(data):
    """The rows of tensors, where there are more to a row the least: an int, or an int32 scalar."""
    tensors = [tensor for tensor in tf.nest.flatten(data) if tensor is not None]
    known = [tensor.shape[0] for tensor in tensors]
    if None not in known:
        return min(known)
    return tf.reduce_min([tf.shape(tensor)[0] for tensor in tensors])


def _dense(gradients):
    return [None if g is None else tf.convert_to_tensor(g) for g in gradients]
