"""The training step of a recipe as a graph that is never run: no weight takes any memory."""

import math
from collections.abc import Iterable, Iterator
from typing import Any, NamedTuple

import keras
import tensorflow as tf

from tfllm.data import Records
from tfllm.errors import UserError
from tfllm.trainers.compiled import compiled_model, schedule_of
from tfllm.trainers.feed import Kind, are_token_ids, make_feed, standing_for_all
from tfllm.trainers.flops import (
    UnknownSize,
    called_graph,
    iterations,
    model_flops_of,
    operations,
    product_flops,
)
from tfllm.trainers.recipe import Recipe
from tfllm.trainers.tasks import begun_alike, objective_of

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
# They look at the shape of what they are given.
_SHAPES = frozenset(("Shape", "ShapeN", "Size", "Rank"))
# They read as much as they write, however much there is.
_PARTS = frozenset(("Slice", "StridedSlice", "GatherV2", "ResourceGather"))


class Cost(NamedTuple):
    """Of an operation, or of those that XLA made one.

    Attributes:
        flops: Of its products of matrices.
        moved: Bytes that it reads and writes.
        kind: Which operation it is; "" of those that XLA made one.
        elements: Of its first output.
    """

    flops: int
    moved: int
    kind: str = ""
    elements: int = 0


class StepGraph(NamedTuple):
    """One replica's share of a training step.

    Attributes:
        flops: Operations of its products of matrices, see `model_flops`.
        weights: Numbers that the model holds.
        trained: Of those, the trained ones.
        activation_bytes: What is alive at once at most beside the weights and their gradients.
        costs: Of each operation, forward and backward.
    """

    flops: int
    weights: int
    trained: int
    activation_bytes: int
    costs: list[Cost]


class Planned(NamedTuple):
    """Steps of one shape.

    Attributes:
        share: Of all steps; 0 of a shape that is traced for its memory alone.
        tokens: Of a step on average, padding left out.
        step: What it is.
    """

    share: float
    tokens: float
    step: StepGraph


def step_graphs(
    recipe: Recipe,
    records: Records,
    replicas: int = 1,
    *,
    on_cpu: bool = False,
    largest: bool = False,
) -> list[Planned]:
    """Traces the step of one replica; memory is that of one microbatch.

    Of a recipe's buckets some stand for all, see `standing_for_all`, and those which can need the
    most memory are there: the widest, and those of the most positions.

    Args:
        recipe: What is trained.
        records: On what.
        replicas: How many share a batch.
        on_cpu: Whether its clusters are compiled, see `tfllm.layers.clusters`.
        largest: Only those for the memory.

    Raises:
        UserError: the recipe and the data do not fit, or the rows are texts of no fixed length.
    """
    parts = replicas * recipe.microbatches
    if not recipe.batch_tokens and recipe.global_batch % parts:
        raise UserError(
            f"global_batch must be a multiple of {replicas} replicas times {recipe.microbatches} "
            f"microbatches: got {recipe.global_batch}."
        )
    objective = objective_of(recipe, records)
    graph = tf.Graph()
    with graph.as_default():
        model = compiled_model(recipe, records, schedule_of(recipe), jit_compile=False)
    objective = begun_alike(objective, model)
    # Texts are read outside of the graph.
    kinds = make_feed(recipe, records, objective, model, replicas).kinds()
    if not are_token_ids(kinds[0].batch[0]):
        raise UserError(
            f"The rows of {recipe.task} are texts of any length: give the recipe batch_tokens, "
            "whose buckets have lengths, to plan it."
        )
    shares = dict.fromkeys((len(kinds) - 1, most_positions(kinds)), 0.0)
    if not largest:
        for i, kind in zip(standing_for_all(kinds), kinds, strict=True):
            shares[i] = shares.get(i, 0.0) + kind.share
    # Batches of buckets have no shape before they are there, and a CPU then compiles no clusters.
    on_cpu = on_cpu and not recipe.batch_tokens
    with graph.as_default():
        return [
            Planned(share, kinds[i].tokens, _traced(model, kinds[i], parts, recipe, on_cpu))
            for i, share in shares.items()
        ]


def most_positions(kinds: list[Kind]) -> int:
    """Which kind has batches of the most positions."""
    return max(range(len(kinds)), key=lambda i: kinds[i].positions())


