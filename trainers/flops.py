"""How many floating-point operations a graph's matrix products take, counted from their shapes."""

import math
from collections.abc import Iterator
from typing import Any

import tensorflow as tf

# A step forward and back: a product forward is two of the same size backward.
TIMES_FORWARD = 3

# The attribute of an operation that calls a function: which function that is.
_CALLED = {
    "PartitionedCall": "f",
    "StatefulPartitionedCall": "f",
    "While": "body",
    "StatelessWhile": "body",
}
_PRODUCTS = ("MatMul", "BatchMatMul", "BatchMatMulV2", "BatchMatMulV3")


def model_flops(model, x: Any, y: Any) -> int | None:
    """Floating-point operations of a training step, forward and backward.

    Products of matrices alone are counted, a multiplication and an addition each; the backward
    pass as twice the forward one, whatever is computed anew for the sake of memory.

    Args:
        model: A task of `tfllm.models`.
        x: Of a batch: `tf.TensorSpec`s of its inputs.
        y: And of its targets.

    Returns:
        The number, or None where a size is only known when the batch is there.

    Source:
        Chowdhery et al. 2022, appendix B (model FLOPs utilisation),
        https://arxiv.org/abs/2204.02311
    """
    try:
        return model_flops_of(model, x, y)
    except UnknownSize:
        return None


def model_flops_of(model, x: Any, y: Any) -> int:
    """As `model_flops`, for batches whose sizes are all known.

    Raises:
        UnknownSize: they are not.
    """
    forward = tf.function(lambda x, y: model.outputs_of(x, y, training=True), autograph=False)
    return TIMES_FORWARD * matmul_flops(forward.get_concrete_function(x, y).graph)


class UnknownSize(ValueError):
    """A size that is not known before the graph runs."""


def matmul_flops(graph: tf.Graph) -> int:
    """Of all products of matrices in a graph.

    Raises:
        UnknownSize: a shape, or how often a loop runs, is not in the graph.
    """
    return sum(times * product_flops(op) for op, times in operations(graph))


def operations(graph: tf.Graph) -> Iterator[tuple[tf.Operation, int]]:
    """Each operation of a graph and of the functions it calls, with how often it runs.

    Raises:
        UnknownSize: on the way, at a loop that does not say how often it runs.
    """
    for op in graph.get_operations():
        called = called_graph(op)
        if called is None:
            yield op, 1
            continue
        around = iterations(op)
        for inner, times in operations(called):
            yield inner, times * around


def called_graph(op: tf.Operation) -> tf.Graph | None:
    """What an operation runs, of a loop once; None if it calls no function."""
    if op.type not in _CALLED:
        return None
    # No public name leads from an operation to the graph of its function.
    return op.graph._get_function(op.get_attr(_CALLED[op.type]).name).graph


def iterations(op: tf.Operation) -> int:
    """How often an operation runs what it calls: of a loop, which all of ours run to their end.

    Raises:
        UnknownSize: a loop has no `maximum_iterations`.
    """
    if "While" not in op.type:
        return 1
    most = tf.get_static_value(op.inputs[1])
    if most is None or most < 0:
        raise UnknownSize(f"{op.name} does not say how often it runs")
    return int(most)


def product_flops(op: tf.Operation) -> int:
    """2·m·k·n of a product [m, k] · [k, n]; 0 of an operation that is none.

    Raises:
        UnknownSize: a size of the product is not in the graph.
    """
    if op.type in _PRODUCTS:
        name = "transpose_a" if op.type == "MatMul" else "adj_x"
        inner = _size(op.inputs[0])[-2 if op.get_attr(name) else -1]
        return 2 * inner * math.prod(_size(op.outputs[0]))
    if op.type == "Einsum":
        return _einsum_flops(op)
    return 0


def _einsum_flops(op: tf.Operation) -> int:
    equation = op.get_attr("equation").decode()
    if "." in equation:
        raise UnknownSize(f"{op.name} has {equation}")
    sizes: dict[str, int] = {}
    for letters, tensor in zip(equation.partition("->")[0].split(","), op.inputs, strict=True):
        sizes |= zip(letters, _size(tensor), strict=True)
    return 2 * math.prod(sizes.values()) if len(op.inputs) > 1 else 0


def _size(tensor: tf.Tensor) -> list[int]:
    if not tensor.shape.is_fully_defined():
        raise UnknownSize(f"{tensor.name} has the shape {tensor.shape}")
    return tensor.shape.as_list()
