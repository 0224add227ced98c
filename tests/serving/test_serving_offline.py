"""Files of questions to files of answers, over a real server, ended and taken up again."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import tensorflow as tf
from test_serving_client import Echo

from tfllm import contract
from tfllm.errors import Failure, UserError
from tfllm.serving import Client, Server
from tfllm.serving.journal import Journal
from tfllm.serving.offline import answer_file

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def server(tmp_path_factory, vec_versions, gate_versions):
    base = tmp_path_factory.mktemp("served") / "echo"
    echo = Echo()
    names = (contract.GENERATE, contract.SCORE, contract.TOKENIZE)
    signatures = {name: getattr(echo, name) for name in names}
    tf.saved_model.save(echo, str(base / "1"), signatures=signatures)
    models = {"echo": base, "vec": vec_versions, "gate": gate_versions}
    with Server(models, port=0) as server:
        server.wait_until_available(60)
        yield server


@pytest.fixture
def files(tmp_path):
    """Writes rows to one file and reads another."""

    class Files:
        source, target = tmp_path / "in.jsonl", tmp_path / "out.jsonl"

        def write(self, rows):
            lines = [row if isinstance(row, str) else json.dumps(row) for row in rows]
            self.source.write_text("".join(line + "\n" for line in lines))

        def read(self):
            return [json.loads(line) for line in self.target.read_text().splitlines()]

    return Files()


@pytest.fixture
def answer(server, files):
    def answer(model="echo", **options):
        with Client(f"127.0.0.1:{server.port}", model, timeout_s=120) as client:
            return answer_file(client, files.source, files.target, **options)

    return answer


def test_every_line_has_its_answer_or_its_reason_in_the_order_of_the_input(answer, files):
    files.write(
        [
            *({"prompt": f"p{i}", "id": i} for i in range(40)),
            {"prompt": "own", "max_new_tokens": 3, "stop": "END"},
            {"prompt": "own", "max_new_tokens": 4, "stop": ["a", "b"]},
            "",
            {"prompt": 5},
            {"text": "x"},
            {"prompt": ""},
            "{",
            "[]",
        ]
    )

    counts = answer(batch_size=3, concurrency=4, settings={"temperature": 0.5})

    assert counts == {"lines": 47, "answered": 42, "failed": 5, "asked": 47}
    told = files.read()
    assert [record["line"] for record in told] == [*range(1, 43), *range(44, 49)]
    assert [record["input"] for record in told[:40]] == [
        {"prompt": f"p{i}", "id": i} for i in range(40)
    ]
    assert [record["output"]["text"].split("|")[:3] for record in told[:42]] == [
        *([f"p{i}", "64", "0.50"] for i in range(40)),
        ["own", "3", "0.50"],
        ["own", "4", "0.50"],
    ]
    assert [record["output"]["text"].split("|")[-1] for record in told[40:42]] == [
        "END,,,",
        "a,b,,",
    ]
    assert [record["error"] for record in told[42:]] == [
        "prompt must hold str: number 0 is int.",
        "The line has no prompt; it has text.",
        "empty prompt",
        "The line is no JSON: Expecting property name enclosed in double quotes: line 2 column 1 "
        "(char 2)",
        "The line is no JSON object.",
    ]


def test_samples_and_other_signatures_have_outputs_of_their_own(answer, files):
    files.write([{"prompt": "a"}, {"prompt": "b"}])
    answer(settings={"num_return_sequences": 2, "seed": 7})
    assert [
        [sample["text"].split("|")[-2] for sample in record["output"]] for record in files.read()
    ] == [["7", "8"], ["7", "8"]]

    files.target.unlink()
    files.write([{"prompt": "a", "completion": "b"}, {"prompt": "a", "completion": ""}])
    answer(signature="score")
    scored, refused = files.read()
    assert scored["output"] == {"logprob": -1.0, "num_tokens": 1, "is_greedy": False, "error": ""}
    assert refused["error"] == "nothing to score"

    files.target.unlink()
    files.write([{"text": "ab"}])
    answer(signature="tokenize")
    assert files.read()[0]["output"] == [97, 98]


def test_a_model_that_is_no_export_of_ours_is_asked_by_its_signature(answer, files):
    files.write([{"x": [1, 2], "n": 3, "id": "a"}, {"x": [5, 6], "n": -1}, {"x": [1, 2]}])

    answer("vec")

    one, other, failed = files.read()
    assert one["output"] == {"y": [3.0, 6.0], "n1": 4, "s": "3", "l": 3, "b": True}
    assert other["output"]["y"] == [15.0, 18.0]
    assert "INVALID_ARGUMENT: input size does not match signature" in failed["error"]


def test_a_run_goes_on_where_it_was_cut_in_the_middle_of_a_record(answer, files):
    files.write([{"prompt": f"p{i}"} for i in range(10)])
    answer(batch_size=2)
    whole = files.target.read_bytes()
    lines = whole.splitlines(keepends=True)
    # As they came, and one of them half.
    files.target.write_bytes(b"".join([lines[4], lines[0], lines[7][:-9]]))
    done = []

    counts = answer(batch_size=2, on_lines=done.append)

    assert counts == {"lines": 10, "answered": 10, "failed": 0, "asked": 8}
    assert sum(done) == 10
    assert files.target.read_bytes() == whole
    assert answer()["asked"] == 0


def test_what_failed_is_asked_again_only_when_told_to(answer, files):
    files.write([{"prompt": ""}, {"prompt": "a"}])
    answer()
    assert answer()["asked"] == 0
    assert answer(retry_failed=True) == {"lines": 2, "answered": 1, "failed": 1, "asked": 1}
    assert [record["line"] for record in files.read()] == [1, 2]


def test_a_server_that_is_gone_ends_the_run_and_keeps_what_is_done(answer, files, server):
    files.write([{"prompt": f"p{i}"} for i in range(6)])
    client = Client(f"127.0.0.1:{server.port}", "echo")
    # Nobody can tell a client that was closed from a server that does not answer any more.
    with pytest.raises(Failure, match=r"1 lines are done and kept in .*: the same command"):
        answer_file(
            client,
            files.source,
            files.target,
            batch_size=1,
            concurrency=1,
            on_lines=lambda _: client.close(),
        )
    assert answer()["asked"] == 5


KILLED = """
import sys
from tfllm.serving import Client
from tfllm.serving.offline import answer_file

