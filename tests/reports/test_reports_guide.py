"""The guide to the reports runs as it stands, on small untrained models."""

import json
import re
import shlex
from pathlib import Path

import pytest

from tfllm.models import TextClassifier

GUIDE = (Path(__file__).parents[2] / "docs" / "reports.md").read_text()


def blocks(language):
    return re.findall(rf"^```{language}\n(.*?)^```", GUIDE, re.MULTILINE | re.DOTALL)


@pytest.fixture
def folder(tmp_path, monkeypatch, new_model, new_backbone, read_by, texts):
    model = new_model("gpt", num_layers=1, max_sequence_length=128)
    model.save_to_preset(str(tmp_path / "runs" / "gpt" / "preset"))
    classifier = read_by(TextClassifier, new_backbone("bert"), labels=["sad", "glad"])
    classifier.save_to_preset(str(tmp_path / "runs" / "classifier" / "preset"))
    (tmp_path / "train.txt").write_text(" ".join(texts) * 2)
    (tmp_path / "heldout.txt").write_text(" ".join(texts[::-1]) * 2)
    (tmp_path / "templates.json").write_text(*blocks("json"))
    monkeypatch.chdir(tmp_path)


@pytest.mark.usefixtures("folder")
def test_the_commands_of_the_guide_run(run):
    commands = "".join(blocks("sh")).splitlines()
    assert len(commands) == 5
    for command in commands:
        # The code of six digits is compared with fewer others here.
        short = ["--sample", "20"] * ("--canary" in command)
        code, found, err = run(*shlex.split(command)[1:], *short)
        assert code == 0
        assert all(sentence in err for sentence in found["does_not_show"])
        if "--out" in command:
            report = Path("reports", found["report"], "report.json")
            assert json.loads(report.read_text())["report"] == found["report"]


@pytest.mark.usefixtures("folder")
def test_the_python_of_the_guide_runs(capsys):
    (block,) = blocks("python")
    exec(compile(block, "reports.md", "exec"), {})
    assert "women − men" in capsys.readouterr().out
