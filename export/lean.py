"""A graph without what no server needs: while one loads it, it makes several copies of it."""

from collections.abc import Callable, MutableMapping, MutableSequence

from tensorflow.core.framework import function_pb2, node_def_pb2
from tensorflow.core.protobuf import meta_graph_pb2

_SHAPES = "_output_shapes"


def make_lean(meta_graph: meta_graph_pb2.MetaGraphDef) -> None:
    """Leaves what its signatures and the reading of variables need, and each constant once.

    What writes variables goes, and the notes of shapes, which follow from those of the arguments
    of functions. What the signatures compute stays the same.

    Args:
        meta_graph: Of an object with signatures and without assets; changed in place.
    """
    graph, saver = meta_graph.graph_def, meta_graph.saver_def
    ends = [saver.restore_op_name, saver.filename_tensor_name]
    for signature in meta_graph.signature_def.values():
        ends += [info.name for info in (*signature.inputs.values(), *signature.outputs.values())]
    _keep(graph, "node", _reached(graph.node, map(_node_of, ends)))
    functions = {function.signature.name: function for function in graph.library.function}
    called: set[str] = set()
    # What Python's loader restores, too.
    waiting = [*_calls(graph.node), *meta_graph.object_graph_def.concrete_functions]
    while waiting:
        if (name := waiting.pop()) not in called:
            called.add(name)
            waiting.extend(_calls(functions[name].node_def))
    _keep(graph.library, "function", lambda function: function.signature.name in called)
    for function in graph.library.function:
        for node in function.node_def:
            node.attr.pop(_SHAPES, None)
        _share_constants(function)


def _reached(nodes, ends) -> Callable[[node_def_pb2.NodeDef], bool]:
    """Whether a node is one of those that the ends are made of."""
    inputs = {node.name: map(_node_of, node.input) for node in nodes}
    found: set[str] = set()
    waiting = list(ends)
    while waiting:
        if (name := waiting.pop()) not in found:
            found.add(name)
            waiting.extend(inputs[name])
    return lambda node: node.name in found


def _calls(nodes) -> set[str]:
    """Names of the functions that nodes call."""
    values = [value for node in nodes for value in node.attr.values()]
    return {
        function.name
        for value in values
        for function in (*([value.func] if value.HasField("func") else []), *value.list.func)
    }


def _share_constants(function: function_pb2.FunctionDef) -> None:
    first: dict[bytes, str] = {}
    instead: dict[str, str] = {}
    for node in function.node_def:
        if node.op == "Const":
            unnamed = node_def_pb2.NodeDef()
            unnamed.CopyFrom(node)
            unnamed.ClearField("name")
            known = first.setdefault(unnamed.SerializeToString(deterministic=True), node.name)
            if known != node.name:
                instead[node.name] = known
    _keep(function, "node_def", lambda node: node.name not in instead)
    for node in function.node_def:
        _rename(node.input, range(len(node.input)), instead)
    _rename(function.ret, list(function.ret), instead)
    _rename(function.control_ret, list(function.control_ret), instead)


def _rename(
    ends: MutableSequence[str] | MutableMapping[str, str], keys, instead: dict[str, str]
) -> None:
    """Puts other nodes into some ends of edges."""
    for key in keys:
        node = _node_of(ends[key])
        if node in instead:
            ends[key] = ends[key].replace(node, instead[node], 1)


def _node_of(end: str) -> str:
    """The node of an end of an edge: "node", "node:output:0" or "^node"."""
    return end.removeprefix("^").partition(":")[0]


def _keep(message, field: str, condition: Callable) -> None:
    """Leaves the elements of a repeated field for which the condition holds."""
    elements = getattr(message, field)
    kept = type(message)(**{field: [element for element in elements if condition(element)]})
    message.ClearField(field)
    getattr(message, field).extend(getattr(kept, field))
