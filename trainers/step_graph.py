"""The training step of a recipe as a graph that is never run: no weight takes any memory."""

import math
from collections.abc import Iterable
from typing import Any, NamedTuple

import keras
import tensorflow as tf

from tfllm.data import Records
from tfllm.errors import UserError
from tfllm.trainers.adapting import adapt
from tfllm.trainers.flops import TIMES_FORWARD, UnknownSize, matmul_flops, product_flops
from tfllm.trainers.recipe import Recipe
from tfllm.trainers.tasks import begun_alike, make_model, objective_of

# Their outputs are their inputs, perhaps in another shape.
_SAME = frozenset(
    ("Reshape", "Identity", "IdentityN", "ExpandDims", "Squeeze", "StopGradient", "EnsureShape",
     "While", "StatelessWhile")
)  # fmt: skip
# They write over an input that nobody reads later.
_OVER = frozenset(
    ("AddV2", "AddN", "Sub", "Mul", "RealDiv", "Neg", "Square", "Rsqrt", "Tanh", "Sigmoid",
     "Softmax", "BiasAdd", "SelectV2", "TanhGrad", "Relu")
)  # fmt: skip
# Weights and constants are not activations.
_OUTSIDE = frozenset(("Const", "Placeholder", "VarHandleOp", "ReadVariableOp"))


class StepGraph(NamedTuple):
    """One replica's share of a training step.

    Attributes:
        flops: Operations of its products of matrices, see `model_flops`.
        weights: Numbers that the model holds.
        trained: Of those, the trained ones.
        activation_bytes: What is alive at once at most beside the weights and their gradients.
        costs: (operations, bytes read and written) of each operation, forward and backward.
    """

    flops: int
    weights: int
    trained: int
    activation_bytes: int
    costs: list[tuple[int, int]]


def step_graph(recipe: Recipe, records: Records, replicas: int = 1) -> StepGraph:
    """Traces the step of one replica; its memory is that of one microbatch.

    Raises:
        UserError: the recipe and the data do not fit, the rows of the task have no fixed length, or
            the recipe has a budget of tokens instead of rows.
    """
    if recipe.batch_tokens:
        raise UserError(
            "`plan` is for steps of one shape: set batch_tokens=0, and a global_batch of as many "
            "positions."
        )
    rows = recipe.global_batch // (replicas * recipe.microbatches)
    if rows * replicas * recipe.microbatches != recipe.global_batch:
        raise UserError(
            f"global_batch must be a multiple of {replicas} replicas times {recipe.microbatches} "
            f"microbatches: got {recipe.global_batch}."
        )
    objective = objective_of(recipe, records)
    with tf.Graph().as_default() as graph:
        model: Any = adapt(make_model(recipe, records), recipe)
        objective = begun_alike(objective, model)
        specs = records.batches("train", rows, objective, num_steps=1).element_spec
        x, y, weight = tf.nest.map_structure(_placeholder, specs)
        if not (isinstance(x, dict) and any(name.endswith("token_ids") for name in x)):
            raise UserError(
                f"The rows of {recipe.task} are texts of any length: `plan` is for tasks whose "
                "rows are packed, as causal_lm, masked_lm and seq2seq_lm."
            )
        before = len(graph.get_operations())
        try:
            with tf.GradientTape() as tape:
                losses = model.target_losses(y, model.outputs_of(x, y, training=True))
                weighted = tf.nest.map_structure(
                    tf.multiply, losses, model.target_weights(y, weight)
                )
                loss = tf.add_n([tf.reduce_sum(part) for part in tf.nest.flatten(weighted)])
            forward = matmul_flops(graph)
            gradients = tape.gradient(loss, model.trainable_weights)
            step = graph.get_operations()[before:]
            dense = {g.name for g in gradients if isinstance(g, tf.Tensor)}
            return StepGraph(
                flops=TIMES_FORWARD * forward * recipe.microbatches,
                weights=_count(model.weights),
                trained=_count(model.trainable_weights),
                activation_bytes=peak_bytes(step, dense),
                costs=[(product_flops(op), moved_bytes(op)) for op in step] * recipe.microbatches,
            )
        except UnknownSize as error:
            raise UserError(f"A size of the step is only known when it runs: {error}.") from error


def peak_bytes(step: Iterable[tf.Operation], outside: Iterable[str] = ()) -> int:
    """The most bytes that are alive at once when operations run in this order.

    A tensor lives until its last reader is done. An elementwise operation writes over an input of
    its size that dies with it, as TensorFlow's kernels do.

    Args:
        step: In an order in which they can run.
        outside: Names of tensors that are counted elsewhere.
    """
    order = list(step)
    last = {}  # the storage of a tensor, by the place of its last reader
    storage: dict[str, str] = {}

    def place_of(tensor) -> str:
        return storage.setdefault(tensor.name, tensor.name)

    for i, op in enumerate(order):
        for j, tensor in enumerate(op.outputs):
            if op.type in _SAME and j < len(op.inputs):
                storage[tensor.name] = place_of(op.inputs[j])
        for tensor in op.inputs:
            last[place_of(tensor)] = i
    uncounted = {storage.get(name, name) for name in outside}
    alive: dict[str, int] = {}
    now = most = 0
    for i, op in enumerate(order):
        dying = {place for t in op.inputs if last[place := place_of(t)] == i and place in alive}
        for tensor in op.outputs:
            place, size = place_of(tensor), _bytes(tensor)
            if place in alive or place in uncounted or place != tensor.name or op.type in _OUTSIDE:
                continue
            over = op.type in _OVER and next((p for p in dying if alive[p] == size), None)
            if over:
                now -= alive.pop(over)
                dying.discard(over)
            alive[place] = size
            now += size
        most = max(most, now)
        dead = dying | {t.name for t in op.outputs if t.name in alive and t.name not in last}
        now -= sum(alive.pop(place) for place in dead)
    return most


def moved_bytes(op: tf.Operation) -> int:
    """What an operation reads and writes; 0 if it only gives a tensor another shape."""
    if op.type in _SAME or op.type in _OUTSIDE:
        return 0
    return sum(map(_bytes, [*op.inputs, *op.outputs]))


def _bytes(tensor: tf.Tensor) -> int:
    """Of a tensor of known shape; a list or a handle of a variable counts as nothing."""
    if tensor.dtype in (tf.resource, tf.variant, tf.string) or None in (
        tensor.shape.as_list() if tensor.shape.rank is not None else [None]
    ):
        return 0
    return math.prod(tensor.shape) * tensor.dtype.size


def _placeholder(spec: Any):
    return None if spec is None else tf.compat.v1.placeholder(spec.dtype, spec.shape)


def _count(variables: list[keras.Variable]) -> int:
    return sum(math.prod(variable.shape) for variable in variables)