def _traced(model: Any, kind: Kind, parts: int, recipe: Recipe, on_cpu: bool) -> StepGraph:
    specs = tf.nest.map_structure(lambda spec: _part(spec, parts), kind.batch)
    x, y, weight = tf.nest.map_structure(_placeholder, specs)
    graph = tf.compat.v1.get_default_graph()
    before = len(graph.get_operations())
    try:
        flops = model_flops_of(model, *specs[:2])
        gradients = model.gradients_of_part(x, y, weight, on_cpus=on_cpu)
        step = graph.get_operations()[before:]
        dense = {g.name for g in gradients if isinstance(g, tf.Tensor)}
        return StepGraph(
            flops=flops * recipe.microbatches,
            weights=_count(model.weights),
            trained=_count(model.trainable_weights),
            activation_bytes=peak_bytes(step, dense),
            costs=list(costs(step)) * recipe.microbatches,
        )
    except UnknownSize as error:
        raise UserError(f"A size of the step is only known when it runs: {error}.") from error


def _part(spec: Any, parts: int):
    if spec is None:
        return None
    return tf.TensorSpec([spec.shape[0] // parts, *spec.shape[1:]], spec.dtype)


def costs(step: Iterable[tf.Operation]) -> Iterator[Cost]:
    """Of each operation that takes time, also of those in loops, as often as they run.

    What XLA compiles is one operation: what it computes on the way stays in the processor.
    """
    for op in step:
        called = called_graph(op)
        if called is None:
            flops, moved = product_flops(op), moved_bytes(op)
            if flops or moved:
                yield Cost(flops, moved, op.type, _elements(op))
        elif is_cluster(op):
            inner = operations(called)
            yield Cost(sum(n * product_flops(one) for one, n in inner), moved_bytes(op))
        else:
            yield from list(costs(called.get_operations())) * iterations(op)


def is_cluster(op: tf.Operation) -> bool:
    """Whether an operation calls a function that XLA compiles."""
    try:
        return bool(op.get_attr("_XlaMustCompile"))
    except ValueError:  # an attribute that it has not
        return False


def peak_bytes(step: Iterable[tf.Operation], outside: Iterable[str] = ()) -> int:
    """The most bytes that are alive at once when operations run in this order.

    A tensor lives until its last reader is done. An elementwise operation writes over an input of
    its size that dies with it, as TensorFlow's kernels do. While a loop or a function runs, what
    is alive in it counts too, but for what XLA compiles: there it stays in the processor. A list
    that a loop fills counts whole, from before the loop on.

    Args:
        step: In an order in which they can run.
        outside: Names of tensors that are counted elsewhere.
    """
    order = list(step)
    storage, last = _places(order)
    lists = _lists(order, storage)
    uncounted = {storage.get(name, name) for name in outside}
    alive: dict[str, int] = {}
    now = most = 0
    for i, op in enumerate(order):
        called = called_graph(op)
        if called is not None and not is_cluster(op):
            most = max(most, now + peak_bytes(called.get_operations()))
        places = [storage[tensor.name] for tensor in op.inputs]
        dying = {place for place in places if last[place] == i and place in alive}
        for tensor in op.outputs:
            place = storage[tensor.name]
            size = lists.get(place) or _bytes(tensor)
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


def _places(order: list[tf.Operation]) -> tuple[dict[str, str], dict[str, int]]:
    """Of each tensor where it is stored, as the first tensor there; when a place is read last."""
    storage: dict[str, str] = {}
    last = {}
    for i, op in enumerate(order):
        for j, tensor in enumerate(op.outputs):
            first = op.inputs[j] if op.type in _SAME and j < len(op.inputs) else tensor
            storage[tensor.name] = storage.setdefault(first.name, first.name)
        for tensor in op.inputs:
            last[storage.setdefault(tensor.name, tensor.name)] = i
    return storage, last


def _lists(order: list[tf.Operation], storage: dict[str, str]) -> dict[str, int]:
    """Bytes of the lists that loops fill, by their places: those of what they are made into."""
    return {
        storage[op.inputs[0].name]: _bytes(op.outputs[0])
        for op in order
        if op.type == "TensorListStack"
    }


def moved_bytes(op: tf.Operation) -> int:
    """What an operation reads and writes; 0 if it only gives a tensor another shape."""
    if op.type in _SAME or op.type in _OUTSIDE or op.type in _SHAPES:
        return 0
    written = sum(map(_bytes, op.outputs))
    return 2 * written if op.type in _PARTS else written + sum(map(_bytes, op.inputs))


def _elements(op: tf.Operation) -> int:
    return (op.outputs[0].shape.num_elements() or 0) if op.outputs else 0


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
