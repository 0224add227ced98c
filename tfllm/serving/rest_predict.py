"""Predict as JSON: rows under "instances" and "predictions", columns under "inputs" and "outputs".

An input with a default must be sent, too: the stock server fills defaults in over gRPC alone.

Source:
    tensorflow_serving/util/json_tensor.cc, read for the behaviour and the texts.
"""

from __future__ import annotations

import enum
from collections.abc import Mapping
from typing import Any

from tensorflow.core.framework import tensor_pb2
from tensorflow.core.protobuf import meta_graph_pb2

from tfllm.serving.rest_json import invalid, nested, quoted, string
from tfllm.serving.rest_tensors import flatten, is_base64, tensor, texts
from tfllm.serving.status import ServingError

INSTANCES, INPUTS = "instances", "inputs"
PREDICTIONS, OUTPUTS = "predictions", "outputs"

Infos = Mapping[str, meta_graph_pb2.TensorInfo]
Tensors = dict[str, tensor_pb2.TensorProto]


class Form(enum.Enum):
    """How a request holds its tensors, and so how the answer does."""

    ROWS = "rows"
    COLUMNS = "columns"


def tensors_of(document: Mapping[str, Any], infos: Infos) -> tuple[Tensors, Form]:
    """The inputs of a request.

    Args:
        document: The request's body.
        infos: The signature's inputs by name, at least one.

    Raises:
        ServingError: INVALID_ARGUMENT for what is not of this form, UNIMPLEMENTED for an input of a
            dtype that JSON has no values for.
    """
    if INSTANCES not in document:
        if INPUTS not in document:
            raise invalid("Missing 'inputs' or 'instances' key")
        return _columns(document[INPUTS], infos), Form.COLUMNS
    if INPUTS in document:
        raise invalid(
            f"JSON Value: {quoted(document)} Not formatted correctly expecting only one of "
            f"'{INPUTS}' or '{INSTANCES}' keys to exist "
        )
    instances = document[INSTANCES]
    if not isinstance(instances, list):
        message = f"JSON Value: {quoted(document)} Excepting '{INSTANCES}' to be an list/array"
        raise invalid(message)
    if not instances:
        raise invalid(f"JSON Value: {quoted(document)} No values in '{INSTANCES}' array")
    return _rows(instances, infos), Form.ROWS


def body_of(outputs: Mapping[str, tensor_pb2.TensorProto], form: Form) -> str:
    """The answer: one output by itself, several by name.

    Raises:
        ServingError: INVALID_ARGUMENT for outputs that are no rows, or a dtype that is not written.
    """
    if not outputs:
        raise invalid("Cannot convert empty tensor map to JSON")
    if form is Form.COLUMNS:
        columns = {
            name: nested(texts(proto, name), _shape(proto))[0]
            for name, proto in sorted(outputs.items())
        }
        return f'{{\n    "{OUTPUTS}": {_object(columns)}\n}}'
    num_rows = -1
    for name, proto in sorted(outputs.items()):
        if not proto.tensor_shape.dim:
            raise invalid(f"Tensor name: {name} has no shape information ")
        size = proto.tensor_shape.dim[0].size
        if num_rows not in (-1, size):
            raise invalid(
                f"Tensor name: {name} has inconsistent batch size: {size} expecting: {num_rows}"
            )
        num_rows = size
    columns_of_rows = {
        name: nested(texts(proto, name), _shape(proto), first=1)
        for name, proto in sorted(outputs.items())
    }
    rows = [
        _object({name: column[row] for name, column in columns_of_rows.items()})
        for row in range(num_rows)
    ]
    return f'{{\n    "{PREDICTIONS}": [' + ", ".join(rows) + "\n    ]\n}"


def _columns(found: Any, infos: Infos) -> Tensors:
    if not isinstance(found, dict) or is_base64(found):
        if len(infos) > 1:
            raise invalid(
                "inputs is a plain value/list, but expecting an object as multiple input tensors "
                "required as per tensorinfo_map"
            )
        found = dict.fromkeys(infos, found)
    tensors = {}
    for name, info in sorted(infos.items()):
        if name not in found:
            raise invalid(f"Missing named input: {name} in 'inputs' object.")
        shape, values = flatten(found[name], info.dtype)
        tensors[name] = tensor(values, shape, info.dtype)
    return tensors


def _rows(instances: list[Any], infos: Infos) -> Tensors:
    if not isinstance(instances[0], dict) and len(infos) > 1:
        raise invalid(
            "instances is a plain list, but expecting list of objects as multiple input tensors "
            "required as per tensorinfo_map"
        )
    if not _is_named(instances[0]):
        for row, instance in enumerate(instances):
            if _is_named(instance):
                raise invalid(f"Expecting value/list but got object at item {row} of input list")
        name = min(infos)
        return {name: _stacked(instances, infos[name], "Failed to process element: {row}")}
    for row, instance in enumerate(instances):
        if not _is_named(instance):
            raise invalid(f"Expecting object but got list at item {row} of input list")
        for name in instance.keys() - infos.keys():
            raise _failed(
                f"Failed to process element: {row} key: {name}",
                invalid(f"JSON object: does not have named input: {name}"),
            )
        if instance.keys() != infos.keys():
            raise invalid(
                f"Failed to process element: {row} of 'instances' list. JSON object: "
                f"{quoted(instance)} keys must be equal to: {','.join(sorted(infos))}"
            )
    return {
        name: _stacked(
            [instance[name] for instance in instances],
            info,
            f"Failed to process element: {{row}} key: {name}",
        )
        for name, info in infos.items()
    }


def _stacked(
    items: list[Any], info: meta_graph_pb2.TensorInfo, where: str
) -> tensor_pb2.TensorProto:
    """One tensor of the rows' values, which must be alike in shape."""
    stacked: list[Any] = []
    first: list[int] = []
    for row, item in enumerate(items):
        try:
            shape, values = flatten(item, info.dtype)
            if row == 0:
                first, size = shape, len(values)
            elif len(values) != size:
                raise invalid(f"Expecting tensor size: {size} but got: {len(values)}")
            elif shape != first:
                raise invalid(f"Expecting shape {_listed(first)} but got: {_listed(shape)}")
        except ServingError as error:
            raise _failed(where.replace("{row}", str(row)), error) from None
        stacked.extend(values)
    try:
        return tensor(stacked, [len(items), *first], info.dtype)
    except ServingError:
        for row, item in enumerate(items):
            try:
                tensor(flatten(item, info.dtype)[1], [], info.dtype)
            except ServingError as error:
                raise _failed(where.replace("{row}", str(row)), error) from None
        raise


def _failed(where: str, error: ServingError) -> ServingError:
    return invalid(f"{where} of 'instances' list. Error: {error.code.name}: {error.message}")


def _is_named(instance: Any) -> bool:
    return isinstance(instance, dict) and not is_base64(instance)


def _object(columns: Mapping[str, str]) -> str:
    """The texts of values by name; a single one stands for itself."""
    if len(columns) == 1:
        return next(iter(columns.values()))
    return "{" + ", ".join(f"{string(name)}: {text}" for name, text in columns.items()) + "}"


def _shape(proto: tensor_pb2.TensorProto) -> list[int]:
    return [dim.size for dim in proto.tensor_shape.dim]


def _listed(shape: list[int]) -> str:
    return "[" + ",".join(map(str, shape)) + "]"
