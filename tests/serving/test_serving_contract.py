"""The recorded answers of the stock server, asked of the embedded one over a real socket."""

import shutil
import time

import grpc
import numpy as np
import pytest
import tensorflow as tf
from tensorflow.core.framework import types_pb2
from tensorflow_serving.apis import (
    get_model_metadata_pb2,
    get_model_status_pb2,
    model_service_pb2_grpc,
    predict_pb2,
    prediction_service_pb2_grpc,
)

from tfllm.serving import ServedModel, Server

X = np.array([[1, 2], [3, 4], [5, 6]], np.float32)
N = np.array([0, 1, 2], np.int32)


@pytest.fixture(scope="module")
def channel(vec_versions):
    vec = ServedModel(str(vec_versions), latest=3, labels={"stable": 2, "gone": 77})
    with Server({"vec": vec}, port=0) as server:
        server.wait_until_available(120)
        with grpc.insecure_channel(f"127.0.0.1:{server.port}") as channel:
            yield channel


@pytest.fixture(scope="module")
def predict(channel, wait_for_three_versions):  # noqa: ARG001
    """Calls Predict with keyword arguments of the request; numpy inputs are encoded."""
    stub = prediction_service_pb2_grpc.PredictionServiceStub(channel)

    def predict(inputs, spec=None, **fields):
        spec = {"name": "vec"} if spec is None else spec
        request = predict_pb2.PredictRequest(model_spec=spec, **fields)
        for name, value in inputs.items():
            proto = value if hasattr(value, "dtype") and not isinstance(value, np.ndarray) else None
            request.inputs[name].CopyFrom(proto or tf.make_tensor_proto(value))
        return stub.Predict(request, timeout=120)

    return predict


@pytest.fixture(scope="module")
def wait_for_three_versions(channel):
    stub = model_service_pb2_grpc.ModelServiceStub(channel)
    request = get_model_status_pb2.GetModelStatusRequest(model_spec={"name": "vec"})
    ends_at = time.monotonic() + 60
    while time.monotonic() < ends_at:
        statuses = stub.GetModelStatus(request).model_version_status
        if [status.state for status in statuses] == [30, 30, 30]:
            return
    pytest.fail(f"not available: {statuses}")


def _refusal(call, *args, **kwargs):
    with pytest.raises(grpc.RpcError) as refused:
        call(*args, **kwargs)
    return refused.value.code().name, refused.value.details()


# A. Which model answers.


def test_a_request_without_model_spec_is_refused(channel):
    stub = prediction_service_pb2_grpc.PredictionServiceStub(channel)

    assert _refusal(stub.Predict, predict_pb2.PredictRequest()) == (
        "INVALID_ARGUMENT",
        "Missing ModelSpec",
    )


@pytest.mark.parametrize(
    ("spec", "code", "details"),
    [
        ({"name": "nope"}, "NOT_FOUND", "Servable not found for request: Latest(nope)"),
        (
            {"name": "vec", "version": {"value": 99}},
            "NOT_FOUND",
            "Servable not found for request: Specific(vec, 99)",
        ),
        (
            {"name": "vec", "version": {"value": 0}},
            "NOT_FOUND",
            "Servable not found for request: Specific(vec, 0)",
        ),
        (
            {"name": "vec", "version_label": "canary"},
            "INVALID_ARGUMENT",
            "Unrecognized servable version label: canary",
        ),
        (
            {"name": "vec", "version_label": "gone"},
            "NOT_FOUND",
            "Servable not found for request: Specific(vec, 77)",
        ),
        ({}, "INVALID_ARGUMENT", "ModelSpec has no name specified."),
        (
            {"name": "vec", "signature_name": "zzz"},
            "FAILED_PRECONDITION",
            'Serving signature key "zzz" not found.',
        ),
        (
            {"name": "nope", "signature_name": "zzz"},
            "NOT_FOUND",
            "Servable not found for request: Latest(nope)",
        ),
    ],
)
def test_a_model_spec_that_fits_nothing_is_refused(predict, spec, code, details):
    assert _refusal(predict, {"x": X, "n": N}, spec) == (code, details)


@pytest.mark.parametrize(
    ("spec", "version"),
    [
        ({"name": "vec"}, 3),
        ({"name": "vec", "version": {"value": 1}}, 1),
        ({"name": "vec", "version_label": "stable"}, 2),
    ],
)
def test_the_response_names_the_version_and_the_signature_that_answered(predict, spec, version):
    response = predict({"x": X, "n": N}, spec)

    assert (
        response.model_spec
        == predict_pb2.PredictRequest(
            model_spec={
                "name": "vec",
                "version": {"value": version},
                "signature_name": "serving_default",
            }
        ).model_spec
    )
    np.testing.assert_array_equal(tf.make_ndarray(response.outputs["y"]), X * version)


