"""The gradient of a batch from its parts, one after the other.

Keras's own `gradient_accumulation_steps` fails under a strategy (a merge_call inside a cond), and
counts each part as much as another however many targets it has.
"""

import tensorflow as tf

from tfllm.errors import UserError


def accumulate(gradients, data, num_parts: int, variables):
    """The sums of gradients over equal parts of the rows.

    Args:
        gradients: From the number of the part, an int32 scalar, and its rows of each of `data` to
            the gradients of the variables and a list of float32 scalars.
        data: Tensors of rows, dicts and tuples of them, and None; the rows of each (pairs of texts
            are two rows for one target) are parted alike.
        num_parts: A divisor of the rows.
        variables: What the gradients are of.

    Returns:
        A dense gradient per variable, and the summed scalars.

    Raises:
        UserError: at tracing, the number of rows is known and no multiple of `num_parts`.
    """
    if num_parts == 1:
        return gradients(0, *data)
    tensors = [tensor for tensor in tf.nest.flatten(data) if tensor is not None]
    rows = min((t.shape[0] for t in tensors if t.shape[0] is not None), default=0)
    if rows % num_parts:
        raise UserError(
            f"microbatches must divide the rows of a replica's batch: got {num_parts} for {rows}."
        )

    def part(i):
        def rows_of(tensor):
            if tensor is None:
                return None
            size = tf.shape(tensor)[0] // num_parts
            here = tensor[i * size : (i + 1) * size]
            known = tensor.shape[0]
            here.set_shape([None if known is None else known // num_parts, *tensor.shape[1:]])
            return here

        found, sums = gradients(i, *tf.nest.map_structure(rows_of, data))
        return [
            tf.zeros(variable.shape, variable.dtype)
            if gradient is None
            else tf.convert_to_tensor(gradient)
            for gradient, variable in zip(found, variables, strict=True)
        ], sums

    def add(i, found, sums):
        here, here_sums = part(i)
        return i + 1, list(map(tf.add, found, here)), list(map(tf.add, sums, here_sums))

    # The first part outside of the loop tells how many sums there are.
    _, found, sums = tf.while_loop(
        lambda i, *_: i < num_parts,
        add,
        (1, *part(tf.constant(0))),
        parallel_iterations=1,
        maximum_iterations=num_parts - 1,
    )
    return found, sums
