"""The gRPC port itself: certificates, limits, health, reflection."""

from concurrent import futures
from pathlib import Path

import grpc
import numpy as np
import pytest
import tensorflow as tf
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc
from tensorflow_serving.apis import (
    classification_pb2,
    get_model_status_pb2,
    inference_pb2,
    model_service_pb2_grpc,
    predict_pb2,
    prediction_service_pb2_grpc,
)

from tfllm.errors import UserError
from tfllm.serving import ServedModel, Server
from tfllm.serving.grpc_options import GrpcOptions, ServerCertificate
from tfllm.serving.states import State

PEMS = Path(__file__).parent / "certificates"
SERVING, NOT_SERVING = (
    health_pb2.HealthCheckResponse.SERVING,
    health_pb2.HealthCheckResponse.NOT_SERVING,
)


def pem(name):
    return (PEMS / name).read_bytes()


def check(channel, service=""):
    stub = health_pb2_grpc.HealthStub(channel)
    return stub.Check(health_pb2.HealthCheckRequest(service=service), timeout=120).status


def vec_request(rows=1, **spec):
    request = predict_pb2.PredictRequest(model_spec={"name": "vec", **spec})
    request.inputs["x"].CopyFrom(tf.make_tensor_proto(np.ones([rows, 2], np.float32)))
    request.inputs["n"].CopyFrom(tf.make_tensor_proto(np.ones([rows], np.int32)))
    return request


def refusal(call, *args, **kwargs):
    with pytest.raises(grpc.RpcError) as refused:
        call(*args, timeout=120, **kwargs)
    return refused.value.code().name, refused.value.details()


def write_ssl_config(path, **fields):
    lines = [
        f"{name}: {value}" if isinstance(value, str) else
        f'{name}: "{value.decode().replace(chr(10), chr(92) + "n")}"'
        for name, value in fields.items()
    ]  # fmt: skip
    path.write_text("\n".join(lines))
    return path


def test_a_file_of_the_stock_server_gives_the_port_its_certificate(tmp_path):
    path = write_ssl_config(
        tmp_path / "ssl.config", server_key=pem("server.key"), server_cert=pem("server.pem")
    )
    options = GrpcOptions(certificate=ServerCertificate.of_config(path))

    with Server({}, port=0, grpc_options=options) as server:
        address = f"127.0.0.1:{server.port}"
        credentials = grpc.ssl_channel_credentials(pem("ca.pem"))
        with grpc.secure_channel(address, credentials) as channel:
            assert check(channel) == SERVING
        with grpc.insecure_channel(address) as channel, pytest.raises(grpc.RpcError):
            check(channel)


def test_with_client_verify_only_known_clients_are_answered(tmp_path):
    path = write_ssl_config(
        tmp_path / "ssl.config",
        server_key=pem("server.key"),
        server_cert=pem("server.pem"),
        custom_ca=pem("ca.pem"),
        client_verify="true",
    )
    options = GrpcOptions(certificate=ServerCertificate.of_config(path))
    known = grpc.ssl_channel_credentials(pem("ca.pem"), pem("client.key"), pem("client.pem"))
    unknown = grpc.ssl_channel_credentials(pem("ca.pem"))

    with Server({}, port=0, grpc_options=options) as server:
        with grpc.secure_channel(f"127.0.0.1:{server.port}", known) as channel:
            assert check(channel) == SERVING
        address = f"127.0.0.1:{server.port}"
        with grpc.secure_channel(address, unknown) as channel, pytest.raises(grpc.RpcError):
            check(channel)


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({}, "server_key in .* must be the PEM text itself"),
        (
            {"server_key": '"/etc/server.key"', "server_cert": '"/etc/server.pem"'},
            "server_key in .* must be the PEM text itself",
        ),
        ({"server_key": pem("server.key")}, "server_cert in .* must be the PEM text itself"),
        (
            {
                "server_key": pem("server.key"),
                "server_cert": pem("server.pem"),
                "client_verify": "true",
            },
            "custom_ca in .* must be the PEM text itself",
        ),
        ({"server_kye": '"x"'}, "is not the text form of SSLConfig"),
    ],
)
def test_a_certificate_that_is_none_is_refused(tmp_path, fields, words):
    path = write_ssl_config(tmp_path / "ssl.config", **fields)

    with pytest.raises(UserError, match=words):
        ServerCertificate.of_config(path)


