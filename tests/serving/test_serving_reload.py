"""HandleReloadConfigRequest over a real socket, with the stock server's answers."""

import contextlib
import threading
from concurrent import futures

import grpc
import numpy as np
import pytest
import tensorflow as tf
from google.protobuf import text_format
from tensorflow_serving.apis import (
    get_model_status_pb2,
    model_management_pb2,
    model_service_pb2_grpc,
    predict_pb2,
    prediction_service_pb2_grpc,
)

from tfllm.errors import UserError
from tfllm.serving import ServedModel, Server
from tfllm.serving.model_config import read_model_config
from tfllm.serving.states import LabelRule, VersionOptions


class Stubs:
    """Calls the RPCs of one server."""

    def __init__(self, server, channel):
        self.server = server
        self._models = model_service_pb2_grpc.ModelServiceStub(channel)
        self._predictions = prediction_service_pb2_grpc.PredictionServiceStub(channel)

    def reload(self, *entries, timeout=120, platform='model_platform: "tensorflow"'):
        """Sends a config of these entries, each in text form."""
        request = model_management_pb2.ReloadConfigRequest()
        request.config.model_config_list.SetInParent()
        for entry in entries:
            added = request.config.model_config_list.config.add()
            text_format.Parse(f"{entry} {platform}", added)
        return self._models.HandleReloadConfigRequest(request, timeout=timeout)

    def send(self, request):
        return self._models.HandleReloadConfigRequest(request, timeout=120)

    def states(self, name):
        request = get_model_status_pb2.GetModelStatusRequest(model_spec={"name": name})
        told = self._models.GetModelStatus(request).model_version_status
        return {each.version: each.state for each in told}

    def wait_for(self, name, **expected):
        """Waits until the versions are in these states, such as `v2=50`."""

        def states():
            return {f"v{t.version}": int(t.state) for t in self.server.versions.statuses(name)}

        assert self.server.versions.wait_until(lambda: states() == expected, 120), states()

    def factor(self, name, **spec):
        """What the version that answers multiplies by."""
        request = predict_pb2.PredictRequest(model_spec={"name": name, **spec})
        request.inputs["x"].CopyFrom(tf.make_tensor_proto(np.ones([1, 2], np.float32)))
        request.inputs["n"].CopyFrom(tf.make_tensor_proto([1], tf.int32))
        return self._predictions.Predict(request, timeout=120).outputs["y"].float_val[0]


@contextlib.contextmanager
def serving(models, **options):
    with Server(models, port=0, poll_s=0.02, **options) as server:
        server.wait_until_available(120)
        with grpc.insecure_channel(f"127.0.0.1:{server.port}") as channel:
            yield Stubs(server, channel)


def refusal(call, *args, **kwargs):
    with pytest.raises(grpc.RpcError) as refused:
        call(*args, **kwargs)
    return refused.value.code().name, refused.value.details()


def entry(name, base_path, rest=""):
    return f'name: "{name}" base_path: "{base_path}" {rest}'


ALL = "model_version_policy { all {} }"
END, AVAILABLE = 50, 30


def test_a_config_without_a_list_is_refused(vec_versions):
    request = model_management_pb2.ReloadConfigRequest()

    with serving({"vec": vec_versions}) as stubs:
        expected = (
            "INVALID_ARGUMENT",
            "ServerModelConfig type not supported by HandleReloadConfigRequest. Only "
            "ModelConfigList is currently supported",
        )
        assert refusal(stubs.send, request) == expected
        request.config.custom_model_config.SetInParent()
        assert refusal(stubs.send, request) == expected


def test_policies_load_and_unload(vec_versions):
    with serving({"vec": vec_versions}) as stubs:
        response = stubs.reload(entry("vec", vec_versions, ALL))
        assert response.HasField("status")
        assert response.status.error_code == 0
        stubs.wait_for("vec", v1=AVAILABLE, v2=AVAILABLE, v3=AVAILABLE)

        stubs.reload(
            entry("vec", vec_versions, "model_version_policy { specific { versions: 2 } }")
        )
        stubs.wait_for("vec", v1=END, v2=AVAILABLE, v3=END)
        assert stubs.factor("vec") == 2
        assert stubs.states("vec") == {3: END, 2: AVAILABLE, 1: END}

        stubs.reload(
            entry("vec", vec_versions, "model_version_policy { latest { num_versions: 2 } }")
        )
        stubs.wait_for("vec", v1=END, v2=AVAILABLE, v3=AVAILABLE)
        stubs.reload(entry("vec", vec_versions, "model_version_policy { latest { } }"))
        stubs.wait_for("vec", v1=END, v2=END, v3=AVAILABLE)


