"""`tfllm serve` with the flags and files of tensorflow_model_server."""

import argparse
import contextlib
import json
import logging
import os
import signal
import socket
import threading
import urllib.request
from concurrent import futures

import numpy as np
import pytest

from tfllm import cli
from tfllm.commands.stock_flags import REFUSED, WITHOUT_EFFECT, channel_arguments, flag_bool
from tfllm.errors import UserError
from tfllm.serving import Client, Server, ServingError
from tfllm.serving.config_file import ConfigFile
from tfllm.serving.config_protos import read_monitoring_config
from tfllm.serving.states import LabelRule


def config_text(*entries):
    configs = " ".join(
        f'config {{ name: "{name}" base_path: "{path}" model_platform: "tensorflow" {rest} }}'
        for name, path, rest in entries
    )
    return f"model_config_list {{ {configs} }}"


def write_config(path, *entries):
    aside = path.with_suffix(".new")
    aside.write_text(config_text(*entries))
    aside.rename(path)
    return path


LABEL = 'version_labels { key: "stable" value: 3 }'


def wait_until_served(server, *names):
    found = server.versions.wait_until(
        lambda: (
            set(server.versions.models) == set(names)
            and all(map(server.versions.is_available, names))
        ),
        20,
    )
    assert found, server.versions.models


@contextlib.contextmanager
def logged(words):
    """An event that is set when the words are logged."""
    event, log = threading.Event(), logging.getLogger("tfllm.serving.config_file")

    def look(record):
        if words in record.getMessage():
            event.set()
        return True

    log.addFilter(look)
    yield event
    log.removeFilter(look)


def test_a_config_file_is_followed(tmp_path, vec_versions):
    path = write_config(tmp_path / "models.config", ("a", vec_versions, ""))
    file = ConfigFile(path, poll_s=0.01)

    with Server(file.models, port=0, poll_s=0.02) as server, file.followed_by(server.reloader):
        wait_until_served(server, "a")
        # A base path that is not there yet holds up nothing.
        write_config(path, ("b", vec_versions, ""), ("c", tmp_path / "to_come", ""))
        assert server.versions.wait_until(lambda: set(server.versions.models) == {"b", "c"}, 120)
        write_config(path, ("b", vec_versions, ""))
        wait_until_served(server, "b")
        write_config(path, ("b", vec_versions, LABEL))
        assert server.versions.wait_until(lambda: server.versions.models["b"].labels, 120)

        with logged("changes nothing") as has_logged:
            write_config(path, ("b", vec_versions, ""), ("b", vec_versions, ""))
            assert has_logged.wait(120)
        assert set(server.versions.models) == {"b"}


def test_what_a_client_has_set_is_set_back_at_the_next_look(tmp_path, vec_versions):
    path = write_config(tmp_path / "models.config", ("a", vec_versions, ""))
    file = ConfigFile(path, poll_s=0.01)

    with Server(file.models, port=0, poll_s=0.02) as server, file.followed_by(server.reloader):
        server.reload({"other": vec_versions})
        wait_until_served(server, "a")


def test_labels_at_the_start_need_the_flag_of_the_stock_server(tmp_path, vec_versions):
    path = write_config(tmp_path / "models.config", ("vec", vec_versions, LABEL))

    with pytest.raises(UserError, match="--allow_version_labels_for_unavailable_models"):
        ConfigFile(path)
    assert ConfigFile(path, label_rule=LabelRule.NEW).models["vec"].labels == {"stable": 3}


def test_a_config_that_the_stock_server_refuses_is_refused(tmp_path):
    path = write_config(tmp_path / "models.config", ("vec", "models/vec", ""))

    with pytest.raises(UserError, match="Expected model vec to have an absolute path or URI"):
        ConfigFile(path)


def free_port():
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        return listening.getsockname()[1]


