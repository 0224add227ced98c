"""`TensorProto` both ways, held against TensorFlow's own."""

import ml_dtypes
import numpy as np
import pytest
import tensorflow as tf
from tensorflow.core.framework import tensor_pb2, types_pb2

from tfllm.serving.tensors import MAX_TENSOR_BYTES, decode, dtype_name, encode, numpy_dtype

ARRAYS = [
    np.array([[1.5, -2.0], [np.inf, 0.1]], np.float32),
    np.array([1e300], np.float64),
    np.array([-1.5, 65504], np.float16),
    np.array([1.5, -3e38], ml_dtypes.bfloat16),
    np.array([-(2**31), 2**31 - 1], np.int32),
    np.array([-(2**63), 2**63 - 1], np.int64),
    np.array([2**32 - 1], np.uint32),
    np.array([2**64 - 1], np.uint64),
    np.array([-128, 127], np.int8),
    np.array([0, 255], np.uint8),
    np.array([-(2**15)], np.int16),
    np.array([2**16 - 1], np.uint16),
    np.array([True, False]),
    np.array([1 + 2j, -3j], np.complex64),
    np.array([1e300 - 2j], np.complex128),
    np.array([[b"a\0", b""], ["é".encode(), b"\xff"]], object),
    np.array(7, np.int32),
    np.zeros([0, 3], np.float32),
]


@pytest.mark.parametrize("array", ARRAYS, ids=lambda a: f"{a.dtype}{list(a.shape)}")
def test_encode_fills_typed_fields_that_tensorflow_and_decode_read_back(array):
    proto = encode(array)

    assert not proto.tensor_content
    for back in (tf.make_ndarray(proto), decode(proto)):
        assert back.dtype == array.dtype
        np.testing.assert_array_equal(back, array)


@pytest.mark.parametrize("array", ARRAYS, ids=lambda a: f"{a.dtype}{list(a.shape)}")
def test_decode_reads_what_tensorflow_writes_as_tensor_content(array):
    dtype = tf.string if array.dtype == object else array.dtype
    proto = tf.make_tensor_proto(array, dtype)

    np.testing.assert_array_equal(decode(proto), array)


def test_strings_in_tensor_content_are_split_by_their_lengths():
    long = b"x" * 300  # a length of two bytes
    content = b"\x02\x00\xac\x02" + b"ab" + long
    proto = tensor_pb2.TensorProto(dtype=types_pb2.DT_STRING, tensor_content=content)
    proto.tensor_shape.dim.add(size=3)

    assert decode(proto).tolist() == [b"ab", b"", long]


def test_a_scalar_string_keeps_its_last_zero_bytes():
    assert encode(b"a\0").string_val == [b"a\0"]
    assert encode(b"a\0").HasField("tensor_shape")


@pytest.mark.parametrize(
    ("sent", "expected"),
    [
        ([1.5], [1.5, 1.5, 1.5]),
        ([1.0, 2.0], [1.0, 2.0, 2.0]),
        ([1.0, 2.0, 3.0, 4.0], [1.0, 2.0, 3.0]),
        ([], [0.0, 0.0, 0.0]),
    ],
)
def test_fewer_values_repeat_the_last_and_surplus_ones_are_dropped(sent, expected):
    proto = tensor_pb2.TensorProto(dtype=types_pb2.DT_FLOAT, float_val=sent)
    proto.tensor_shape.dim.add(size=3)

    assert decode(proto).tolist() == expected


def test_no_strings_at_all_are_empty_strings():
    proto = tensor_pb2.TensorProto(dtype=types_pb2.DT_STRING)
    proto.tensor_shape.dim.add(size=2)

    assert decode(proto).tolist() == [b"", b""]


def _proto(size, **fields):
    proto = tensor_pb2.TensorProto(**fields)
    proto.tensor_shape.dim.add(size=size)
    return proto


@pytest.mark.parametrize(
    ("proto", "words"),
    [
        (_proto(-1, dtype=types_pb2.DT_FLOAT), "negative dimension"),
        (_proto(1), "cannot decode dtype 0"),
        (_proto(1, dtype=types_pb2.DT_RESOURCE), "cannot decode dtype"),
        (_proto(2, dtype=types_pb2.DT_FLOAT, tensor_content=b"1234"), "1 values for shape"),
        (_proto(2, dtype=types_pb2.DT_FLOAT, tensor_content=b"12345"), "multiple"),
        (_proto(2, dtype=types_pb2.DT_STRING, tensor_content=b"\x01"), "cut short"),
        (_proto(1, dtype=types_pb2.DT_STRING, tensor_content=b"\xff" * 9), "cut short"),
        (
            _proto(1, dtype=types_pb2.DT_STRING, tensor_content=b"\x01ab"),
            "2 bytes for strings of 1",
        ),
        (_proto(MAX_TENSOR_BYTES, dtype=types_pb2.DT_FLOAT, float_val=[1]), "is larger than"),
    ],
)
def test_what_is_no_tensor_is_refused(proto, words):
    with pytest.raises(ValueError, match=words):
        decode(proto)


def test_an_array_that_no_field_can_hold_is_refused():
    with pytest.raises(ValueError, match=r"cannot send an array of dtype datetime64"):
        encode(np.array(["2026-01-01"], "datetime64[D]"))


def test_dtypes_have_tensorflows_names():
    for name in ("float32", "bfloat16", "bool", "int64", "string"):
        assert dtype_name(tf.as_dtype(name).as_datatype_enum) == name
        assert numpy_dtype(name) == tf.as_dtype(name).as_numpy_dtype
    assert dtype_name(types_pb2.DT_VARIANT) == "DT_VARIANT"