def test_a_model_that_is_left_out_unloads_and_one_that_is_new_is_waited_for(
    vec_versions, gate_versions
):
    with serving({"vec": vec_versions}) as stubs:
        stubs.reload(entry("other", vec_versions))
        assert stubs.factor("other") == 3

        stubs.wait_for("vec", v3=END)
        assert refusal(stubs.factor, "vec") == (
            "NOT_FOUND",
            "Servable not found for request: Latest(vec)",
        )
        stubs.reload(entry("vec", vec_versions), entry("gate", gate_versions))
        assert stubs.factor("vec") == 3
        assert stubs.states("gate") == {2: AVAILABLE}
        stubs.reload()
        stubs.wait_for("vec", v3=END)


def test_a_new_model_that_fails_to_load_is_told_and_is_tried_again_in_its_next_life(
    tmp_path, vec_versions, publish
):
    base = tmp_path / "late"
    (base / "7").mkdir(parents=True)

    with serving({"vec": vec_versions}) as stubs:
        code, details = refusal(stubs.reload, entry("vec", vec_versions), entry("late", base))
        assert code == "UNKNOWN"
        assert details.startswith(
            "1 model(s) did not become available: {{{name: late version: 7} due to error: "
            "NOT_FOUND: Specified file path does not appear to contain a SavedModel bundle"
        )
        assert stubs.states("late") == {7: END}
        assert stubs.factor("vec") == 3

        stubs.reload(entry("vec", vec_versions))
        (base / "7").rmdir()
        publish(vec_versions / "1", base / "7")
        stubs.reload(entry("vec", vec_versions), entry("late", base))
        assert stubs.factor("late") == 1


def test_a_model_without_versions_is_waited_for_until_the_client_leaves(tmp_path, vec_versions):
    # Of nothing else the server would be told anything while it waits.
    with serving({}) as stubs:
        missing = entry("to_come", tmp_path / "missing")
        code, _ = refusal(stubs.reload, missing, timeout=0.2)
        assert code == "DEADLINE_EXCEEDED"

        stubs.reload(entry("vec", vec_versions))
        assert stubs.factor("vec") == 3


def test_a_base_path_may_change_and_a_version_that_is_loaded_stays(tmp_path, vec_versions, publish):
    publish(vec_versions / "1", tmp_path / "vec" / "3")
    publish(vec_versions / "2", tmp_path / "vec" / "4")

    with serving({"vec": vec_versions}) as stubs:
        stubs.reload(entry("vec", tmp_path / "vec", ALL))
        stubs.wait_for("vec", v3=AVAILABLE, v4=AVAILABLE)
        assert stubs.factor("vec", version={"value": 3}) == 3
        assert stubs.factor("vec") == 2


@pytest.mark.parametrize(
    ("entries", "platform", "details"),
    [
        (
            [entry("vec", "/a"), entry("vec", "/b")],
            'model_platform: "tensorflow"',
            "Illegal to list model vec multiple times in config list",
        ),
        (
            [entry("vec", "models/vec")],
            'model_platform: "tensorflow"',
            "Expected model vec to have an absolute path or URI; got base_path()=models/vec",
        ),
        (
            [entry("vec", "/a")],
            "",
            "Illegal setting neither ModelServerConfig::model_type (deprecated) nor "
            "ModelServerConfig::model_platform.",
        ),
        (
            [entry("vec", "/a")],
            'model_platform: "tensorflow" model_type: TENSORFLOW',
            "Illegal setting both ModelServerConfig::model_type (deprecated) and "
            "ModelServerConfig::model_platform.",
        ),
        (
            [entry("vec", "/a")],
            "model_type: OTHER",
            "ModelServerConfig::model_type choice 2 not supported.",
        ),
        (
            [entry("vec", "/a")],
            'model_platform: "onnx"',
            "Illegal to change a model's platform. For model vec platform was tensorflow and new "
            "platform requested is onnx",
        ),
        (
            [entry("new", "/a")],
            'model_platform: "onnx"',
            "Model new requests unsupported platform onnx",
        ),
    ],
)
def test_a_config_that_the_stock_server_refuses_changes_nothing(
    vec_versions, entries, platform, details
):
    with serving({"vec": vec_versions}) as stubs:
        refused = refusal(stubs.reload, *entries, platform=platform)
        assert refused == ("INVALID_ARGUMENT", details)
        assert stubs.factor("vec") == 3


