"""Loads on a real server: what is sent is what was asked for, and all of it is counted."""

import asyncio
import json

import pytest
import tensorflow as tf
from test_serving_client import Echo

from tfllm import cli, contract
from tfllm.errors import UserError
from tfllm.serving import AsyncClient, Server, ServingError
from tfllm.serving.load import Load, Report, put_load


@pytest.fixture(scope="module")
def server(tmp_path_factory, vec_versions):
    base = tmp_path_factory.mktemp("served") / "echo"
    echo = Echo()
    names = (contract.GENERATE, contract.SCORE, contract.TOKENIZE, contract.DETOKENIZE)
    signatures = {name: getattr(echo, name) for name in names}
    tf.saved_model.save(echo, str(base / "1"), signatures=signatures)
    with Server({"echo": base, "vec": vec_versions}, port=0) as server:
        server.wait_until_available(60)
        yield server


class Listening(AsyncClient):
    """Keeps what it sends."""

    sent = ()

    async def _ask(self, signature, inputs, **options):
        self.sent = [*self.sent, inputs]
        return await super()._ask(signature, inputs, **options)


@pytest.fixture
def put(server):
    def put(load, signature=contract.GENERATE, model="echo"):
        async def run():
            async with Listening(f"127.0.0.1:{server.port}", model, retries=0) as client:
                return await put_load(client, load, signature), list(client.sent)

        return asyncio.run(run())

    return put


def test_a_closed_loop_sends_so_many_requests_of_mixed_lengths(put):
    load = Load(
        clients=4,
        requests=40,
        rows=2,
        prompt_words=(3, 9),
        new_tokens=(5, 7),
        seconds=60,
        warm_up=0,
        seed=1,
    )

    report, sent = put(load)

    assert len(sent) == len(report.latencies_s) == 40
    assert report.rows == 80
    assert {len(prompt.split()) for each in sent for prompt in each["prompt"]} == set(range(3, 10))
    asked = [number for each in sent for number in each["max_new_tokens"]]
    assert set(asked) == {5, 6, 7}
    assert report.tokens == sum(asked)
    assert report.as_json()["errors"] == {}
    key = lambda each: str(each)  # noqa: E731
    assert sorted(map(key, put(load)[1])) == sorted(map(key, sent))


def test_an_open_loop_sends_by_the_clock_whatever_is_answered(put):
    arrivals = [len(put(Load(rate=200, seconds=0.5, warm_up=0, seed=s))[1]) for s in (1, 2, 1)]

    assert arrivals[0] == arrivals[2] != arrivals[1]
    assert 60 < arrivals[0] < 150


def test_other_signatures_and_inputs_can_be_asked(put):
    report, sent = put(Load(requests=3, texts=["only these words"], warm_up=2), "tokenize")
    assert len(sent) == 5
    assert report.tokens == 3 * len("only these words")
    report, _ = put(Load(requests=3), "score")
    assert report.rows == 3
    inputs = {"x": [[1, 2]], "n": [3]}
    report, _ = put(Load(requests=3, inputs=inputs), "serving_default", "vec")
    assert (report.rows, report.tokens) == (3, 0)


def test_refusals_are_counted_by_code_and_by_reason(put):
    report, _ = put(Load(requests=4, warm_up=0, inputs={"x": [[1, 2]]}), "serving_default", "vec")
    assert report.as_json()["errors"] == {"INVALID_ARGUMENT": 4}
    assert report.as_json()["latency_ms"] == {}
    report, _ = put(Load(requests=2, texts=[""], warm_up=0))
    assert report.row_errors == {"empty prompt": 2}
    with pytest.raises(ServingError, match="NOT_FOUND"):
        put(Load(requests=2), model="nope")


def test_quantiles_are_of_the_nearest_rank():
    told = Report(latencies_s=[i / 1000 for i in range(100, 0, -1)]).latency_ms()
    assert told == {"mean": 50.5, "p50": 50.0, "p95": 95.0, "p99": 99.0, "max": 100.0}
    assert Report(latencies_s=[0.002]).latency_ms()["p99"] == 2.0


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"clients": 0}, "clients must be above 0"),
        ({"rate": -1.0}, "rate must be above 0"),
        ({"prompt_words": (5, 3)}, "prompt_words must be from 1 or more"),
    ],
)
def test_loads_that_cannot_be_are_refused(values, words):
    with pytest.raises(UserError, match=words):
        Load(**values)


def test_what_cannot_be_made_up_must_be_given(put):
    with pytest.raises(UserError, match="detokenize needs --inputs JSON"):
        put(Load(requests=1), "detokenize")


def test_the_command_prints_one_line_of_json_and_a_table(server, capsys, tmp_path):
    (tmp_path / "prompts.txt").write_text("one two three\n\nfour five six\n")
    command = ["bench", f"127.0.0.1:{server.port}/echo", "--requests", "5", "--clients", "2"]

    assert cli.main([*command, "--prompts", str(tmp_path / "prompts.txt")]) == 0

    out, err = capsys.readouterr()
    (line,) = out.splitlines()
    assert json.loads(line)["answered"] == 5
    assert "latency in ms  mean" in err
    assert cli.main([*command, "--prompt-words", "x"]) == 2
    assert cli.main(["bench", "somewhere"]) == 2
