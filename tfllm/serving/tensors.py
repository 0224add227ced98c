"""`TensorProto` to numpy and back, by the rules of the stock server.

Source:
    tensorflow/core/framework/tensor.cc (`Tensor::FromProto`, `Tensor::AsProtoField`) and
    tensorflow/core/lib/strings/coding (the list of strings in `tensor_content`), read for the
    behaviour: no values mean zeros, fewer values repeat the last one, surplus ones are dropped.
"""

from __future__ import annotations

import math

import ml_dtypes
import numpy as np
from tensorflow.core.framework import tensor_pb2, types_pb2

_FIELDS = {
    types_pb2.DT_FLOAT: (np.float32, "float_val"),
    types_pb2.DT_DOUBLE: (np.float64, "double_val"),
    types_pb2.DT_INT32: (np.int32, "int_val"),
    types_pb2.DT_INT16: (np.int16, "int_val"),
    types_pb2.DT_INT8: (np.int8, "int_val"),
    types_pb2.DT_UINT8: (np.uint8, "int_val"),
    types_pb2.DT_UINT16: (np.uint16, "int_val"),
    types_pb2.DT_UINT32: (np.uint32, "uint32_val"),
    types_pb2.DT_INT64: (np.int64, "int64_val"),
    types_pb2.DT_UINT64: (np.uint64, "uint64_val"),
    types_pb2.DT_BOOL: (np.bool_, "bool_val"),
    types_pb2.DT_STRING: (np.object_, "string_val"),
    types_pb2.DT_HALF: (np.float16, "half_val"),
    types_pb2.DT_BFLOAT16: (ml_dtypes.bfloat16, "half_val"),
    types_pb2.DT_COMPLEX64: (np.complex64, "scomplex_val"),
    types_pb2.DT_COMPLEX128: (np.complex128, "dcomplex_val"),
}
_NUMBERS = {np.dtype(dtype): number for number, (dtype, _) in _FIELDS.items()}

# A shape is a few bytes and can ask for any amount of memory. No message carries more than 2 GiB,
# so nobody who sends the values is refused by half of that.
MAX_TENSOR_BYTES = 2**30
# What may be made of values that are not sent: their last one is repeated, or they are zeros.
MAX_FILLED_BYTES = 2**24
MAX_DIMENSIONS = 254  # tensorflow::TensorShape::MaxDimensions()


def dtype_name(number: int) -> str:
    """TensorFlow's name of a `DataType`: DT_FLOAT is "float32", DT_STRING is "string"."""
    if number == types_pb2.DT_STRING:
        return "string"
    if number in _FIELDS:
        return np.dtype(_FIELDS[number][0]).name
    return types_pb2.DataType.Name(number)


def dtype_number(dtype: np.dtype) -> int:
    """TensorFlow's `DataType` of what a session returned: DT_INT64, DT_STRING for bytes objects."""
    return types_pb2.DT_STRING if dtype.kind == "S" else _NUMBERS.get(dtype, types_pb2.DT_INVALID)


def numpy_dtype(name: str) -> np.dtype:
    """The numpy dtype for a name that `dtype_name` gave; strings are arrays of bytes objects."""
    return np.dtype(object) if name == "string" else np.dtype(name)


