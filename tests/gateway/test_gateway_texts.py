"""Texts that come in pieces, from many clients at once, are the texts of `generate`."""

import contextlib
import random
import shutil
import threading
from concurrent import futures

import numpy as np
import pytest
from relays import Gate, Relay, until

from tfllm import contract
from tfllm.gateway import metrics
from tfllm.serving import Client, Server

WORDS = ["one", "two", "three", "four", "cat", "dog", "世界", "🙂", "party", "red", "green"]
# What bodies and `generate` call the same.
NAMES = {"max_tokens": "max_new_tokens"}


def bodies(count, seed):
    """Requests of all kinds."""
    rng = random.Random(seed)
    for number in range(count):
        body = {
            "prompt": " ".join(rng.choices(WORDS, k=rng.randint(1, 18))),
            "max_tokens": rng.randint(1, 40),
            "seed": number,
            "temperature": rng.choice([0, 0.7, 1.0, 1.5]),
        }
        if rng.random() < 0.3:
            body |= {"top_k": 5, "repetition_penalty": 1.2}
        if rng.random() < 0.3:
            body |= {"presence_penalty": 1.0, "frequency_penalty": 0.5}
        if rng.random() < 0.3:
            body["stop"] = rng.choice([["e"], ["a", "t", "o", "r"]])
        yield body


def expected(client, asked):
    """What `generate` says of bodies: text, reason and number of tokens."""
    names = [
        "max_tokens", "seed", "temperature", "top_k", "repetition_penalty", "presence_penalty",
        "frequency_penalty",
    ]  # fmt: skip
    default = {
        "top_k": 0, "repetition_penalty": 1.0, "presence_penalty": 0.0, "frequency_penalty": 0.0
    }  # fmt: skip
    columns = {
        NAMES.get(name, name): [body.get(name, default.get(name)) for body in asked]
        for name in names
    }
    stops = [body.get("stop", []) for body in asked]
    answers = client.generate([body["prompt"] for body in asked], stop=stops, **columns)
    return [(one.text, one.finish_reason, one.num_tokens) for one in answers]


def streamed(gateway, body, has_begun=None):
    """The same of a stream; its first piece sets `has_begun`."""
    text, reason, usage = "", None, None
    for message in gateway.stream(stream_options={"include_usage": True}, **body):
        if has_begun is not None:
            has_begun.set()
        if message["choices"]:
            (choice,) = message["choices"]
            assert reason is None
            text, reason = text + choice["text"], choice["finish_reason"]
        else:
            usage = message["usage"]
    return text, reason, usage["completion_tokens"]


def left(gateway, body):
    """Goes when the first piece comes."""
    stream = gateway.stream(**body)
    next(stream)
    stream.close()


def left_midway(gateway, gate, body):
    """The same, while a call for another piece is stopped at the gate: the text cannot be over."""
    before = metrics.LEFT.value("gpt")
    left(gateway, body)
    gate.wait()
    until(lambda: metrics.LEFT.value("gpt") > before)
    gate.open()


def all_slots_come_back(client):
    slots = {"slot": np.arange(3, dtype=np.int32)}
    until(lambda: client.predict(slots, contract.SLOTS)["is_free"].all())
    return True


def test_streams_of_two_gateways_on_one_server_are_the_texts_of_generate(
    start_gateway, either_endpoint
):
    gateways = start_gateway(either_endpoint), start_gateway(either_endpoint)
    asked = list(bodies(40, seed=1))
    with futures.ThreadPoolExecutor(10) as threads:
        told = []
        for number, body in enumerate(asked):
            told.append(threads.submit(streamed, gateways[number % 2], body))
            if number % 4 == 0:
                threads.submit(left, gateways[number % 3 % 2], body | {"max_tokens": 150})
        told = [one.result() for one in told]
    with Client(*either_endpoint) as client:
        assert told == expected(client, asked)
        assert all_slots_come_back(client)


def test_texts_that_are_no_streams_are_the_same(running, client):
    asked = list(bodies(8, seed=2))
    prompts = [body["prompt"] for body in asked]
    answer = running.complete(prompt=prompts, max_tokens=9, temperature=1, seed=5, n=2)
    rows = [
        {"prompt": prompt, "max_tokens": 9, "temperature": 1.0, "seed": 5 + i}
        for prompt in prompts
        for i in range(2)
    ]
    right = expected(client, rows)
    assert [choice["index"] for choice in answer["choices"]] == [*range(16)]
    assert [choice["text"] for choice in answer["choices"]] == [text for text, *_ in right]
    assert answer["usage"]["completion_tokens"] == sum(count for *_, count in right)


