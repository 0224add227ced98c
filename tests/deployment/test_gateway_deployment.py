"""`tfllm deploy` of exports that keep texts in the server: servers by name, and the gateway."""

import configparser
import dataclasses
import json
import re
from pathlib import Path

import pytest
import yaml
from test_deployment import LARGE, QUICKSTART, at, read_yaml

from tfllm import cli
from tfllm.deployment.flags import flags
from tfllm.deployment.folder import write_exports
from tfllm.deployment.sizes import Sizes
from tfllm.errors import UserError
from tfllm.gateway import metrics as _counted_by_the_gateway  # noqa: F401
from tfllm.serving import monitoring

SLOTS = dataclasses.replace(QUICKSTART, sessions=8, session_bytes=2**23)
LARGE_SLOTS = dataclasses.replace(LARGE, sessions=16, session_bytes=2**30)


@pytest.fixture
def written(tmp_path):
    exports = [at(tmp_path, SLOTS), at(tmp_path, LARGE)]
    write_exports(tmp_path / "deploy", exports, cpus=8, servers=3)
    (tmp_path / "deploy" / "keys.txt").write_text("sk-one")
    return tmp_path / "deploy"


def gateway(written):
    return read_yaml(written / "compose.yaml")["services"]["gateway"]


def of_kind(written, name, kind):
    documents = yaml.safe_load_all((written / "kubernetes" / name).read_text())
    (found,) = [document for document in documents if document["kind"] == kind]
    return found["spec"]


def pod(written):
    (container,) = of_kind(written, "gateway.yaml", "Deployment")["template"]["spec"]["containers"]
    return container


def test_compose_and_kubernetes_start_the_gateway_alike(written):
    def options(command):
        return [argument for argument in command if argument.startswith("--")]

    assert options(pod(written)["args"]) == options(gateway(written)["command"])
    assert (
        pod(written)["resources"]["limits"]["memory"] == gateway(written)["mem_limit"][:-1] + "Mi"
    )
    (mount,) = pod(written)["volumeMounts"]
    assert "--api-keys=/keys/keys.txt" in pod(written)["args"]
    assert (mount["mountPath"], gateway(written)["secrets"][0]["target"]) == (
        "/keys",
        "/keys/keys.txt",
    )


def test_the_port_of_grpc_is_open_everywhere(written):
    assert "--grpc-port=8081" in gateway(written)["command"]
    assert "127.0.0.1:8081:8081" in gateway(written)["ports"]
    open_ports = {each["name"]: each["containerPort"] for each in pod(written)["ports"]}
    assert open_ports == {"http": 8080, "grpc": 8081}
    service = of_kind(written, "gateway.yaml", "Service")
    assert {each["targetPort"]: each["port"] for each in service["ports"]} == {
        "http": 80,
        "grpc": 8081,
    }
    assert "EXPOSE 8080 8081" in (written / "gateway" / "Dockerfile").read_text()


def test_the_gateway_knows_each_server_by_its_own_name(written):
    servers = of_kind(written, "serving.yaml", "StatefulSet")
    service = of_kind(written, "service.yaml", "Service")
    assert (servers["serviceName"], service["clusterIP"]) == ("serving", "None")
    assert [argument for argument in pod(written)["args"] if "/" in argument][:-1] == [
        f"serving-{number}.serving:8500/{model}"
        for number in range(servers["replicas"])
        for model in ("gpt", "large")
    ]


def test_texts_of_sessions_are_never_batched_by_the_server(written):
    command = read_yaml(written / "compose.yaml")["services"]["serving"]["command"]
    assert "--enable_batching=false" in command
    assert not any("batching_parameters" in flag for flag in command)
    assert not (written / "batching.config").exists()
    # One call at a time: all cores are its own, unless the model is too small for more than one.
    assert "--tensorflow_intra_op_parallelism=8" in command
    assert "--tensorflow_intra_op_parallelism=1" in dict(flags(Sizes([SLOTS], 8)))


def test_memory_holds_the_slots_of_three_versions_and_a_copy():
    without, with_slots = Sizes([LARGE], 4), Sizes([LARGE_SLOTS], 4)
    weights = 3 * without.weights_mib
    assert 0 <= with_slots.memory_mib - (512 + weights + 4 * 1024) < 256