def test_a_key_does_not_show_when_options_are_printed():
    certificate = ServerCertificate(b"secret", b"public")

    assert "secret" not in repr(GrpcOptions(certificate=certificate))


def test_a_certificate_that_grpc_cannot_read_is_refused():
    options = GrpcOptions(certificate=ServerCertificate(b"no key", b"no certificate"))

    with pytest.raises(UserError, match="the certificate or its key is none"):
        Server({}, port=0, grpc_options=options).start()


def test_a_unix_socket_answers_beside_the_port(tmp_path, vec_versions):
    path = tmp_path / "socket"

    with Server(
        {"vec": vec_versions}, port=0, grpc_options=GrpcOptions(socket_path=str(path))
    ) as s:
        s.wait_until_available(120)
        for address in (f"unix:{path}", f"127.0.0.1:{s.port}"):
            with grpc.insecure_channel(address) as channel:
                stub = prediction_service_pb2_grpc.PredictionServiceStub(channel)
                assert stub.Predict(vec_request(), timeout=120).outputs["y"].float_val[0] == 3


def test_a_message_that_is_too_large_is_refused(vec_versions):
    options = GrpcOptions(max_message_bytes=10_000)

    with Server({"vec": vec_versions}, port=0, grpc_options=options) as server:
        server.wait_until_available(120)
        with grpc.insecure_channel(f"127.0.0.1:{server.port}") as channel:
            stub = prediction_service_pb2_grpc.PredictionServiceStub(channel)
            code, details = refusal(stub.Predict, vec_request(rows=2000))
            assert code == "RESOURCE_EXHAUSTED"
            assert "larger than max" in details
            assert len(stub.Predict(vec_request(rows=500)).outputs["y"].float_val) == 1000


def test_a_request_for_too_many_rows_is_refused(vec_versions, grades):
    models = {"vec": vec_versions, "grades": grades}
    examples = {"example_list": {"examples": [tf.train.Example()] * 5}}
    spec = {"name": "grades", "signature_name": "regress"}
    expected = (
        "INVALID_ARGUMENT",
        "A request may be for 4 rows at most, this one is for 5: send it as several.",
    )

    with Server(models, port=0, grpc_options=GrpcOptions(max_rows=4)) as server:
        server.wait_until_available(120)
        with grpc.insecure_channel(f"127.0.0.1:{server.port}") as channel:
            stub = prediction_service_pb2_grpc.PredictionServiceStub(channel)
            assert refusal(stub.Predict, vec_request(rows=5)) == expected
            classified = classification_pb2.ClassificationRequest(model_spec=spec, input=examples)
            assert refusal(stub.Classify, classified) == expected
            several = inference_pb2.MultiInferenceRequest(
                tasks=[{"model_spec": spec, "method_name": "tensorflow/serving/regress"}],
                input={"example_list_with_context": examples["example_list"]},
            )
            assert refusal(stub.MultiInference, several) == expected
            assert stub.Predict(vec_request(rows=4), timeout=120).outputs["y"].float_val[0] == 3


