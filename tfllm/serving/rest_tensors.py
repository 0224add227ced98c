"""Tensors as JSON: nested lists, and `{"b64": ...}` for bytes.

Source:
    tensorflow_serving/util/json_tensor.cc, read for the behaviour and the texts.
"""

from __future__ import annotations

import base64
import binascii
import itertools
import re
from collections.abc import Sequence
from typing import Any

import numpy as np
from tensorflow.core.framework import tensor_pb2, types_pb2

from tfllm.serving.rest_json import decimals, invalid, quoted, string, too_big, type_name, utf8
from tfllm.serving.status import Code, ServingError
from tfllm.serving.tensors import decode, numpy_dtype

BASE64 = "b64"
# Strings of an output with such a name are bytes: nothing else in a signature tells them apart.
BYTES_SUFFIX = "_bytes"

_INT32 = np.iinfo(np.int32)
# By dtype, the integers that the server takes; it does not look whether a narrower one fits.
_INTEGERS: dict[int, np.iinfo] = {
    types_pb2.DT_INT8: _INT32,
    types_pb2.DT_INT16: _INT32,
    types_pb2.DT_INT32: _INT32,
    types_pb2.DT_UINT8: _INT32,
    types_pb2.DT_INT64: np.iinfo(np.int64),
    types_pb2.DT_UINT32: np.iinfo(np.uint32),
    types_pb2.DT_UINT64: np.iinfo(np.uint64),
}
# The whole numbers that a float holds without loss, by how wide its fraction is.
_FLOATS = {types_pb2.DT_FLOAT: (np.float32, 2**24 - 1), types_pb2.DT_DOUBLE: (float, 2**53 - 1)}


def is_base64(value: Any) -> bool:
    """Whether a JSON value stands for bytes."""
    return isinstance(value, dict) and len(value) == 1 and isinstance(value.get(BASE64), str)


def from_base64(value: Any) -> bytes:
    """The bytes that `{"b64": ...}` holds; spaces and the padding are optional.

    Raises:
        ServingError: INVALID_ARGUMENT for another value or what is no base64.
    """
    if not is_base64(value):
        message = f"JSON Value: {quoted(value)} not formatted correctly for base64 data"
        raise invalid(message)
    try:
        data = re.sub(rb"\s", b"", utf8(value[BASE64]))
        missing = b"" if data.endswith(b"=") else b"=" * (-len(data) % 4)
        return base64.b64decode(data + missing, validate=True)
    except binascii.Error:
        raise invalid("Unable to base64 decode") from None


def flatten(value: Any, dtype: int) -> tuple[list[int], list[Any]]:
    """The shape of nested lists and their values in row-major order, not yet looked at.

    Raises:
        ServingError: INVALID_ARGUMENT for lists of different lengths or depths.
    """
    shape: list[int] = []
    level = [value]
    while level and type(level[0]) is list:
        size = len(level[0])
        if any(type(item) is not list or len(item) != size for item in level):
            break
        shape.append(size)
        level = list(itertools.chain.from_iterable(level))
    if any(type(item) is list for item in level):
        raise _misfit(value, dtype)
    return shape, level


def tensor(values: Sequence[Any], shape: Sequence[int], dtype: int) -> tensor_pb2.TensorProto:
    """The tensor of JSON values.

    Raises:
        ServingError: INVALID_ARGUMENT for a value that is not of the dtype or would be changed by
            it, UNIMPLEMENTED for a dtype that JSON has no values for.
    """
    proto = tensor_pb2.TensorProto(dtype=dtype)
    proto.tensor_shape.SetInParent()
    for size in shape:
        proto.tensor_shape.dim.add(size=size)
    if dtype == types_pb2.DT_STRING:
        proto.string_val.extend([_bytes(value) for value in values])
    else:
        proto.tensor_content = _numbers(values, dtype).tobytes()
    return proto


