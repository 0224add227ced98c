"""A gateway that runs goes on with the version that is meant, and ends elsewhere what it began.

What is asked passes a gate, so that a test can have the label move at a moment that it knows: while
a call for texts of the old version is on its way.
"""

import contextlib
import shutil
from concurrent import futures

import numpy as np
import pytest
import tensorflow as tf
from relays import Gate, Relay, until
from test_gateway_texts import all_slots_come_back

from tfllm import contract
from tfllm.gateway import metrics
from tfllm.serving import Client, Server
from tfllm.serving.models import ServedModel

BODY = {"prompt": "one two", "max_tokens": 40, "temperature": 1, "seed": 5}
OTHER = {"prompt": "the cat", "max_tokens": 20, "temperature": 1, "seed": 8}
SESSIONS, OTHER_WEIGHTS, PLAIN = 1, 2, 3


@pytest.fixture(scope="module")
def base(bases, tmp_path_factory):
    """Three versions: with sessions, the same with other weights, and one without sessions."""
    base = tmp_path_factory.mktemp("versions") / "gpt"
    shutil.copytree(bases["gpt"] / "1", base / "1")
    shutil.copytree(bases["gpt"] / "1", base / "2")
    shutil.copytree(bases["plain"] / "1", base / "3")
    weights = str(base / "2" / "variables" / "variables")
    saved = tf.train.load_checkpoint(weights)
    tensors = {name: saved.get_tensor(name) for name in saved.get_variable_to_shape_map()}
    for name, tensor in tensors.items():
        if isinstance(tensor, np.ndarray) and tensor.dtype == np.float32 and tensor.ndim == 2:
            tensors[name] = 20 * tensor[::-1]
    tf.raw_ops.SaveV2(
        prefix=weights,
        tensor_names=list(tensors),
        shape_and_slices=[""] * len(tensors),
        tensors=list(tensors.values()),
    )
    return base


@pytest.fixture(scope="module")
def serving(base):
    with Server({"gpt": ServedModel(base, latest=None)}, port=0) as server:
        server.wait_until_available(60)
        yield server


@pytest.fixture
def serve(base, serving):
    """Has the server hold some versions, of which one may have the label `stable`."""

    def serve(*versions, stable=None):
        for labels in ({}, {"stable": stable} if stable else {}):
            model = ServedModel(base, labels=labels, versions=frozenset(versions))
            serving.reloader.reload({"gpt": model})
            until(lambda: {each.version for each in loaded(serving)} == set(versions))

    return serve


def loaded(serving):
    return [each for each in serving.versions.statuses("gpt") if each.state.name == "AVAILABLE"]


class Ahead:
    """A gateway before the gated server."""

    def __init__(self, gateway, gate, threads, end_relay):
        self.gateway, self.end_relay = gateway, end_relay
        self._gate, self._threads = gate, threads
        self.schedulers = gateway.gateway._served.named("gpt").schedulers

    def post(self, path, **body):
        """Status and body come later."""
        return self._threads.submit(self.gateway.ask, "POST", path, {"model": "gpt", **body})

    def ask(self, **body):
        """The same of texts, which the gateway has got."""
        load = self.gateway.gateway.load
        told = self.post("/v1/completions", **body)
        until(lambda: told.done() or self.gateway.gateway.load > load)
        return told

    def turned_to(self, version):
        until(lambda: all(each.backend.version == version for each in self.schedulers))

    def go(self):
        self._gate.open()

    def wait(self):
        """For the call that is stopped."""
        self._gate.wait()


@pytest.fixture
def ahead(serving, start_gateway):
    """Starts a gateway behind a gate: `ahead(signature, num_rows, version, …)`."""
    with contextlib.ExitStack() as stack:
        threads = stack.enter_context(futures.ThreadPoolExecutor(4))

        def start(signature, num_rows, version, *others, **options):
            gate = Gate(signature, num_rows, version)
            stack.callback(gate.may_go.set)
            relaying = stack.enter_context(contextlib.ExitStack())
            address = relaying.enter_context(Relay(serving.port, gate)).address
            options = {"look_s": 0.01, **options}
            gateway = start_gateway((address, "gpt"), *others, **options)
            return Ahead(gateway, gate, threads, relaying.close)

        yield start


def texts_of(told):
    status, answer = told.result()
    assert status == 200, answer
    return [choice["text"] for choice in answer["choices"]]


def right(serving, version, body, n=1):
    """The texts of `generate`."""
    with Client(f"127.0.0.1:{serving.port}", "gpt", version=version) as client:
        told = client.generate(
            [body["prompt"]] * n,
            max_new_tokens=body["max_tokens"],
            temperature=1.0,
            seed=[body["seed"] + number for number in range(n)],
        )
    return [one.text for one in told]


def can_chat(gateway):
    return gateway.ask("GET", "/v1/models/gpt")[1]["can_chat"]


def slots_come_back(serving, version):
    with Client(f"127.0.0.1:{serving.port}", "gpt", version=version) as client:
        return all_slots_come_back(client)