def serve(arguments, ask):
    """What `ask` gives while `tfllm serve` runs with the arguments; SIGTERM ends it."""

    def ask_then_terminate():
        try:
            return ask()
        finally:
            os.kill(os.getpid(), signal.SIGTERM)

    with futures.ThreadPoolExecutor(1) as thread:
        asking = thread.submit(ask_then_terminate)
        assert cli.main(["serve", *arguments]) == 0
        return asking.result(120)


def test_the_command_line_of_the_stock_server_works(tmp_path, vec_versions, capfd, monkeypatch):
    monkeypatch.setenv("TF_CPP_MIN_LOG_LEVEL", "3")
    path = write_config(
        tmp_path / "models.config",
        (
            "vec",
            vec_versions,
            "model_version_policy { specific { versions: 1 versions: 3 } }" + LABEL,
        ),
    )
    port = free_port()

    def ask():
        with Client(f"127.0.0.1:{port}", "vec") as client:
            client.wait_until_available(120)
            return {told.version for told in client.status()}

    arguments = [
        f"--port={port}",
        f"--model_config_file={path}",
        "--model_config_file_poll_wait_seconds=60",
        "--allow_version_labels_for_unavailable_models=true",
        # What the stock server's Docker image adds; a config file goes before them.
        "--model_name=model",
        "--model_base_path=/models/model",
        "--file_system_poll_wait_seconds=1",
        "--enable_model_warmup",
        "--grpc_channel_arguments=grpc.max_connection_age_ms=200000",
        "--num_load_threads=4",
        "--flush_filesystem_caches=false",
        "--saved_model_tags=serve",
        "--use_alts_credentials=false",
    ]
    assert serve(arguments, ask) == {1, 3}
    told = capfd.readouterr().err
    assert "--num_load_threads has no effect here: versions are loaded one after the other" in told
    assert "--flush_filesystem_caches has no effect here" in told
    assert "saved_model_tags" not in told


def test_rest_metrics_and_batching_come_with_their_flags(tmp_path, vec_versions, monkeypatch):
    monkeypatch.setenv("TF_CPP_MIN_LOG_LEVEL", "3")
    monitoring, batching = tmp_path / "monitoring.config", tmp_path / "batching.config"
    monitoring.write_text('prometheus_config { enable: true path: "/metrics" }')
    batching.write_text("max_batch_size { value: 2 }")
    port, rest_port = free_port(), free_port()

    def ask():
        with Client(f"127.0.0.1:{port}", "default") as client:
            client.wait_until_available(120)
            three = {"x": np.ones([3, 2], np.float32), "n": np.ones([3], np.int32)}
            with pytest.raises(ServingError, match="larger than maximum input batch size 2"):
                client.predict(three)
        with urllib.request.urlopen(f"http://127.0.0.1:{rest_port}/metrics", timeout=120) as page:
            metrics = page.read().decode()
        url = f"http://127.0.0.1:{rest_port}/v1/models/default"
        with urllib.request.urlopen(url, timeout=120) as page:
            return metrics, json.load(page)

    metrics, status = serve(
        [
            f"--port={port}",
            f"--rest_api_port={rest_port}",
            f"--model_base_path={vec_versions}",
            f"--monitoring_config_file={monitoring}",
            "--enable_batching",
            f"--batching_parameters_file={batching}",
        ],
        ask,
    )
    assert ":tensorflow:serving:request_count" in metrics
    assert status["model_version_status"][0]["state"] == "AVAILABLE"