# B. Inputs.


@pytest.mark.parametrize(
    ("inputs", "details"),
    [
        (
            {"x": X},
            "input size does not match signature: 1!=2 len({x}) != len({n,x}). Sent extra: {}. "
            "Missing but required: {n}.",
        ),
        (
            {"x": X, "n": N, "zz": N},
            "input size does not match signature: 3!=2 len({n,x,zz}) != len({n,x}). "
            "Sent extra: {zz}. Missing but required: {}.",
        ),
        ({"x": X.astype(np.float64), "n": N}, "Expects arg[1] to be float but double is provided"),
        ({"x": X.astype(np.int32), "n": N}, "Expects arg[1] to be float but int32 is provided"),
        (
            {"x": X, "m": N},
            "Signature input alias: n(feed name: serving_default_n:0) not found in request and no "
            "default value provided. Inputs expected to be in the request {m,x}, or default input "
            "alias set: ",
        ),
    ],
)
def test_inputs_that_do_not_fit_the_signature_are_refused(predict, inputs, details):
    assert _refusal(predict, inputs) == ("INVALID_ARGUMENT", details)


def test_a_wrong_rank_is_left_to_the_ops(predict):
    response = predict({"x": np.array([1, 2], np.float32), "n": N})

    assert list(response.outputs["y"].float_val) == [3, 6]


def test_a_single_value_fills_the_shape_and_surplus_values_are_dropped(predict):
    one = tf.make_tensor_proto(0.0, shape=[3, 2])
    del one.float_val[:]
    one.float_val.append(1.5)
    surplus = tf.make_tensor_proto(N)
    surplus.tensor_content = b""
    surplus.int_val.extend([7, 8, 9, 10])

    response = predict({"x": one, "n": surplus}, {"name": "vec", "version": {"value": 1}})

    assert list(response.outputs["y"].float_val) == [1.5] * 6
    assert list(response.outputs["n1"].int_val) == [8, 9, 10]


@pytest.mark.parametrize(
    "fields",
    [
        {"dtype": types_pb2.DT_FLOAT, "tensor_content": b"12345"},
        {"dtype": types_pb2.DT_INVALID, "float_val": [1]},
        {"dtype": types_pb2.DT_FLOAT, "tensor_shape": {"dim": [{"size": -1}]}},
    ],
)
def test_what_is_no_tensor_is_a_parsing_error(predict, fields):
    request = predict_pb2.PredictRequest(inputs={"x": fields})

    assert _refusal(predict, {"x": request.inputs["x"], "n": N}) == (
        "INVALID_ARGUMENT",
        "tensor parsing error: x",
    )


OPT = {"name": "vec", "signature_name": "opt"}


@pytest.mark.parametrize(
    ("inputs", "expected"),
    [
        ({"text": ["a"]}, b"a|1.0|7"),
        ({"text": ["a"], "seed": np.array([9], np.int32)}, b"a|1.0|9"),
        (
            {"text": ["a"], "seed": np.array([9], np.int32), "temperature": np.float32([0.5])},
            b"a|0.5|9",
        ),
    ],
)
def test_an_input_that_is_left_out_takes_the_signatures_default(predict, inputs, expected):
    assert predict(inputs, OPT).outputs["o"].string_val == [expected]


def test_an_unknown_name_beside_defaults_is_refused(predict):
    assert _refusal(predict, {"text": ["a"], "bogus": ["b"]}, OPT) == (
        "INVALID_ARGUMENT",
        "Inputs contains invalid name. Used request inputs: text, request input: bogus,text",
    )


def test_a_missing_input_without_a_default_is_refused(predict):
    code, details = _refusal(predict, {"seed": np.array([9], np.int32)}, OPT)

    assert code == "INVALID_ARGUMENT"
    assert details == (
        "Signature input alias: text(feed name: opt_text:0) not found in request and no default "
        "value provided. Inputs expected to be in the request {seed}, or default input alias set: "
        "seed,temperature"
    )


def test_an_error_of_the_ops_keeps_its_code(predict):
    code, details = _refusal(
        predict, {"text": ["a", "b", "c"], "seed": np.array([1, 2], np.int32)}, OPT
    )

    assert code == "INVALID_ARGUMENT"
    assert "shape" in details


# C. Outputs.


def test_all_outputs_come_in_typed_fields(predict):
    outputs = predict({"x": X, "n": N}, {"name": "vec", "version": {"value": 1}}).outputs

    assert sorted(outputs) == ["b", "l", "n1", "s", "y"]
    assert not any(proto.tensor_content for proto in outputs.values())
    assert list(outputs["y"].float_val) == [1, 2, 3, 4, 5, 6]
    assert list(outputs["n1"].int_val) == [1, 2, 3]
    assert list(outputs["s"].string_val) == [b"0", b"1", b"2"]
    assert list(outputs["l"].int64_val) == [0, 1, 2]
    assert list(outputs["b"].bool_val) == [False, True, True]


