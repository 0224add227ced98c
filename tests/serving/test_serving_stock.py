"""The command line of the stock server, and its start with a program that stands in its place."""

import os
import subprocess
import sys

import pytest
from google.protobuf import text_format
from tensorflow_serving.config import model_server_config_pb2

from tfllm.errors import UserError
from tfllm.serving import ServedModel, run_stock_server, stock_server_command
from tfllm.serving.model_config import models_of, read_model_config

RUN = """
import sys
from tfllm.serving import run_stock_server
run_stock_server(sys.argv[1:], port=8599)
"""


def test_one_model_is_said_by_flags(tmp_path):
    (tmp_path / "gpt").mkdir()

    assert stock_server_command([tmp_path / "gpt"], 8501, poll_s=0.5) == [
        "tensorflow_model_server",
        "--port=8501",
        "--file_system_poll_wait_seconds=1",
        "--model_name=gpt",
        f"--model_base_path={tmp_path}/gpt",
    ]


def test_several_models_are_written_to_a_config_file(tmp_path):
    models = {
        "a": ServedModel("/models/a", latest=2, labels={"stable": 3}),
        "b": ServedModel("/models/b"),
    }
    path = tmp_path / "models.config"

    command = stock_server_command(models, config_file=path)

    assert command[-2:] == [
        f"--model_config_file={path}",
        "--allow_version_labels_for_unavailable_models=true",
    ]
    config = text_format.Parse(path.read_text(), model_server_config_pb2.ModelServerConfig())
    first, second = config.model_config_list.config
    assert (first.name, first.base_path, first.model_platform) == ("a", "/models/a", "tensorflow")
    assert first.model_version_policy.latest.num_versions == 2
    assert first.version_labels == {"stable": 3}
    assert second == model_server_config_pb2.ModelConfig(
        name="b", base_path="/models/b", model_platform="tensorflow"
    )


def test_a_config_file_that_is_needed_must_be_given():
    with pytest.raises(UserError, match="need a config_file"):
        stock_server_command({"a": ServedModel("/a"), "b": ServedModel("/b")})


def test_without_the_binary_the_error_says_how_to_install_it(tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))

    with pytest.raises(UserError, match=r"Debian package tensorflow-model-server .*docker run -p"):
        run_stock_server([tmp_path])


def test_the_binary_takes_the_place_of_the_process(tmp_path):
    (tmp_path / "gpt").mkdir()
    binary = tmp_path / "tensorflow_model_server"
    binary.write_text('#!/bin/sh\necho "$$ $0 $@"\n')
    binary.chmod(0o755)
    environment = {**os.environ, "PATH": f"{tmp_path}:{os.environ['PATH']}"}

    process = subprocess.Popen(
        [sys.executable, "-c", RUN, str(tmp_path / "gpt")],
        stdout=subprocess.PIPE,
        text=True,
        env=environment,
    )

    told = process.communicate(timeout=60)[0].split()
    assert told[:3] == [str(process.pid), str(binary), "--port=8599"]
    assert told[-1] == f"--model_base_path={tmp_path}/gpt"


def test_every_policy_is_written_as_it_is_read(tmp_path):
    models = {
        "newest": ServedModel("/models/a", 2),
        "all": ServedModel("/models/b", None, {"stable": 4}),
        "some": ServedModel("/models/c", versions=frozenset({3, 1})),
    }
    path = tmp_path / "models.config"

    stock_server_command(models, config_file=path)

    assert models_of(read_model_config(path)) == models