@pytest.mark.parametrize("is_asked_for", [False, True])
def test_what_clients_send_is_logged_only_when_asked_for(
    vec_versions, monkeypatch, capfd, is_asked_for, ask
):
    monkeypatch.setenv("TF_CPP_MIN_LOG_LEVEL", "3")
    requests = logging.getLogger("tfllm.serving.requests")
    port, rest_port = free_port(), free_port()
    monkeypatch.setattr(requests, "level", requests.level)

    def send():
        with Client(f"127.0.0.1:{port}", "default") as client:
            client.wait_until_available(120)
            client.predict({"text": ["a secret"]}, "opt")
            with pytest.raises(ServingError):
                client.predict({"text": ["a secret"], "seed": np.array(["a secret"])}, "opt")
        ask(rest_port, "POST", "/v1/models/default:predict", {"inputs": {"text": ["whispered"]}})

    ports = [f"--port={port}", f"--rest-port={rest_port}"]
    arguments = ["--log-requests"] * is_asked_for
    serve([*ports, f"--model_base_path={vec_versions}", *arguments], send)
    told = capfd.readouterr().err
    assert [word in told for word in ("a secret", "whispered")] == [is_asked_for] * 2


def test_a_base_path_of_the_stock_servers_flags_is_named_default(vec_versions, monkeypatch):
    monkeypatch.setenv("TF_CPP_MIN_LOG_LEVEL", "3")
    port = free_port()

    def ask():
        with Client(f"127.0.0.1:{port}", "default") as client:
            client.wait_until_available(120)
            return client.status()[0].version

    assert serve([f"--port={port}", f"--model_base_path={vec_versions}"], ask) == 3


@pytest.mark.parametrize("name", REFUSED)
def test_a_flag_that_changes_answers_is_refused_unless_it_says_the_usual(name, tmp_path, capsys):
    assert cli.main(["serve", str(tmp_path), f"--{name}=other"]) == 2
    assert f"--{name} is not for the embedded server: " in capsys.readouterr().err


@pytest.mark.parametrize("name", ["enable_profiler", "skip_initialize_tpu"])
def test_a_switch_needs_no_value(name, tmp_path, capsys):
    assert cli.main(["serve", str(tmp_path / "missing"), f"--{name}"]) == 2
    told = capsys.readouterr().err
    assert f"--{name} has no effect here: {WITHOUT_EFFECT[name]}." in told
    assert "there is none at" in told


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ([], "Give the BASE of a model"),
        (["a", "--model_base_path=b"], "Give BASE or --model_base_path, not both"),
        (["a", "--model_config_file=b"], "Give BASE or --model_config_file, not both"),
        (["--model_config_file=missing"], "cannot read missing: No such file"),
        (["--model_base_path=missing"], "there is none at missing"),
        (["a", "--batching_parameters_file=b"], "is for --enable_batching: give both"),
        (["a", "--monitoring_config_file=b"], "is for --rest_api_port: give both"),
        (["a", "--file_system_poll_wait_seconds=-1"], "must be 0 or more: got -1"),
        (["a", "--ssl_config_file=missing"], "cannot read missing: No such file"),
        (
            ["a", "--enable_model_warmup=false", "--server", "tensorflow_model_server"],
            "--enable_model_warmup is a flag of tensorflow_model_server itself",
        ),
    ],
)
def test_wrong_use_is_told_with_exit_code_2(arguments, words, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "a").mkdir()

    assert cli.main(["serve", *arguments]) == 2
    told = capsys.readouterr().err
    assert words in told
    assert "Traceback" not in told


def test_values_of_flags_are_those_of_the_stock_server():
    assert flag_bool("true") is True
    assert flag_bool("False") is False
    with pytest.raises(argparse.ArgumentTypeError, match="must be =true or =false, got 'models/x'"):
        flag_bool("models/x")
    assert channel_arguments("grpc.a=2,grpc.b=-1,grpc.c=x") == {
        "grpc.a": 2,
        "grpc.b": -1,
        "grpc.c": "x",
    }
    with pytest.raises(argparse.ArgumentTypeError, match="must look like key=value"):
        channel_arguments("grpc.a")


def test_a_monitoring_config_is_read(tmp_path):
    path = tmp_path / "monitoring.config"
    path.write_text('prometheus_config { enable: true path: "/metrics" }')

    config = read_monitoring_config(path).prometheus_config

    assert (config.enable, config.path) == (True, "/metrics")
