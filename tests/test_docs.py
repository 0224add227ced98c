"""The code of the guides runs as it stands; small checkpoints take the place of the real ones."""

import json
import os
import re
import shlex
import signal
import subprocess
import sys
from pathlib import Path
from pydoc_data.topics import topics

import pytest
import tensorflow as tf
from test_readme import free_port

from tfllm import cli
from tfllm.serving import Client, Server
from tfllm.trainers import load_recipe

ROOT = Path(__file__).parents[1]
FIXTURES = ROOT / "tests" / "huggingface" / "fixtures"
CHECKPOINTS = {
    "gpt2": "gpt2",
    "bert-classifier": "bert-classifier",
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


def blocks(language, guide="pretrained.md"):
    text = (ROOT / "docs" / guide).read_text()
    return re.findall(rf"^```{language}\n(.*?)^```", text, re.MULTILINE | re.DOTALL)


@pytest.mark.slow
@pytest.mark.usefixtures("folder")
def test_the_python_of_the_guide_to_pretrained_models_runs(capsys):
    names = {}
    for block in blocks("python"):
        exec(compile(block, "pretrained.md", "exec"), names)
    assert len(capsys.readouterr().out.splitlines()) > 8
    assert names["model"].generation.num_beams >= 1
    assert Path("checkpoints/mine/config.json").is_file()


@pytest.mark.usefixtures("folder")
def test_the_python_of_the_guide_to_machines_runs(capsys):
    module = tf.Module()
    module.double = tf.function(
        lambda x: {"y": x * 2.0}, input_signature=[tf.TensorSpec([None], tf.float32, "x")]
    )
    tf.saved_model.save(module, "models/gpt/1", signatures=module.double)
    Path("models/gpt/2").mkdir()
    (block,) = blocks("python", "machines.md")
    exec(compile(block, "machines.md", "exec"), {})
    assert "1 AVAILABLE None" in capsys.readouterr().out.splitlines()


@pytest.mark.slow
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
            assert server.wait(120) == 0
    beams, default = answers[-2]["beams"][0], answers[-1]
    assert default["text"] == [beams["text"][0]]


@pytest.mark.usefixtures("folder")
def test_the_python_of_the_guide_to_training_runs(capsys):
    Path("corpus.txt").write_text("\n\n".join(topics[name] for name in sorted(topics)[:20]))
    for block in blocks("python", "training.md"):
        exec(compile(block, "training.md", "exec"), {})
    out = capsys.readouterr().out
    assert "<|im_start|>user\nHi<|im_end|>" in out
    assert "pair_accuracy" in out


def test_the_python_of_the_guide_to_scaling_runs(capsys):
    (block,) = blocks("python", "scaling.md")
    exec(compile(block, "scaling.md", "exec"), {})
    assert capsys.readouterr().out == "AdamW\n"


@pytest.mark.usefixtures("folder")
def test_the_guide_to_evaluation_runs(capsys):
    Path("films.tsv").write_text("review\tlabel\na very good film\tglad\nbad\tsad\n")
    for command in "".join(blocks("sh", "evaluation.md")).splitlines():
        assert cli.main(shlex.split(command)[1:]) == 0
    assert json.loads(capsys.readouterr().out.splitlines()[-1])["task"] == "classification"
    for block in blocks("python", "evaluation.md"):
        exec(compile(block, "evaluation.md", "exec"), {})
    assert "accuracy" in capsys.readouterr().out


@pytest.mark.parametrize("guide", sorted(path.name for path in (ROOT / "docs").glob("*.md")))
def test_the_commands_that_a_guide_only_shows_have_these_options(guide):
    commands = "".join(blocks("console", guide)).replace("\\\n", " ").splitlines()
    for command in commands:
        words = shlex.split(command, comments=True)
        if words and words[0] == "tfllm":
            args = cli._parser().parse_args(words[1:])
            if words[1] == "train":
                load_recipe(args.recipe).with_settings(args.set)


@pytest.mark.slow
@pytest.mark.usefixtures("folder")
def test_the_guide_to_clients_runs(capsys):
    Path("questions.jsonl").write_text('{"prompt": "It was", "id": 7}\n{"prompt": "She"}\n')
    importing, exporting, _ = "".join(blocks("console", "clients.md")[:1]).splitlines()
    for command in (importing, exporting):
        assert cli.main(shlex.split(command)[1:]) == 0
    with Server({"gpt": "models/gpt"}, port=0) as server:
        server.wait_until_available(120)
        here = f"localhost:{server.port}"
        names = {}
        for block in blocks("python", "clients.md"):
            exec(compile(block.replace("localhost:8500", here), "clients.md", "exec"), names)
        out = capsys.readouterr().out
        assert "AVAILABLE ['beam_search'" in out
        assert "FAILED_PRECONDITION Serving signature key" in out
        for command in "".join(blocks("sh", "clients.md")).splitlines():
            assert cli.main(shlex.split(command.replace("localhost:8500", here))[1:]) == 0
    told = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [line["answered"] for line in told[:2]] == [2, 2]
    assert all(line["answered"] and not line["errors"] for line in told[2:])
    served, live = (
        [json.loads(line)["output"]["text"] for line in Path(name).read_text().splitlines()]
        for name in ("answers.jsonl", "offline.jsonl")
    )
    assert served == live