address, source, target = sys.argv[1:]
with Client(address, "gate", timeout_s=60) as client:
    tell = lambda number: print(number, flush=True)
    answer_file(client, source, target, batch_size=1, concurrency=2, on_lines=tell)
"""


def test_a_kill_loses_no_line_that_was_done(answer, files, server, tmp_path):
    # The model answers a line when the file of that name is there: the second is not yet.
    there, later = tmp_path / "there", tmp_path / "later"
    there.touch()
    files.write([{"path": str(there)}, {"path": str(later)}, {"path": str(there)}])
    run = [sys.executable, "-c", KILLED, f"127.0.0.1:{server.port}", files.source, files.target]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    with subprocess.Popen(run, stdout=subprocess.PIPE, env=environment) as process:
        for _ in range(2):
            process.stdout.readline()
        process.send_signal(signal.SIGKILL)
    later.touch()  # also for the request that nobody waits for any more
    assert sorted(record["line"] for record in files.read()) == [1, 3]

    assert answer("gate") == {"lines": 3, "answered": 3, "failed": 0, "asked": 1}
    assert [record["line"] for record in files.read()] == [1, 2, 3]


def test_files_that_cannot_be_these_are_refused(answer, files):
    with pytest.raises(UserError, match="Cannot read"):
        answer()
    files.write([{"prompt": "a"}])
    with pytest.raises(UserError, match="echo has no embed: it has generate"):
        answer(signature="embed")
    with pytest.raises(UserError, match="tokenize has no setting top_k"):
        answer(signature="tokenize", settings={"top_k": 3})
    assert not files.target.exists()
    for other in (
        '{"prompt": "a"}\n',
        '{"prompt": "a"}',
        '{"line": 1, "input": 2, "output": 3}\nx',
    ):
        files.target.write_text(other)
        with pytest.raises(UserError, match="is no file of answers"):
            answer()
        assert files.target.read_text() == other
    files.target.unlink()
    answer()
    files.write([{"prompt": "b"}])
    with pytest.raises(UserError, match="has answers to another input, in line 1"):
        answer()
    with Journal.opened(files.target), pytest.raises(UserError, match="Another process"):
        answer()


def test_a_live_model_answers_a_file_as_a_served_one_does(files, gpt):
    files.write([{"prompt": "a b", "id": 7}, {"prompt": "a"}])
    counts = answer_file(
        gpt, files.source, files.target, concurrency=1, settings={"max_new_tokens": 3}
    )
    assert counts["answered"] == 2
    expected = gpt.generate("a b", max_new_tokens=3)._asdict()
    expected["logprob"] = pytest.approx(expected["logprob"], abs=1e-4)  # alone, other sums
    assert files.read()[0]["output"] == expected
    files.target.unlink()
    with pytest.raises(UserError, match=r"cannot classify"):
        answer_file(gpt, files.source, files.target, signature="classify")