def test_the_texts_of_one_prompt_read_it_once(running):
    before = metrics.REUSED_TOKENS.value("gpt")
    prompt = "one two three four five six seven eight nine ten red green"
    answer = running.complete(prompt=prompt, max_tokens=4, n=3, temperature=1)
    num_prompt_tokens = answer["usage"]["prompt_tokens"]
    assert metrics.REUSED_TOKENS.value("gpt") - before >= 2 * (num_prompt_tokens - 1)


def test_a_client_that_goes_gives_its_slot_to_others(start_gateway, gated, client):
    gate = Gate(contract.DECODE, 1, number=2)
    gateway = start_gateway((gated(gate), "gpt"))
    body = {"prompt": "one", "max_tokens": 180}
    left_midway(gateway, gate, body)
    for _ in range(4):
        left(gateway, body)
    connection = gateway.send("POST", "/v1/completions", {"model": "gpt", "n": 9, **body})
    connection.close()
    gateway.complete(prompt="one", max_tokens=1)
    assert all_slots_come_back(client)


def test_a_gateway_that_is_stopped_gives_its_slots_back(start_gateway, endpoint, client):
    gateway = start_gateway(endpoint)
    with contextlib.closing(gateway.stream(prompt="one", max_tokens=180)) as stream:
        next(stream)
        gateway.stop()
    assert all_slots_come_back(client)


@pytest.fixture
def other_server(bases):
    with contextlib.ExitStack() as stack:

        def start():
            server = stack.enter_context(Server({"gpt": bases["gpt"]}, port=0))
            server.wait_until_available(60)
            return server

        yield start


def has_failed(gateway):
    (scheduler,) = gateway.gateway._served.named("gpt").schedulers
    return scheduler._failing_since is not None


def test_texts_go_on_where_they_were_when_their_server_is_started_anew(
    start_gateway, other_server, client
):
    server, as_anew = other_server(), other_server()
    gate = Gate(contract.DECODE, 3)
    before = metrics.BEGUN_AGAIN.value("gpt")
    asked = [{**body, "max_tokens": 150, "stop": []} for body in bodies(6, seed=3)]
    with Relay(server.port, gate) as relay, futures.ThreadPoolExecutor(6) as threads:
        gateway = start_gateway((relay.address, "gpt"))
        told = [threads.submit(streamed, gateway, body) for body in asked]
        gate.wait()
        server.stop(0)
        gate.open()
        until(lambda: has_failed(gateway))
        relay.port = as_anew.port
        told = [one.result() for one in told]
    assert told == expected(client, asked)
    assert metrics.BEGUN_AGAIN.value("gpt") > before


def test_texts_go_on_with_the_version_that_takes_the_place_of_theirs(
    start_gateway, bases, tmp_path, client
):
    shutil.copytree(bases["gpt"], tmp_path / "gpt")
    with Server({"gpt": tmp_path / "gpt"}, port=0, poll_s=0.05) as server:
        server.wait_until_available(60)
        gate = Gate(contract.DECODE, 1, version=1, number=2)
        body = next(bodies(1, seed=5)) | {"max_tokens": 60, "stop": []}
        before = metrics.BEGUN_AGAIN.value("gpt")
        with Relay(server.port, gate) as relay, futures.ThreadPoolExecutor(1) as threads:
            gateway = start_gateway((relay.address, "gpt"), look_s=600)
            told = threads.submit(streamed, gateway, body)
            gate.wait()
            shutil.copytree(bases["gpt"] / "1", tmp_path / "aside")
            (tmp_path / "aside").rename(tmp_path / "gpt" / "2")
            until(
                lambda: [one.state.name for one in server.versions.statuses("gpt")][1:] == ["END"]
            )
            gate.open()
            assert [told.result()] == expected(client, [body])
        assert metrics.BEGUN_AGAIN.value("gpt") == before + 1


def test_texts_go_on_at_another_server_when_theirs_is_gone(
    start_gateway, other_server, endpoint, client
):
    server = other_server()
    gateway = start_gateway((f"127.0.0.1:{server.port}", "gpt"), endpoint)
    asked = [{**body, "max_tokens": 150, "stop": []} for body in bodies(8, seed=4)]
    has_begun = threading.Event()
    with futures.ThreadPoolExecutor(8) as threads:
        told = [threads.submit(streamed, gateway, body, has_begun) for body in asked]
        assert has_begun.wait(60)
        server.stop(0)
        told = [one.result() for one in told]
    assert told == expected(client, asked)