def label(name, version):
    return f'version_labels {{ key: "{name}" value: {version} }}'


NOT_AVAILABLE = (
    "FAILED_PRECONDITION",
    "Request to assign label to version {} of model vec, which is not currently available for "
    "inference",
)


def not_available(version):
    return NOT_AVAILABLE[0], NOT_AVAILABLE[1].format(version)


def test_a_label_is_given_to_an_available_version_only(vec_versions):
    with serving({"vec": ServedModel(str(vec_versions), latest=None)}) as stubs:
        stubs.wait_for("vec", v1=AVAILABLE, v2=AVAILABLE, v3=AVAILABLE)

        stubs.reload(entry("vec", vec_versions, ALL + label("stable", 1) + label("canary", 2)))
        assert stubs.factor("vec", version_label="stable") == 1
        assert stubs.factor("vec", version_label="canary") == 2

        refused = refusal(stubs.reload, entry("vec", vec_versions, ALL + label("stable", 9)))
        assert refused == not_available(9)
        assert stubs.factor("vec", version_label="stable") == 1

        stubs.reload(entry("vec", vec_versions, ALL + label("stable", 2)))
        assert stubs.factor("vec", version_label="stable") == 2
        assert refusal(stubs.factor, "vec", version_label="canary") == (
            "INVALID_ARGUMENT",
            "Unrecognized servable version label: canary",
        )


@pytest.mark.parametrize(("rule", "moves"), [(LabelRule.NEW, False), (LabelRule.ANY, True)])
def test_with_the_flags_of_the_stock_server_a_label_may_be_given_ahead(vec_versions, rule, moves):
    with serving({"vec": vec_versions}, version_options=VersionOptions(label_rule=rule)) as stubs:
        stubs.reload(entry("vec", vec_versions, label("next", 9)))
        assert refusal(stubs.factor, "vec", version_label="next") == (
            "NOT_FOUND",
            "Servable not found for request: Specific(vec, 9)",
        )
        moving = entry("vec", vec_versions, label("next", 10))
        if moves:
            stubs.reload(moving)
        else:
            assert refusal(stubs.reload, moving) == not_available(10)
        stubs.reload(entry("vec", vec_versions, label("next", 3)))
        assert stubs.factor("vec", version_label="next") == 3


def test_no_request_is_lost_while_labels_and_policies_change(vec_versions):
    is_over, factors = threading.Event(), {1: 0, 2: 0}

    with serving({"vec": ServedModel(str(vec_versions), None, {"live": 1})}) as stubs:
        stubs.wait_for("vec", v1=AVAILABLE, v2=AVAILABLE, v3=AVAILABLE)

        def hammer():
            while not is_over.is_set():
                factors[int(stubs.factor("vec", version_label="live"))] += 1

        with futures.ThreadPoolExecutor(2) as threads:
            hammers = [threads.submit(hammer) for _ in range(2)]
            try:
                for number in (2, 1, 2, 1, 2):
                    stubs.reload(entry("vec", vec_versions, ALL + label("live", number)))
                    stubs.factor("vec", version_label="live")
                keep = "model_version_policy { specific { versions: 2 } }"
                stubs.reload(entry("vec", vec_versions, keep + label("live", 2)))
                stubs.wait_for("vec", v1=END, v2=AVAILABLE, v3=END)
            finally:
                is_over.set()
            for hammering in hammers:
                hammering.result()

    assert factors[2] > 0


def test_reload_of_the_python_server_takes_what_its_constructor_takes(vec_versions, tmp_path):
    with serving({"vec": vec_versions}) as stubs:
        stubs.server.reload({"again": vec_versions})
        assert stubs.factor("again") == 3
        with pytest.raises(UserError, match="there is none at"):
            stubs.server.reload({"again": tmp_path / "missing"})


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("model_config_list { config { nane: 'a' } }", "is not the text form of ModelServerConfig"),
        ("", "must hold a model_config_list"),
        ("custom_model_config { }", "must hold a model_config_list"),
        (b"\xff", "is not the text form of ModelServerConfig"),
        (None, "cannot read .*: No such file"),
    ],
)
def test_a_config_file_that_says_no_models_is_refused(tmp_path, text, words):
    path = tmp_path / "models.config"
    if text is not None:
        path.write_bytes(text if isinstance(text, bytes) else text.encode())

    with pytest.raises(UserError, match=words):
        read_model_config(path)
