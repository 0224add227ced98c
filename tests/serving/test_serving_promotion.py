"""`promote` and `rollback` against servers on real sockets."""

import contextlib
import json
from concurrent import futures

import grpc
import numpy as np
import pytest
from tensorflow_serving.apis import (
    get_model_status_pb2,
    model_management_pb2,
    model_service_pb2_grpc,
)

from tfllm import cli
from tfllm.aside import locked
from tfllm.errors import Failure, UserError
from tfllm.serving import Client, Server, ServingError, promote, rollback
from tfllm.serving.config_file import ConfigFile
from tfllm.serving.model_config import read_model_config
from tfllm.serving.models_file import ModelsFile
from tfllm.serving.states import LabelRule, VersionOptions

STABLE_1 = (
    "model_version_policy { specific { versions: 1 } } version_labels { key: 'stable' value: 1 }"
)


def write(path, base, more=STABLE_1, others=""):
    path.write_text(
        "# Said by hand.\n#\n# It stays.\n"
        f"model_config_list {{ config {{ name: 'vec' base_path: '{base}' "
        f"model_platform: 'tensorflow' {more} }} {others} }}\n"
    )
    return path


@pytest.fixture
def config_file(tmp_path, vec_versions):
    return write(tmp_path / "models.config", vec_versions)


@contextlib.contextmanager
def serving(path):
    models = ConfigFile(path, label_rule=LabelRule.NEW).models
    options = VersionOptions(label_rule=LabelRule.NEW)
    with Server(models, port=0, poll_s=0.02, version_options=options) as server:
        server.wait_until_available(120)
        yield server


def address(server):
    return f"127.0.0.1:{server.port}"


def factor(server, label):
    with Client(address(server), "vec", version_label=label) as client:
        inputs = {"x": np.ones([1, 2], np.float32), "n": np.ones([1], np.int32)}
        return client.predict(inputs)["y"][0, 0]


def told(path):
    (entry,) = read_model_config(path).model_config_list.config
    return dict(entry.version_labels), list(entry.model_version_policy.specific.versions)


def test_a_label_moves_on_all_servers_to_a_version_that_none_had_loaded(config_file):
    with serving(config_file) as one, serving(config_file) as two:
        addresses = [address(one), address(two)]
        moved = promote(addresses, "vec", 3, config_file=config_file)
        assert [factor(server, "stable") for server in (one, two)] == [3.0, 3.0]
    assert moved == ("vec", {"stable": 3}, {"stable": 1})
    assert told(config_file) == ({"stable": 3}, [1, 3])
    assert config_file.read_text().startswith("# Said by hand.\n#\n# It stays.\nmodel_config_list")


def test_a_canary_leaves_the_stable_version_and_a_rollback_undoes_one_step(config_file):
    with serving(config_file) as server:
        promote([address(server)], "vec", 2, label="canary", config_file=config_file)
        assert (factor(server, "stable"), factor(server, "canary")) == (1.0, 2.0)
        promote([address(server)], "vec", 2, config_file=config_file)
        assert factor(server, "stable") == 2.0
        promote([address(server)], "vec", 3, label="canary", config_file=config_file)
        assert told(config_file) == ({"stable": 2, "canary": 3}, [2, 3])

        rollback([address(server)], "vec", config_file=config_file)
        assert factor(server, "canary") == 2.0
        moved = rollback([address(server)], "vec", config_file=config_file)
        assert (factor(server, "stable"), factor(server, "canary")) == (1.0, 2.0)
        assert moved == ("vec", {"stable": 1, "canary": 2}, {"stable": 2, "canary": 2})
        rollback([address(server)], "vec", config_file=config_file)
        with pytest.raises(ServingError, match="canary"):
            factor(server, "canary")
        with pytest.raises(UserError, match="no earlier labels of vec"):
            rollback([address(server)], "vec", config_file=config_file)
    assert told(config_file)[0] == {"stable": 1}


def test_a_version_that_does_not_load_changes_nothing(config_file, tmp_path, vec_versions, publish):
    base = tmp_path / "base"
    for version in (1, 2):
        publish(vec_versions / str(version), base / str(version))
    (base / "2" / "saved_model.pb").unlink()
    before = write(config_file, base).read_bytes()
    with serving(config_file) as server:
        with pytest.raises(Failure, match=r"(?s)version 2 of vec failed to load.*No label"):
            promote([address(server)], "vec", 2, config_file=config_file)
        with pytest.raises(Failure, match="not seen version 7"):
            promote([address(server)], "vec", 7, config_file=config_file, wait_s=0.3)
        assert factor(server, "stable") == 1.0
        model = server.versions.models["vec"]
        assert (model.versions, model.labels) == ({1}, {"stable": 1})
    assert config_file.read_bytes() == before


class Refusing(model_service_pb2_grpc.ModelServiceServicer):
    """A server that has versions 1 and 2 and refuses to move the label, in one of two ways."""

    def __init__(self, says_so_in_the_response):
        self.says_so_in_the_response = says_so_in_the_response
        self.labels = []

    def GetModelStatus(self, request, context):  # noqa: ARG002
        response = get_model_status_pb2.GetModelStatusResponse()
        for version in (2, 1):
            response.model_version_status.add(version=version, state="AVAILABLE")
        return response

    def HandleReloadConfigRequest(self, request, context):
        (entry,) = request.config.model_config_list.config
        self.labels.append(dict(entry.version_labels))
        response = model_management_pb2.ReloadConfigResponse()
        if entry.version_labels["stable"] == 2:
            if not self.says_so_in_the_response:
                context.abort(grpc.StatusCode.FAILED_PRECONDITION, "not today")
            response.status.error_code, response.status.error_message = 9, "not today"
        return response