def test_repeated_values_are_not_compressed(predict):
    zeros = np.zeros([4, 2], np.float32)

    assert len(predict({"x": zeros, "n": N}).outputs["y"].float_val) == 8


def test_the_output_filter_chooses(predict):
    assert sorted(predict({"x": X, "n": N}, output_filter=["y", "b"]).outputs) == ["b", "y"]


@pytest.mark.parametrize(
    ("output_filter", "details"),
    [
        (
            ["qq"],
            "output tensor alias not found in signature: qq Outputs expected to be in the set "
            "{b,l,n1,s,y}.",
        ),
        (["y", "y"], "duplicate output tensor alias: y"),
    ],
)
def test_an_output_filter_that_does_not_fit_is_refused(predict, output_filter, details):
    refusal = _refusal(predict, {"x": X, "n": N}, output_filter=output_filter)

    assert refusal == ("INVALID_ARGUMENT", details)


def test_the_init_op_is_no_signature_to_call(predict):
    spec = {"name": "vec", "signature_name": "__saved_model_init_op"}

    assert _refusal(predict, {}, spec) == ("NOT_FOUND", "FetchOutputs node NoOp: not found")


def test_a_message_of_more_than_4_mib_is_answered(predict):
    x = np.ones([2_000_000, 2], np.float32)

    response = predict({"x": x, "n": N}, output_filter=["n1"])

    assert list(response.outputs["n1"].int_val) == [1, 2, 3]


# D. Metadata and status.


@pytest.fixture(scope="module")
def metadata(channel):
    stub = prediction_service_pb2_grpc.PredictionServiceStub(channel)

    def metadata(**fields):
        return stub.GetModelMetadata(get_model_metadata_pb2.GetModelMetadataRequest(**fields))

    return metadata


@pytest.fixture(scope="module")
def status(channel, wait_for_three_versions):  # noqa: ARG001
    stub = model_service_pb2_grpc.ModelServiceStub(channel)

    def status(**fields):
        return stub.GetModelStatus(get_model_status_pb2.GetModelStatusRequest(**fields))

    return status


@pytest.mark.parametrize(
    ("request_fields", "code", "details"),
    [
        ({"metadata_field": ["signature_def"]}, "INVALID_ARGUMENT", "Missing ModelSpec"),
        (
            {"model_spec": {"name": "nope"}},
            "INVALID_ARGUMENT",
            "GetModelMetadataRequest must specify at least one metadata_field",
        ),
        (
            {"model_spec": {"name": "vec"}, "metadata_field": ["foo"]},
            "INVALID_ARGUMENT",
            "Metadata field foo is not supported",
        ),
        (
            {"model_spec": {"name": "nope"}, "metadata_field": ["signature_def"]},
            "NOT_FOUND",
            "Servable not found for request: Latest(nope)",
        ),
    ],
)
def test_a_metadata_request_that_fits_nothing_is_refused(metadata, request_fields, code, details):
    assert _refusal(metadata, **request_fields) == (code, details)


def test_metadata_hold_every_signature_and_the_version(metadata):
    response = metadata(
        model_spec={"name": "vec", "version_label": "stable"}, metadata_field=["signature_def"]
    )
    signatures = get_model_metadata_pb2.SignatureDefMap()

    packed = response.metadata["signature_def"]
    assert packed.type_url == "type.googleapis.com/tensorflow.serving.SignatureDefMap"
    packed.Unpack(signatures)
    names = ["__saved_model_init_op", "opt", "serving_default"]
    assert sorted(signatures.signature_def) == names
    assert signatures.signature_def["opt"].defaults["seed"].int_val == [7]
    assert response.model_spec.version.value == 2
    assert not response.model_spec.signature_name


@pytest.mark.parametrize(
    ("request_fields", "code", "details"),
    [
        ({}, "INVALID_ARGUMENT", "Missing ModelSpec"),
        (
            {"model_spec": {"name": "nope"}},
            "NOT_FOUND",
            "Could not find any versions of model nope",
        ),
        (
            {"model_spec": {"name": "vec", "version": {"value": 77}}},
            "NOT_FOUND",
            "Could not find version 77 of model vec",
        ),
    ],
)
def test_a_status_request_that_fits_nothing_is_refused(status, request_fields, code, details):
    assert _refusal(status, **request_fields) == (code, details)


