"""The code of the guides runs as it stands; small checkpoints take the place of the real ones."""

import json
import os
import re
import shlex
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from test_readme import free_port

from tfllm.serving import Client

ROOT = Path(__file__).parents[1]
FIXTURES = ROOT / "tests" / "huggingface" / "fixtures"
CHECKPOINTS = {
    "gpt2": "gpt2",
    "bert-sentiment": "bert-classifier",
    "t5-small": "t5-relu",
    "opus-mt-en-fr": "marian-shared",
}


@pytest.fixture
def folder(tmp_path, monkeypatch):
    (tmp_path / "checkpoints").mkdir()
    for name, fixture in CHECKPOINTS.items():
        (tmp_path / "checkpoints" / name).symlink_to(FIXTURES / fixture)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def blocks(language):
    guide = (ROOT / "docs" / "pretrained.md").read_text()
    return re.findall(rf"^```{language}\n(.*?)^```", guide, re.MULTILINE | re.DOTALL)


@pytest.mark.usefixtures("folder")
def test_the_python_of_the_guide_to_pretrained_models_runs(capsys):
    names = {}
    for block in blocks("python"):
        exec(compile(block, "pretrained.md", "exec"), names)
    assert len(capsys.readouterr().out.splitlines()) > 8
    assert names["model"].generation.num_beams >= 1
    assert Path("checkpoints/mine/config.json").is_file()


@pytest.mark.usefixtures("folder")
def test_the_commands_of_the_guide_to_pretrained_models_run():
    (block,) = blocks("sh")
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    port, server, answers = free_port(), None, []
    try:
        for line in block.replace("8500", str(port)).splitlines():
            words = shlex.split(line.removesuffix(" &"))
            command = [sys.executable, "-m", *words]
            if line.endswith(" &"):
                server = subprocess.Popen(command, env=environment)
                with Client(f"localhost:{port}", "en-fr") as client:
                    client.wait_until_available(120)
                continue
            done = subprocess.run(
                command, env=environment, capture_output=True, text=True, check=False
            )
            assert done.returncode == 0, done.stderr
            answers.append(json.loads(done.stdout))
    finally:
        if server:
            server.send_signal(signal.SIGTERM)
            assert server.wait(30) == 0
    beams, default = answers[-2]["beams"][0], answers[-1]
    assert default["text"] == [beams["text"][0]]