def test_the_longest_text_has_time_to_end(written):
    (grace,) = re.findall(r"--grace=(\d+)", " ".join(pod(written)["args"]))
    # 2,048 steps of 1 ms and 2 GB at 30 GB/s, of which a full one takes six times as long.
    assert 2048 * 6 * (0.001 + 2 / 30) < int(grace) < 900
    deployment = of_kind(written, "gateway.yaml", "Deployment")["template"]["spec"]
    (_, pause_s) = pod(written)["lifecycle"]["preStop"]["exec"]["command"]
    assert deployment["terminationGracePeriodSeconds"] > int(grace) + int(pause_s)
    assert int(gateway(written)["stop_grace_period"][:-1]) > int(grace)
    assert Sizes([SLOTS], 4).longest_text_s == 30


def test_all_files_that_are_named_are_there(written):
    kustomization = read_yaml(written / "kustomization.yaml")
    (configs,), (secrets,) = kustomization["configMapGenerator"], kustomization["secretGenerator"]
    for name in kustomization["resources"] + configs["files"] + secrets["files"]:
        assert (written / name).is_file()
    (volume,) = of_kind(written, "gateway.yaml", "Deployment")["template"]["spec"]["volumes"]
    assert volume["secret"]["secretName"] == secrets["name"]
    prometheus = read_yaml(written / "prometheus/prometheus.yml")
    assert all((written / "prometheus" / name).is_file() for name in prometheus["rule_files"])
    assert {
        job["job_name"]: job["static_configs"][0]["targets"] for job in prometheus["scrape_configs"]
    } == {
        "serving": ["serving:8501"],
        "gateway": ["gateway:8080"],
    }
    assert "grafana/gateway.json" in (written / "compose.yaml").read_text()
    (image,) = kustomization["images"]
    assert gateway(written)["image"] == f"{image['newName']}:{image['newTag']}"
    assert pod(written)["image"] == image["name"]


def test_all_metrics_that_are_looked_at_are_the_gateways(written):
    known = set()
    for name, kind in re.findall(r"# TYPE (\S+) (\w+)", monitoring.page()):
        parts = ("_bucket", "_sum", "_count") if kind == "histogram" else ("",)
        known.update(f"{name}{part}" for part in parts)
    for name, fewest in (("prometheus/gateway.yml", 3), ("grafana/gateway.json", 12)):
        used = set(re.findall(r":tfllm:[\w:]+", (written / name).read_text()))
        assert len(used) >= fewest
        assert used <= known
    panels = json.loads((written / "grafana/gateway.json").read_text())["panels"]
    assert all(panel["description"] for panel in panels)


def test_the_image_has_the_packages_that_tfllm_asks_for(written):
    found = re.findall(r'"([\w-]+)(>=[^"]+)"', (written / "gateway" / "Dockerfile").read_text())
    setup = configparser.ConfigParser()
    setup.read(Path(__file__).parents[2] / "setup.cfg")
    asked = setup["options"]["install_requires"].splitlines()
    # What the others ask for in turn, and is imported by name.
    of_others = {"ml_dtypes", "protobuf"}
    assert len(found) >= 9
    for name, versions in found:
        assert name in of_others or f"{name}{versions}" in asked


def test_a_replaced_folder_keeps_its_keys_and_nothing_else(written, tmp_path):
    (written / "notes.txt").touch()
    write_exports(written, [at(tmp_path, SLOTS)], overwrite=True)
    assert (written / "keys.txt").read_text() == "sk-one"
    assert not (written / "notes.txt").exists()


@pytest.mark.parametrize(
    ("export", "servers", "words"),
    [(SLOTS, 0, "at least 1, got 0"), (QUICKSTART, 2, "The autoscaler chooses")],
)
def test_numbers_of_servers_that_cannot_be_are_refused(export, servers, words, tmp_path):
    with pytest.raises(UserError, match=words):
        write_exports(tmp_path / "deploy", [at(tmp_path, export)], servers=servers)
    assert not (tmp_path / "deploy").exists()


def test_the_number_of_servers_is_an_option(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert cli.main(["deploy", "out", "--model", "none", "--servers", "2"]) == 2
    assert "has no versions" in capsys.readouterr().err