@pytest.mark.parametrize(
    ("spec", "versions"),
    [
        ({"name": "vec"}, [3, 2, 1]),
        ({"name": "vec", "version": {"value": 2}}, [2]),
        ({"name": "vec", "version_label": "stable"}, [3, 2, 1]),
    ],
)
def test_status_lists_the_highest_version_first_and_ignores_labels(status, spec, versions):
    listed = status(model_spec=spec).model_version_status

    assert [told.version for told in listed] == versions
    assert {told.state for told in listed} == {30}
    assert all(told.HasField("status") and told.status.error_code == 0 for told in listed)


# F. What polling finds.


class Compiled(tf.Module):
    """Needs XLA."""

    @tf.function(input_signature=[tf.TensorSpec([None], tf.float32, name="x")], jit_compile=True)
    def double(self, x):
        return {"y": 2 * x}


@pytest.fixture(scope="module")
def polled(tmp_path_factory, vec_versions):
    """A channel to a server whose base path holds what can be there, and the base path."""
    base = tmp_path_factory.mktemp("polled")
    shutil.copytree(vec_versions / "1", base / "-7")
    shutil.copytree(vec_versions / "3", base / "0003")
    shutil.copytree(vec_versions / "2", base / "two")
    (base / "4").mkdir()
    shutil.copytree(vec_versions / "1", base / "5")
    shutil.rmtree(base / "5" / "variables")
    warmup = shutil.copytree(vec_versions / "1", base / "6") / "assets.extra"
    warmup.mkdir()
    (warmup / "tf_serving_warmup_requests").write_bytes(b"no TFRecord at all")
    model = Compiled()
    tf.saved_model.save(model, str(base / "8"), signatures=model.double)
    with Server({"vec": ServedModel(str(base), latest=None)}, port=0, poll_s=0.02) as server:

        def have_settled():
            told = server.versions.statuses("vec")
            return len(told) == 6 and {int(each.state) for each in told} <= {30, 50}

        assert server.versions.wait_until(have_settled, 120), server.versions.statuses("vec")
        with grpc.insecure_channel(f"127.0.0.1:{server.port}") as channel:
            yield channel, base


def test_every_numeric_folder_is_a_version_and_status_says_what_became_of_it(polled):
    channel, base = polled
    request = get_model_status_pb2.GetModelStatusRequest(model_spec={"name": "vec"})

    told = model_service_pb2_grpc.ModelServiceStub(channel).GetModelStatus(request)

    states = [(each.version, each.state) for each in told.model_version_status]
    assert states == [(8, 30), (6, 50), (5, 30), (4, 50), (3, 30), (-7, 30)]
    errors = {
        each.version: (each.status.error_code, each.status.error_message)
        for each in told.model_version_status
    }
    assert errors[4] == (
        5,
        "Specified file path does not appear to contain a SavedModel bundle (should have a file "
        f"called `saved_model.pb`)\nSpecified file path: {base / '4'}",
    )
    code, message = errors[6]
    assert code == 15  # DATA_LOSS
    assert message.endswith("Please verify your warmup data is in TFRecord format.")
    assert errors[3] == (0, "")


@pytest.mark.parametrize(("version", "factor"), [(-7, 1), (3, 3)])
def test_a_version_is_asked_for_by_its_number(polled, version, factor):
    stub = prediction_service_pb2_grpc.PredictionServiceStub(polled[0])
    spec = {"name": "vec", "version": {"value": version}}
    request = predict_pb2.PredictRequest(model_spec=spec)
    request.inputs["x"].CopyFrom(tf.make_tensor_proto(X))
    request.inputs["n"].CopyFrom(tf.make_tensor_proto(N))

    found = stub.Predict(request, timeout=120)

    np.testing.assert_array_equal(tf.make_ndarray(found.outputs["y"]), X * factor)


def test_a_version_without_variables_answers_with_failed_precondition(polled):
    stub = prediction_service_pb2_grpc.PredictionServiceStub(polled[0])
    spec = {"name": "vec", "version": {"value": 5}}
    request = predict_pb2.PredictRequest(model_spec=spec)
    request.inputs["x"].CopyFrom(tf.make_tensor_proto(X))
    request.inputs["n"].CopyFrom(tf.make_tensor_proto(N))

    code, details = _refusal(stub.Predict, request)

    assert code == "FAILED_PRECONDITION"
    assert "Could not find variable" in details


def test_a_function_that_must_be_compiled_answers_with_internal(polled):
    stub = prediction_service_pb2_grpc.PredictionServiceStub(polled[0])
    request = predict_pb2.PredictRequest(model_spec={"name": "vec"})
    request.inputs["x"].CopyFrom(tf.make_tensor_proto(np.float32([1])))

    code, details = _refusal(stub.Predict, request)

    assert code == "INTERNAL"
    assert details.startswith("XLA compilation disabled\n\t [[")