@pytest.mark.parametrize("label", [None, "stable"], ids=["newest", "label"])
def test_texts_end_at_the_version_they_began_with_and_others_go_to_the_new_one(
    ahead, serve, serving, label
):
    if label:
        serve(1, 2, stable=1)
    else:
        serve(1)
    texts = ahead(contract.DECODE, 3, 1, version_label=label)
    before = metrics.BEGUN_AGAIN.value("gpt")
    running = texts.ask(n=3, **BODY)
    texts.wait()
    waiting = texts.ask(**OTHER)
    serve(1, 2, stable=2 if label else None)
    texts.turned_to(2)
    asked_after = texts.ask(n=2, **BODY)
    assert texts.gateway.gateway.load == 3 + 1 + 2
    texts.go()
    assert texts_of(running) == right(serving, 1, BODY, 3)
    assert texts_of(waiting) == right(serving, 2, OTHER) != right(serving, 1, OTHER)
    assert texts_of(asked_after) == right(serving, 2, BODY, 2) != right(serving, 1, BODY, 2)
    assert metrics.BEGUN_AGAIN.value("gpt") == before
    assert slots_come_back(serving, 1)
    assert slots_come_back(serving, 2)


def test_a_label_goes_back_while_texts_of_both_versions_are_written(ahead, serve, serving):
    serve(1, 2, stable=1)
    texts = ahead(contract.DECODE, 2, 2, version_label="stable")
    serve(1, 2, stable=2)
    texts.turned_to(2)
    running = texts.ask(n=2, **BODY)
    texts.wait()
    serve(1, 2, stable=1)
    texts.turned_to(1)
    asked_after = texts.ask(n=2, **BODY)
    texts.go()
    assert texts_of(running) == right(serving, 2, BODY, 2)
    assert texts_of(asked_after) == right(serving, 1, BODY, 2)
    assert slots_come_back(serving, 1)
    assert slots_come_back(serving, 2)


def test_versions_with_and_without_sessions_take_each_others_place(ahead, serve, serving):
    serve(1, 2, 3, stable=PLAIN)
    texts = ahead(contract.GENERATE, 1, PLAIN, version_label="stable")
    assert not can_chat(texts.gateway)
    whole = texts.ask(**BODY)
    texts.wait()
    serve(1, 2, 3, stable=SESSIONS)
    texts.turned_to(SESSIONS)
    assert can_chat(texts.gateway)
    in_pieces = texts.ask(n=4, **BODY)  # one more than slots
    assert texts_of(in_pieces) == right(serving, SESSIONS, BODY, 4)
    texts.go()
    assert texts_of(whole) == ["one two|40|5"]
    serve(1, 2, 3, stable=PLAIN)
    texts.turned_to(PLAIN)
    assert texts_of(texts.ask(**BODY)) == ["one two|40|5"]
    assert slots_come_back(serving, SESSIONS)


def test_vectors_that_are_asked_for_come_from_the_version_that_was_meant(ahead, serve):
    serve(1, 2, 3, stable=PLAIN)
    texts = ahead(contract.EMBED, 1, PLAIN, version_label="stable")
    vectors = texts.post("/v1/embeddings", input="abc")
    texts.wait()
    serve(1, 2, 3, stable=SESSIONS)
    texts.turned_to(SESSIONS)
    texts_of(texts.ask(**BODY))  # rounds of all versions
    texts.go()
    status, answer = vectors.result()
    assert (status, answer["data"][0]["embedding"]) == (200, [3.0, -3.0])


def test_a_gateway_stays_with_its_version_when_the_label_is_gone(ahead, serve, serving, caplog):
    serve(1, 2, stable=1)
    texts = ahead(contract.DECODE, 9, 1, version_label="stable")
    serve(1, 2)
    until(lambda: "version 1 goes on" in caplog.text)
    assert texts_of(texts.ask(**BODY)) == right(serving, 1, BODY)
    serve(1, 2, stable=2)
    texts.turned_to(2)
    assert texts_of(texts.ask(**BODY)) == right(serving, 2, BODY)


def test_who_stops_gives_back_the_slots_of_the_old_version_too(ahead, serve, serving):
    serve(1, 2, stable=1)
    texts = ahead(contract.DECODE, 3, 1, version_label="stable")
    running = texts.ask(n=3, **BODY)
    texts.wait()
    serve(1, 2, stable=2)
    texts.turned_to(2)
    texts.gateway.stop()
    assert running.result()[0] == 503
    texts.go()
    assert slots_come_back(serving, 1)


def test_texts_of_the_old_version_go_to_another_server_when_theirs_is_gone(ahead, serve, serving):
    serve(1, 2, stable=1)
    other = f"127.0.0.1:{serving.port}", "gpt"
    texts = ahead(contract.DECODE, 1, 1, other, version_label="stable")
    until(lambda: all(each.is_up for each in texts.schedulers))
    running = texts.ask(**BODY)
    texts.wait()
    alone = right(serving, 1, BODY)
    serve(1, 2, stable=2)
    texts.turned_to(2)
    texts.end_relay()
    assert texts_of(running) != alone


def test_texts_begin_again_if_their_version_is_unloaded_before_they_end(ahead, serve, serving):
    serve(1, 2, stable=1)
    texts = ahead(contract.DECODE, 2, 1, version_label="stable")
    before = metrics.BEGUN_AGAIN.value("gpt")
    running = texts.ask(n=2, **BODY)
    texts.wait()
    alone = right(serving, 1, BODY, 2)
    serve(1, 2, stable=2)
    texts.turned_to(2)
    serve(2, stable=2)
    texts.go()
    assert texts_of(running) != alone
    assert metrics.BEGUN_AGAIN.value("gpt") == before + 2
    assert slots_come_back(serving, 2)
