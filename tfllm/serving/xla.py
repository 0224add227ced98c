"""Which outputs of a model need XLA, which the stock server has switched off.

TensorFlow in Python would compile and answer; a client that worked here would fail in production.
"""

from __future__ import annotations

from collections.abc import Iterable

from tensorflow.core.framework import attr_value_pb2, function_pb2, graph_pb2, node_def_pb2

MUST_COMPILE = "_XlaMustCompile"  # what tf.function(jit_compile=True) leaves in the graph


def tensors_under_xla(graph_def: graph_pb2.GraphDef, tensor_names: Iterable[str]) -> set[str]:
    """Those of the tensors that cannot be computed without compiling something."""
    compiled = _compiled_functions(graph_def.library)
    if not compiled:
        return set()
    nodes = {node.name: node for node in graph_def.node}
    return {
        name
        for name in tensor_names
        if any(_is_compiled(node, compiled) for node in _needed(nodes, _node_name(name)))
    }


def _compiled_functions(library: function_pb2.FunctionDefLibrary) -> set[str]:
    """Functions that are to be compiled and those that call one, however deep."""
    compiled = {f.signature.name for f in library.function if _is_marked(f)}
    size = None
    while compiled and size != len(compiled):
        size = len(compiled)
        compiled |= {
            function.signature.name
            for function in library.function
            if any(_is_compiled(node, compiled) for node in function.node_def)
        }
    return compiled


def _is_marked(function: function_pb2.FunctionDef) -> bool:
    # `attr[…]` would add the attribute to the graph that is imported after this.
    return MUST_COMPILE in function.attr and function.attr[MUST_COMPILE].b


def _is_compiled(node: node_def_pb2.NodeDef, compiled: set[str]) -> bool:
    return any(name in compiled for attr in node.attr.values() for name in _functions(attr))


def _functions(attr: attr_value_pb2.AttrValue) -> list[str]:
    return [attr.func.name, *(func.name for func in attr.list.func)]


def _needed(nodes: dict[str, node_def_pb2.NodeDef], name: str) -> list[node_def_pb2.NodeDef]:
    """The node of that name and all that it depends on."""
    seen: dict[str, node_def_pb2.NodeDef] = {}
    waiting = [name]
    while waiting:
        name = waiting.pop()
        if name in nodes and name not in seen:
            seen[name] = nodes[name]
            waiting.extend(map(_node_name, nodes[name].input))
    return list(seen.values())


def _node_name(tensor_name: str) -> str:
    return tensor_name.removeprefix("^").split(":")[0]