@pytest.mark.parametrize("says_so_in_the_response", [True, False])
def test_when_one_of_two_servers_refuses_the_other_is_set_back(
    config_file, says_so_in_the_response
):
    before = config_file.read_bytes()
    refusing = Refusing(says_so_in_the_response)
    poor = grpc.server(futures.ThreadPoolExecutor(2))
    model_service_pb2_grpc.add_ModelServiceServicer_to_server(refusing, poor)
    there = f"127.0.0.1:{poor.add_insecure_port('127.0.0.1:0')}"
    poor.start()
    with serving(config_file) as good:
        with pytest.raises(Failure, match=rf"{there}: not today. No label has moved"):
            promote([address(good), there], "vec", 2, config_file=config_file)
        assert factor(good, "stable") == 1.0
    poor.stop(None).wait()
    assert refusing.labels == [{"stable": 1}, {"stable": 2}, {"stable": 1}]
    assert config_file.read_bytes() == before


def test_when_the_file_cannot_be_written_the_servers_are_set_back(config_file):
    config_file.with_name(f".{config_file.name}").mkdir()  # where it is written aside
    with serving(config_file) as server:
        with pytest.raises(Failure, match=r"Is a directory.*No label has moved"):
            promote([address(server)], "vec", 2, config_file=config_file)
        assert factor(server, "stable") == 1.0
    assert told(config_file) == ({"stable": 1}, [1])


def test_two_changes_at_a_time_are_refused(config_file):
    with (
        locked(config_file.parent, "busy"),
        pytest.raises(UserError, match=r"models\.config is being changed by another process"),
    ):
        promote(["localhost:1"], "vec", 2, config_file=config_file)


def test_a_server_that_is_gone_stops_it_before_anything_is_sent(config_file):
    before = config_file.read_bytes()
    with serving(config_file) as gone:
        pass
    with serving(config_file) as server:
        with pytest.raises(ServingError, match="UNAVAILABLE"):
            promote(
                [address(server), address(gone)], "vec", 2, config_file=config_file, timeout_s=1
            )
        assert server.versions.models["vec"].versions == {1}
    assert config_file.read_bytes() == before


@pytest.mark.parametrize(
    ("policy", "versions"),
    [("", [2, 3]), ("model_version_policy { latest { num_versions: 2 } }", [2, 3])],
)
def test_what_was_served_without_a_label_stays_loaded(config_file, vec_versions, policy, versions):
    write(config_file, vec_versions, policy)
    with serving(config_file) as server:
        promote([address(server)], "vec", 2, config_file=config_file)
        assert factor(server, "stable") == 2.0
    assert told(config_file) == ({"stable": 2}, versions)


def test_a_policy_of_all_versions_stays(config_file, vec_versions):
    write(config_file, vec_versions, "model_version_policy { all {} }")
    with serving(config_file) as server:
        promote([address(server)], "vec", 1, config_file=config_file)
        assert factor(server, "stable") == 1.0
        rollback([address(server)], "vec", config_file=config_file)
        assert not server.versions.models["vec"].labels
    (entry,) = read_model_config(config_file).model_config_list.config
    assert entry.model_version_policy.HasField("all")


def test_each_model_has_its_own_past(config_file, vec_versions):
    file = ModelsFile(write(config_file, vec_versions))
    other = file.entry("vec")
    other.name = "other"
    file.config.model_config_list.config.add().CopyFrom(other)
    file.push("vec")
    for version in range(2, 40):
        file.push("other")
        other.version_labels["stable"] = version
        file.write(file.with_entry(other))
    file = ModelsFile(config_file)
    assert file.before("other").version_labels["stable"] == 38
    with pytest.raises(UserError, match="no earlier labels of vec"):  # it is too long ago
        file.before("vec")
    assert len(config_file.read_text().split("# before: ")) == 21


def test_a_past_that_is_damaged_is_told(config_file):
    with config_file.open("a") as lines:
        lines.write("# before: name\n")
    with pytest.raises(UserError, match="remove the damaged comment"):
        ModelsFile(config_file).before("vec")


def test_the_command_line_moves_labels(config_file, capsys):
    with serving(config_file) as server:
        place = [f"{address(server)}/vec", "--config", str(config_file)]
        assert cli.main(["promote", *place, "--version", "2", "--label", "canary"]) == 0
        assert factor(server, "canary") == 2.0
        assert cli.main(["rollback", *place]) == 0
        assert cli.main(["rollback", *place]) == 2
    out, err = capsys.readouterr()
    assert json.loads(out.splitlines()[0])["labels"] == {"stable": 1, "canary": 2}
    assert "no earlier labels" in err


def test_rest_cannot_move_labels(config_file):
    with pytest.raises(UserError, match="give its gRPC port"):
        promote(["localhost:1", "http://localhost:2"], "vec", 2, config_file=config_file)
    with (
        Client("http://127.0.0.1:8501", "vec") as client,
        pytest.raises(UserError, match="give its gRPC port"),
    ):
        client.reload(ModelsFile(config_file).config)