def decode(proto: tensor_pb2.TensorProto) -> np.ndarray:
    """The array of a `TensorProto`; strings are bytes objects in an object array.

    Raises:
        ValueError: negative dimension, more than `MAX_DIMENSIONS`, a dtype that cannot be sent,
            `tensor_content` of the wrong length, more than `MAX_TENSOR_BYTES`, or more than
            `MAX_FILLED_BYTES` without all values.
    """
    if len(proto.tensor_shape.dim) > MAX_DIMENSIONS:
        raise ValueError(f"{len(proto.tensor_shape.dim)} dimensions are too many")
    shape = [d.size for d in proto.tensor_shape.dim]
    if any(size < 0 for size in shape):
        raise ValueError(f"negative dimension in {shape}")
    if proto.dtype not in _FIELDS:
        raise ValueError(f"cannot decode dtype {proto.dtype}")
    dtype, field = _FIELDS[proto.dtype]
    dtype = np.dtype(dtype)
    count = math.prod(shape)
    if count * dtype.itemsize > MAX_TENSOR_BYTES:
        raise ValueError(f"shape {shape} is larger than {MAX_TENSOR_BYTES} bytes")
    if count == 0:
        return np.zeros(shape, dtype)
    if proto.tensor_content:
        if dtype.kind == "O":
            values = _split_strings(proto.tensor_content, count)
        else:
            values = np.frombuffer(proto.tensor_content, dtype)
            if values.size != count:
                raise ValueError(f"{values.size} values for shape {shape}")
    else:
        values = _field_values(getattr(proto, field), field, dtype, count)
        if values.size < count and count * dtype.itemsize > MAX_FILLED_BYTES:
            raise ValueError(f"{values.size} values for shape {shape}")
        values = _filled(values, count)
    return values.reshape(shape)


def encode(
    value: np.ndarray | np.generic | bytes, into: tensor_pb2.TensorProto | None = None
) -> tensor_pb2.TensorProto:
    """The `TensorProto` of an array, in typed fields and never in `tensor_content`.

    Args:
        value: An array or a scalar; strings are bytes.
        into: An empty message to fill, for instance the one in a response.

    Raises:
        ValueError: the array's dtype cannot be sent.
    """
    # np.asarray(b"a\0") would be a fixed-width string that loses its last zeros.
    array = np.asarray(value, dtype=object if isinstance(value, bytes) else None)
    if array.dtype not in _NUMBERS:
        raise ValueError(f"cannot send an array of dtype {array.dtype}")
    number = _NUMBERS[array.dtype]
    field = _FIELDS[number][1]
    flat = array.ravel()
    if field == "half_val":
        flat = flat.view(np.uint16)
    elif field in ("scomplex_val", "dcomplex_val"):
        flat = flat.view(flat.real.dtype)  # real and imaginary parts in turns
    proto = tensor_pb2.TensorProto() if into is None else into
    proto.dtype = number
    proto.tensor_shape.SetInParent()  # a scalar's shape is there, without dimensions
    for size in array.shape:
        proto.tensor_shape.dim.add(size=size)
    getattr(proto, field).extend(flat.tolist())
    return proto


def _field_values(sent, field: str, dtype: np.dtype, count: int) -> np.ndarray:
    """At most `count` values of a typed field."""
    if dtype.kind == "O":
        values = np.empty(min(len(sent), count), object)
        values[:] = sent[:count]
        return values
    if field == "half_val":
        return np.array(sent[:count], np.int32).astype(np.uint16).view(dtype)
    if field in ("scomplex_val", "dcomplex_val"):
        parts = np.array(sent[: 2 * count], dtype.type(0).real.dtype)
        return parts[: parts.size // 2 * 2].view(dtype)
    if field == "int_val":
        return np.array(sent[:count], np.int32).astype(dtype)
    return np.array(sent[:count], dtype)


def _filled(values: np.ndarray, count: int) -> np.ndarray:
    """`values` continued to `count` with its last one, or with the dtype's zero."""
    if values.size == count:
        return values
    zero = b"" if values.dtype == object else 0
    filled = np.full(count, values[-1] if values.size else zero, values.dtype)
    filled[: values.size] = values
    return filled


def _split_strings(content: bytes, count: int) -> np.ndarray:
    """`count` strings: their lengths as varints, then their bytes, and nothing after that."""
    sizes, at = [], 0
    for _ in range(count):
        size = shift = 0
        while True:
            if at >= len(content) or shift > 28:
                raise ValueError("the lengths of the strings are cut short")
            byte = content[at]
            at += 1
            size |= (byte & 0x7F) << shift
            shift += 7
            if byte < 0x80:
                break
        sizes.append(size)
    if at + sum(sizes) != len(content):
        raise ValueError(f"{len(content) - at} bytes for strings of {sum(sizes)}")
    strings = np.empty(count, object)
    for i, size in enumerate(sizes):
        strings[i] = content[at : at + size]
        at += size
    return strings
