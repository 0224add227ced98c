"""Requests that no client of ours would send: each gets a code, and the server goes on."""

import random
import socket

import grpc
import numpy as np
import pytest
from tensorflow.core.framework import tensor_pb2, types_pb2
from tensorflow_serving.apis import (
    get_model_metadata_pb2,
    get_model_status_pb2,
    predict_pb2,
)

from tfllm.serving import BatchingParameters, Client, Server
from tfllm.serving.tensors import encode

PREDICT = "/tensorflow.serving.PredictionService/Predict"
METADATA = "/tensorflow.serving.PredictionService/GetModelMetadata"
STATUS = "/tensorflow.serving.ModelService/GetModelStatus"
CLIENTS_FAULT = {
    grpc.StatusCode.OK,
    grpc.StatusCode.INVALID_ARGUMENT,
    grpc.StatusCode.NOT_FOUND,
    grpc.StatusCode.FAILED_PRECONDITION,
    grpc.StatusCode.UNIMPLEMENTED,
}
NAMES = ("", "vec", "x", "n", "text", "seed", "y", "opt", "serving_default", "\U0001f40d" * 3000)
SIZES = (-(2**63), -1, 0, 1, 2, 3, 1000, 2**31, 2**62, 2**63 - 1)
DTYPES = (0, 99, 101, *types_pb2.DataType.values())


def good_request():
    request = predict_pb2.PredictRequest()
    request.model_spec.name = "vec"
    encode(np.ones([2, 2], np.float32), into=request.inputs["x"])
    encode(np.array([1, 2], np.int32), into=request.inputs["n"])
    return request


def tensor(chance):
    """Any tensor: the dtype, the shape and the values have nothing to do with each other."""
    proto = tensor_pb2.TensorProto(dtype=chance.choice(DTYPES))
    for _ in range(chance.choice((0, 1, 1, 2, 2, 3, 40, 300))):
        proto.tensor_shape.dim.add(size=chance.choice(SIZES), name=chance.choice(NAMES[:3]))
    proto.tensor_shape.unknown_rank = chance.random() < 0.1
    kind = chance.randrange(4)
    if kind == 0:
        proto.tensor_content = chance.randbytes(chance.choice((0, 1, 4, 8, 16, 1000)))
    elif kind == 1:
        proto.float_val.extend([chance.choice((0.0, -1.0, float("nan"), float("inf")))] * 3)
    elif kind == 2:
        proto.int_val.extend([chance.choice((0, -1, 2**31 - 1))] * chance.choice((1, 2, 100)))
    else:
        proto.string_val.extend([chance.randbytes(chance.choice((0, 1, 1000)))] * 2)
    return proto


def strange_request(chance):
    """A message that can be parsed."""
    if chance.random() < 0.15:
        message = get_model_status_pb2.GetModelStatusRequest()
    elif chance.random() < 0.15:
        message = get_model_metadata_pb2.GetModelMetadataRequest()
        message.metadata_field.append(chance.choice(("signature_def", *NAMES)))
    else:
        message = good_request()
        for _ in range(chance.randrange(3)):
            message.inputs[chance.choice(NAMES)].CopyFrom(tensor(chance))
        message.model_spec.signature_name = chance.choice(("", "", "opt", *NAMES))
        if chance.random() < 0.2:
            message.output_filter.append(chance.choice(NAMES))
    message.model_spec.name = chance.choice(("vec", "vec", "vec", *NAMES))
    if chance.random() < 0.2:
        message.model_spec.version.value = chance.choice(SIZES)
    elif chance.random() < 0.2:
        message.model_spec.version_label = chance.choice(NAMES)
    return message