def texts(proto: tensor_pb2.TensorProto, name: str) -> list[str]:
    """The values of an output as JSON.

    Raises:
        ServingError: INVALID_ARGUMENT for a dtype that is not written.
    """
    values = decode(proto).ravel()
    if proto.dtype == types_pb2.DT_STRING:
        if name.endswith(BYTES_SUFFIX):
            return [f'{{"{BASE64}": "{base64.b64encode(v).decode()}"}}' for v in values]
        return [string(value) for value in values]
    if proto.dtype in _FLOATS:
        return decimals(values)
    if proto.dtype == types_pb2.DT_BOOL:
        return ["true" if value else "false" for value in values.tolist()]
    if proto.dtype in _INTEGERS:
        return [str(value) for value in values.tolist()]
    raise invalid(f"Failed to write JSON value for tensor type: {type_text(proto.dtype)}")


def type_text(dtype: int) -> str:
    """What the stock server calls a dtype: DT_FLOAT is "float"."""
    return types_pb2.DataType.Name(dtype).removeprefix("DT_").lower()


def _numbers(values: Sequence[Any], dtype: int) -> np.ndarray:
    if dtype in _FLOATS:
        return _floats(values, dtype)
    if dtype == types_pb2.DT_BOOL:
        _check_types(values, {bool}, dtype)
        return np.array(values, np.bool_)
    if dtype in _INTEGERS:
        return _integers(values, dtype)
    if values:
        message = f"Conversion of JSON Value: {quoted(values[0])} to type: {type_text(dtype)}"
        raise ServingError(Code.UNIMPLEMENTED, message)
    return np.zeros(0)


def _integers(values: Sequence[Any], dtype: int) -> np.ndarray:
    limits = _INTEGERS[dtype]
    _check_types(values, {int}, dtype)
    if values and not limits.min <= min(values) <= max(values) <= limits.max:
        outside = next(value for value in values if not limits.min <= value <= limits.max)
        raise _wrong_type(outside, dtype)
    return np.array(values, limits.dtype).astype(numpy_dtype(type_text(dtype)))


def _check_types(values: Sequence[Any], expected: set[type], dtype: int) -> None:
    if set(map(type, values)) - expected:
        wrong = next(value for value in values if type(value) not in expected)
        raise _wrong_type(wrong, dtype)


def _floats(values: Sequence[Any], dtype: int) -> np.ndarray:
    kind, max_whole = _FLOATS[dtype]
    _check_types(values, {int, float}, dtype)
    try:
        wide = np.array(values, np.float64)
    except OverflowError:
        raise too_big() from None
    is_large = np.isfinite(wide) & (np.abs(wide) > max_whole)
    for i in np.flatnonzero(is_large).tolist():
        if not _is_lossless(values[i], kind, max_whole):
            message = f"Cannot convert JSON value: {quoted(values[i])} to {type_text(dtype)}"
            raise invalid(message + " without loss of precision.")
    with np.errstate(over="ignore"):
        return wide.astype(kind)


def _is_lossless(value: float, kind: type, max_whole: int) -> bool:
    if isinstance(value, int) and -(2**63) <= value < 2**64:
        return abs(value) <= max_whole
    return abs(value) <= float(np.finfo(kind).max)


def _bytes(value: Any) -> bytes:
    if type(value) is str:
        return utf8(value)
    if type(value) is dict:
        return from_base64(value)
    raise _wrong_type(value, types_pb2.DT_STRING)


def _wrong_type(value: Any, dtype: int) -> ServingError:
    return invalid(
        f"JSON Value: {quoted(value)} Type: {type_name(value)} is not of expected type: "
        f"{type_text(dtype)}"
    )


def _misfit(value: Any, dtype: int) -> ServingError:
    """What is wrong first in lists that are no tensor; their first elements give the shape."""
    shape, first = [], value
    while type(first) is list:
        shape.append(len(first))
        if not first:
            break
        first = first[0]
    waiting = [(value, 0)]
    while waiting:
        item, level = waiting.pop()
        if type(item) is not list:
            if level != len(shape):
                return invalid(
                    f"JSON Value: {quoted(item)} found at incorrect level: {level + 1} in the JSON "
                    f"DOM. Expected at level: {len(shape)}"
                )
            tensor([item], [], dtype)
        elif level >= len(shape):
            return invalid(f"Encountered list at unexpected level: {level} expected < {len(shape)}")
        elif len(item) != shape[level]:
            return invalid(
                f"Encountered list at unexpected size: {len(item)} at level: {level} "
                f"expected size: {shape[level]}"
            )
        else:
            waiting.extend((inner, level + 1) for inner in reversed(item))
    raise AssertionError("the lists are regular")
