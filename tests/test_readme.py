"""The code of the README runs as it stands; only the training is cut short."""

import json
import os
import re
import shlex
import signal
import socket
import subprocess
import sys
from pathlib import Path
from pydoc_data.topics import topics

import pytest

from tfllm import cli
from tfllm.serving import Client

README = (Path(__file__).parents[1] / "README.md").read_text()
SHORT = "--set steps=2 --set model.num_layers=1 --set model.hidden_dim=32 --set validation_steps=1"


def blocks(language):
    return re.findall(rf"^```{language}\n(.*?)^```", README, re.MULTILINE | re.DOTALL)


@pytest.fixture
def corpus(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    texts = [topics[name] for name in sorted(topics)][:24]
    (tmp_path / "corpus.txt").write_text("\n\n".join(texts))
    return tmp_path


@pytest.mark.usefixtures("corpus")
def test_the_commands_run_in_order(capsys):
    (block,) = blocks("sh")
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[1])}
    port, server, results = free_port(), None, []
    try:
        for line in block.replace("8500", str(port)).splitlines():
            words = shlex.split(line.removesuffix(" &"))
            assert words[0] == "tfllm"
            if line.endswith(" &"):
                command = [sys.executable, "-m", *words]
                server = subprocess.Popen(command, env=environment)
                wait_until_available(port)
                continue
            command = words[1:] + (shlex.split(SHORT) if words[1] == "train" else [])
            assert cli.main(command) == 0
            results.append(json.loads(capsys.readouterr().out))
    finally:
        if server:
            server.send_signal(signal.SIGTERM)
            assert server.wait(120) == 0
    live, served = (r["metrics"] for r in results if "metrics" in r and "target" in r)
    assert served["logprob_per_token"] == pytest.approx(live["logprob_per_token"], abs=1e-4)
    (generations,) = (r["generations"] for r in results if "generations" in r)
    assert generations[0]["finish_reason"] in ("stop", "length")


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def wait_until_available(port):
    with Client(f"localhost:{port}", "book") as client:
        client.wait_until_available(120)


@pytest.mark.usefixtures("corpus")
def test_the_python_blocks_run_in_order(capsys):
    names = {}
    for block in blocks("python"):
        exec(compile(block, "README.md", "exec"), names)
    assert names["answer"][0].finish_reason in ("stop", "length")
    assert "Score(" in capsys.readouterr().out


def test_no_number_is_still_to_be_filled_in():
    assert set(re.findall(r"\b[A-Z]+_[A-Z]+\b", README)) == {"MODEL_NAME"}