def mutated(data, chance):
    """The bytes with some of them changed, taken out or doubled."""
    data = bytearray(data)
    for _ in range(chance.randrange(1, 6)):
        at = chance.randrange(len(data)) if data else 0
        kind = chance.randrange(4)
        if kind == 0 and data:
            data[at] = chance.randrange(256)
        elif kind == 1:
            del data[at : at + chance.randrange(1, 9)]
        elif kind == 2:
            data[at:at] = chance.randbytes(chance.randrange(1, 9))
        else:
            data += data[at : at + 100]
    return bytes(data)


METHODS = {
    predict_pb2.PredictRequest: PREDICT,
    get_model_metadata_pb2.GetModelMetadataRequest: METADATA,
    get_model_status_pb2.GetModelStatusRequest: STATUS,
}


def malformed(count, seed):
    """Pairs of a method and the bytes that are sent to it."""
    chance = random.Random(seed)
    for _ in range(count):
        message = strange_request(chance)
        method, data = METHODS[type(message)], message.SerializeToString(deterministic=True)
        if chance.random() < 0.4:
            data = mutated(data, chance)
        elif chance.random() < 0.1:
            data = chance.randbytes(chance.randrange(100))
        yield method, data


def outcome(channel, method, data):
    """The code, and the details if there is an error."""
    try:
        channel.unary_unary(method)(data, timeout=120)
    except grpc.RpcError as error:
        return error.code(), error.details()
    return grpc.StatusCode.OK, ""


@pytest.fixture(scope="module", params=[None, BatchingParameters()], ids=["plain", "batching"])
def server(request, vec_versions):
    with Server({"vec": vec_versions}, port=0, batching=request.param) as server:
        server.wait_until_available(120)
        yield server


def assert_it_answers(server):
    with Client(f"127.0.0.1:{server.port}", "vec", timeout_s=120) as client:
        inputs = {"x": np.ones([1, 2], np.float32), "n": np.array([1], np.int32)}
        assert client.predict(inputs)["y"].tolist() == [[3, 3]]


def test_malformed_requests_are_the_clients_fault_and_the_server_goes_on(server, caplog):
    with grpc.insecure_channel(f"127.0.0.1:{server.port}") as channel:
        for number, (method, data) in enumerate(malformed(300, seed=6)):
            code, details = outcome(channel, method, data)
            is_fine = code in CLIENTS_FAULT or details == "the request cannot be parsed"
            assert is_fine, (number, code, details)
    assert_it_answers(server)
    assert not caplog.records


@pytest.mark.parametrize("shape", [[2**24, 2], [2**62, 2**62], [2**62] * 300, [0, 2**62]])
def test_a_shape_without_the_values_gets_no_memory(server, shape):
    request = good_request()
    request.inputs["x"].CopyFrom(tensor_pb2.TensorProto(dtype=types_pb2.DT_FLOAT))
    for size in shape:
        request.inputs["x"].tensor_shape.dim.add(size=size)
    with grpc.insecure_channel(f"127.0.0.1:{server.port}") as channel:
        answered = outcome(channel, PREDICT, request.SerializeToString())
    assert answered == (grpc.StatusCode.INVALID_ARGUMENT, "tensor parsing error: x")


def test_a_message_of_long_characters_fits_into_the_headers(server):
    request = good_request()
    request.model_spec.signature_name = "\U0001f40d" * 3000
    with grpc.insecure_channel(f"127.0.0.1:{server.port}") as channel:
        code, details = outcome(channel, PREDICT, request.SerializeToString())
    assert code == grpc.StatusCode.FAILED_PRECONDITION
    assert details.endswith("\U0001f40d...TRUNCATED")


def test_bytes_that_are_no_grpc_do_not_disturb_the_server(server):
    chance = random.Random(6)
    preface = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
    frames = [preface + chance.randbytes(200) for _ in range(20)]
    for data in (b"GET / HTTP/1.1\r\n\r\n", b"\x16\x03\x01" + chance.randbytes(100), *frames):
        with socket.create_connection(("127.0.0.1", server.port), timeout=120) as connection:
            connection.sendall(data)
    assert_it_answers(server)