def test_requests_beyond_the_bound_are_refused_at_once_but_probes_are_answered(
    tmp_path, gate_versions
):
    gate = tmp_path / "open"
    request = predict_pb2.PredictRequest(model_spec={"name": "gate"})
    request.inputs["path"].CopyFrom(tf.make_tensor_proto([str(gate)]))
    options = GrpcOptions(max_requests=2)

    with (
        Server({"gate": gate_versions}, port=0, num_threads=1, grpc_options=options) as server,
        grpc.insecure_channel(f"127.0.0.1:{server.port}") as channel,
        futures.ThreadPoolExecutor(3) as threads,
    ):
        server.wait_until_available(120)
        stub = prediction_service_pb2_grpc.PredictionServiceStub(channel)
        # Of three at the same time one is refused while none of them can be answered.
        calls = [stub.Predict.future(request, timeout=120) for _ in range(3)]
        done, _ = futures.wait(
            [threads.submit(call.exception) for call in calls], return_when="FIRST_COMPLETED"
        )
        assert {each.result().code().name for each in done} == {"RESOURCE_EXHAUSTED"}
        assert check(channel) == SERVING
        asked = get_model_status_pb2.GetModelStatusRequest(model_spec={"name": "gate"})
        status = model_service_pb2_grpc.ModelServiceStub(channel).GetModelStatus(asked, timeout=120)
        assert status.model_version_status[0].state == State.AVAILABLE
        gate.touch()
        assert sorted(call.exception() is None for call in calls) == [False, True, True]


def test_channel_arguments_reach_grpc(vec_versions):
    options = GrpcOptions(channel_arguments={"grpc.max_receive_message_length": 1000})

    with Server({"vec": vec_versions}, port=0, grpc_options=options) as server:
        server.wait_until_available(120)
        with grpc.insecure_channel(f"127.0.0.1:{server.port}") as channel:
            stub = prediction_service_pb2_grpc.PredictionServiceStub(channel)
            assert refusal(stub.Predict, vec_request(rows=500))[0] == "RESOURCE_EXHAUSTED"


def test_health_says_whether_every_model_answers(tmp_path, vec_versions, publish):
    models = {"vec": ServedModel(str(vec_versions)), "late": ServedModel(str(tmp_path / "late"))}

    with (
        Server(models, port=0, poll_s=0.02) as server,
        grpc.insecure_channel(f"127.0.0.1:{server.port}") as channel,
    ):
        watch = health_pb2_grpc.HealthStub(channel).Watch(
            health_pb2.HealthCheckRequest(service="tensorflow.serving.PredictionService"),
            timeout=60,
        )
        assert next(watch).status == NOT_SERVING
        publish(vec_versions / "1", tmp_path / "late" / "1")
        assert next(watch).status == SERVING
        assert check(channel) == check(channel, "tensorflow.serving.ModelService") == SERVING
        assert (
            refusal(
                health_pb2_grpc.HealthStub(channel).Check,
                health_pb2.HealthCheckRequest(service="nope"),
            )[0]
            == "NOT_FOUND"
        )
        server.stop(600)
        assert [told.status for told in watch] == [NOT_SERVING]


def test_a_health_watch_does_not_hold_up_a_server_that_stops():
    with (
        Server({}, port=0, num_threads=1) as server,
        grpc.insecure_channel(f"127.0.0.1:{server.port}") as channel,
    ):
        stub = health_pb2_grpc.HealthStub(channel)
        watches = [stub.Watch(health_pb2.HealthCheckRequest(), timeout=120) for _ in range(3)]
        first = [(next(watch).status, watch) for watch in watches]
        server.stop(600)
        last = [[status, *(told.status for told in watch)][-1] for status, watch in first]

    assert last == [NOT_SERVING] * 3


def test_reflection_names_the_services_and_their_messages():
    requests = [
        reflection_pb2.ServerReflectionRequest(list_services=""),
        reflection_pb2.ServerReflectionRequest(
            file_containing_symbol="tensorflow.serving.PredictionService"
        ),
    ]

    with (
        Server({}, port=0) as server,
        grpc.insecure_channel(f"127.0.0.1:{server.port}") as channel,
    ):
        stub = reflection_pb2_grpc.ServerReflectionStub(channel)
        listed, described = stub.ServerReflectionInfo(iter(requests), timeout=120)

    names = {service.name for service in listed.list_services_response.service}
    assert names == {
        "tensorflow.serving.PredictionService",
        "tensorflow.serving.ModelService",
        "grpc.health.v1.Health",
        "grpc.reflection.v1alpha.ServerReflection",
    }
    files = described.file_descriptor_response.file_descriptor_proto
    assert any(b"tensorflow_serving/apis/predict.proto" in file for file in files)
