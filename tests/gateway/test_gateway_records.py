"""What is logged and traced of requests."""

import io
import json
import sys

import pytest
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from relays import Gate, until
from test_gateway_texts import all_slots_come_back, left_midway

from tfllm import cli, contract
from tfllm.errors import UserError
from tfllm.gateway.keys import Keys
from tfllm.gateway.records import Records
from tfllm.gateway.tracing import Tracing
from tfllm.serving import Client
from tfllm.serving.text_generation import METHOD, SERVICE

KEY = {"Authorization": "Bearer sk-secret"}
TRACE_ID, SPAN_ID = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"
BODY = {"model": "gpt", "prompt": "one two", "max_tokens": 6}


@pytest.fixture
def told():
    return io.StringIO()


@pytest.fixture
def spans():
    return InMemorySpanExporter()


@pytest.fixture
def tracing(spans):
    provider = TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(spans))
    return Tracing(provider)


def lines(told, count=1):
    until(lambda: told.getvalue().count("\n") >= count)  # it ends a moment after its answer
    return [json.loads(line) for line in told.getvalue().splitlines()]


def test_a_request_has_a_line_without_texts_and_keys(start_gateway, endpoint, told):
    keys = Keys(["sk-secret name=search"])
    gateway = start_gateway(endpoint, keys=keys, records=Records(told))
    headers = KEY | {"X-Request-Id": "mine-1"}
    connection, response = gateway.open("POST", "/v1/completions", BODY | {"n": 2}, headers)
    usage = json.load(response)["usage"]
    connection.close()
    assert response.headers["X-Request-Id"] == "mine-1"
    (line,) = lines(told)  # and none of /healthz, which was asked before
    assert 0 < line.pop("first_token_s") <= line.pop("total_s")
    assert line.pop("time").endswith("+00:00")
    assert line.pop("reused_tokens") >= 0
    assert line == {
        "id": "mine-1",
        "path": "/v1/completions",
        "key": "search",
        "model": "gpt",
        "servers": [endpoint[0]],
        "status": "200",
        "prompt_tokens": usage["prompt_tokens"],
        "completion_tokens": 12,
        "finish_reasons": ["length", "length"],
    }
    assert "secret" not in told.getvalue()
    assert "one two" not in told.getvalue()


def test_texts_are_logged_where_that_is_asked_for(start_gateway, endpoint, told, client):
    gateway = start_gateway(endpoint, records=Records(told, with_texts=True), grpc_port=0)
    right = client.generate("one two", max_new_tokens=6).text
    gateway.complete(prompt="one two", max_tokens=6)
    with Client(f"127.0.0.1:{gateway.gateway.grpc_port}", "gpt") as asks:
        assert list(asks.stream("one two", max_new_tokens=6))
    over_http, over_grpc = lines(told, 2)
    for line in (over_http, over_grpc):
        assert (line["prompts"], line["texts"]) == (["one two"], [right])
    assert (over_grpc["path"], over_grpc["status"]) == (f"/{SERVICE}/{METHOD}", "OK")


def test_requests_that_fail_or_are_left_are_logged_too(start_gateway, gated, told, client):
    gate = Gate(contract.DECODE, 1, number=2)
    gateway = start_gateway((gated(gate), "gpt"), records=Records(told))
    _, response = gateway.open("POST", "/v1/completions", b"{", {"X-Request-Id": "a b"})
    bad = response.headers["X-Request-Id"]
    assert bad.isalnum()
    left_midway(gateway, gate, {"prompt": "one", "max_tokens": 150})
    assert all_slots_come_back(client)
    one, other = lines(told, 2)
    assert (one["id"], one["status"]) == (bad, "400")
    assert (other["status"], other["finish_reasons"]) == ("499", [""])
    assert 0 < other["completion_tokens"] < 150


def test_a_request_is_a_span_with_the_stages_of_its_text(start_gateway, endpoint, spans, tracing):
    gateway = start_gateway(endpoint, records=Records(tracing=tracing))
    parent = {"traceparent": f"00-{TRACE_ID}-{SPAN_ID}-01"}
    assert gateway.ask("POST", "/v1/completions", BODY, parent)[0] == 200
    until(lambda: len(spans.get_finished_spans()) == 4)
    of = {span.name: span for span in spans.get_finished_spans()}
    assert list(of) == ["queue", "prefill", "decode", "text_completion gpt"]
    whole = of["text_completion gpt"]
    assert f"{whole.context.trace_id:032x}" == TRACE_ID
    assert f"{whole.parent.span_id:016x}" == SPAN_ID
    attributes = dict(whole.attributes)
    assert attributes["gen_ai.request.model"] == "gpt"
    assert attributes["gen_ai.usage.output_tokens"] == 6
    assert (
        attributes["gen_ai.usage.input_tokens"] == of["prefill"].attributes["tfllm.prompt_tokens"]
    )
    assert attributes["gen_ai.response.finish_reasons"] == ("length",)
    assert attributes["http.response.status_code"] == 200
    stages = [of[name] for name in ("queue", "prefill", "decode")]
    assert {span.parent.span_id for span in stages} == {whole.context.span_id}
    for earlier, later in zip(stages, stages[1:], strict=False):
        assert earlier.end_time <= later.start_time
    assert of["prefill"].attributes["server.address"] == endpoint[0]
    assert "one two" not in str([span.to_json() for span in of.values()])


def test_a_text_that_is_left_ends_its_spans(start_gateway, gated, spans, tracing, client):
    gate = Gate(contract.DECODE, 1, number=2)
    gateway = start_gateway((gated(gate), "gpt"), records=Records(tracing=tracing))
    left_midway(gateway, gate, {"prompt": "one", "max_tokens": 150})
    assert all_slots_come_back(client)
    until(lambda: len(spans.get_finished_spans()) == 4)
    *_, whole = spans.get_finished_spans()
    assert whole.attributes["http.response.status_code"] == 499


def test_the_calls_of_the_server_are_told_of_the_trace(
    start_gateway, endpoint, spans, tracing, relayed, client
):
    address, metadata = relayed
    gateway = start_gateway((address, endpoint[1]), records=Records(tracing=tracing))
    gateway.complete(prompt="one two", max_tokens=6)
    until(lambda: len(spans.get_finished_spans()) == 4)
    of = {span.name: f"{span.context.span_id:016x}" for span in spans.get_finished_spans()}
    sent = [dict(each).get("traceparent", "--").split("-")[2] for each in metadata]
    assert [name for name in ("prefill", "decode") if of[name] in sent] == ["prefill", "decode"]
    assert set(sent) == {"", of["prefill"], of["decode"]}
    assert all_slots_come_back(client)  # as long as there is a way to the server


def test_what_traces_and_logs_need_is_said(monkeypatch, capsys):
    with pytest.raises(UserError, match="http://HOST:PORT of a collector, got 'localhost:4318'"):
        Tracing.to("localhost:4318")
    assert cli.main(["gateway", "localhost:1/m", "--log-texts"]) == 2
    assert "--log-requests FILE" in capsys.readouterr().err
    monkeypatch.setitem(sys.modules, "opentelemetry.exporter.otlp.proto.http.trace_exporter", None)
    assert cli.main(["gateway", "localhost:1/m", "--otlp", "http://localhost:4318"]) == 2
    assert "install tfllm[tracing]" in capsys.readouterr().err
