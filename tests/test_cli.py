"""What a user gets wrong ends with exit code 2 and one line; results are one JSON line."""

import json
import subprocess
import sys

import pytest

from tfllm import cli

WRONG = {
    "a text that is not there": (["prepare", "none.txt", "--out", "out"], "none.txt"),
    "nothing to read": (["prepare", "--out", "out"], "Nothing to read"),
    "an unknown recipe": (["train", "gtp_10m", "--data", "data"], "gpt_10m"),
    "data that is not there": (["train", "gpt_10m", "--data", "data"], "data"),
    "an unknown setting": (["train", "gpt_10m", "--set", "step=5"], "steps"),
    "a preset that is not there": (["generate", "preset", "--prompt", "x"], "No preset at preset"),
    "an export of nothing": (["export", "preset", "--to", "models/x"], "No preset at preset"),
    "an evaluation of nothing": (["evaluate", "preset", "--data", "x.txt"], "No preset at preset"),
    "a base that is not there": (["serve", "models/none"], "models/none"),
    "an endpoint without a model": (["call", "localhost:8500", "--prompt", "x"], "HOST:PORT/MODEL"),
    "inputs that are no JSON": (["call", "localhost:1/m", "--inputs", "{"], "must be JSON"),
    "a call without a prompt": (["call", "localhost:1/m"], "--prompt"),
    "a prompt for another signature": (
        ["call", "localhost:1/m/tokenize", "--prompt", "x"],
        "--inputs",
    ),
    "answers without a file": (["call", "localhost:1/m", "--input", "q.jsonl"], "--output"),
    "questions that are not there": (
        ["call", "localhost:1/m", "--input", "q.jsonl", "--output", "a.jsonl"],
        "Cannot read q.jsonl",
    ),
    "a file and a prompt": (
        ["call", "localhost:1/m", "--input", "q", "--output", "a", "--prompt", "x"],
        "not both",
    ),
    "a header without a name": (
        ["call", "localhost:1/m", "--prompt", "x", "--header", "x"],
        "A header looks like",
    ),
    "a header of what is measured": (
        ["evaluate", "localhost:1/m", "--data", "x", "--request-header", "x"],
        "A header looks like",
    ),
    "a header of what is reported on": (
        ["report", "bias", "localhost:1/m", "--templates", "x", "--request-header", "x"],
        "A header looks like",
    ),
    "a load on nothing": (["bench", "somewhere"], "HOST:PORT/MODEL"),
    "a range of words": (["bench", "localhost:1/m", "--prompt-words", "few"], "8:64"),
    "one name for two models": (["serve", "a", "b", "--name", "x"], "one model, got 2"),
    "a host for the stock server": (
        ["serve", "a", "--host", "::", "--server", "tensorflow_model_server"],
        "every address",
    ),
    "a quickstart in a file": (["quickstart", "--folder", __file__], "is no folder"),
    "a version that is not there": (["inspect", "models/x/1"], "No SavedModel in models/x/1"),
}


@pytest.mark.parametrize(("arguments", "words"), WRONG.values(), ids=WRONG)
def test_wrong_use_is_told_in_one_line_with_exit_code_2(
    arguments, words, tmp_path, monkeypatch, capsys
):
    monkeypatch.chdir(tmp_path)
    assert cli.main(arguments) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert words in err
    assert "Traceback" not in err
    assert list(tmp_path.iterdir()) == []


def test_no_server_is_a_failure_with_exit_code_1(capsys):
    assert cli.main(["call", "127.0.0.1:1/gpt", "--prompt", "x", "--timeout", "1"]) == 1
    assert "127.0.0.1:1" in capsys.readouterr().err


def test_the_result_is_one_json_line(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "a.txt").write_text("one two three four five\n\n" * 40)
    command = ["prepare", "a.txt", "--out", "data", "--vocabulary-size", "300"]
    assert cli.main([*command, "--document-bytes", "1", "--validation-fraction", "0"]) == 0
    (line,) = capsys.readouterr().out.splitlines()
    assert json.loads(line)["splits"]["train"]["documents"] == 1


def test_a_fresh_process_prints_nothing_but_the_message():
    done = subprocess.run(
        [sys.executable, "-m", "tfllm", "inspect", "nowhere"],
        capture_output=True,
        text=True,
        check=False,
        env={"PATH": ""},
    )
    assert done.returncode == 2
    assert done.stderr.startswith("tfllm: No SavedModel in nowhere")
    assert len(done.stderr.splitlines()) == 1


def test_a_process_that_only_asks_servers_runs_nothing_of_tensorflow():
    program = """
import sys
from tfllm.cli import main
sys.argv = ["tfllm", "call", "127.0.0.1:1/gpt", "--prompt", "x"]
code = main()
from tensorflow.core.framework import tensor_pb2
import tensorflow
print(code, hasattr(tensorflow, "function"))
"""
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=False
    )
    assert done.stdout == "1 False\n", done.stderr
