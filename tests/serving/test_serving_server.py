"""The server as a whole: swaps under load, concurrency, stopping, ports."""

import contextlib
import logging
import os
import re
import signal
import socket
import subprocess
import sys
import threading
import time
from concurrent import futures

import grpc
import numpy as np
import pytest
import tensorflow as tf
import tensorflow_text as tf_text
from tensorflow_serving.apis import predict_pb2

from tfllm.errors import UserError
from tfllm.serving import Client, Code, ServedModel, Server, ServingError, serve
from tfllm.serving.rpc import answered

X = np.ones([1, 2], np.float32)
N = np.array([1], np.int32)


@contextlib.contextmanager
def served(models, model, **options):
    with Server(models, port=0, poll_s=0.02, **options) as server:
        server.wait_until_available(120)
        with Client(f"127.0.0.1:{server.port}", model, timeout_s=120) as client:
            yield client


def test_no_request_is_lost_or_wrong_while_versions_are_swapped(tmp_path, vec_versions, publish):
    base = tmp_path / "vec"
    publish(vec_versions / "1", base / "1")
    counts = {1: 0, 2: 0, 3: 0, 4: 0}
    is_over = threading.Event()

    with served([base], "vec") as client:

        def hammer():
            while not is_over.is_set():
                factor = client.predict({"x": X, "n": N}, output_filter=["y"])["y"][0, 0]
                counts[int(factor)] += 1

        with futures.ThreadPoolExecutor(3) as threads:
            hammers = [threads.submit(hammer) for _ in range(3)]
            try:
                for version, source in ((2, "2"), (3, "3"), (4, "1")):
                    publish(vec_versions / source, base / str(version))
                    wait_until_alone(client, version)
            finally:
                is_over.set()
            for hammering in hammers:
                hammering.result()

    assert min(counts[1], counts[2], counts[3]) > 0


def wait_until_alone(client, version):
    """Waits until `version` is AVAILABLE and all others have ended."""
    ends_at = time.monotonic() + 60
    while time.monotonic() < ends_at:
        states = {told.version: told.state for told in client.status()}
        if states.pop(version, None) == "AVAILABLE" and set(states.values()) <= {"END"}:
            return
    pytest.fail(f"version {version} did not take over: {states}")


def wait_for_a_request(server, model):
    """Waits until a request runs."""

    def is_running():
        return any(version.running for version in server.versions.statuses(model))

    assert server.versions.wait_until(is_running, 120)


def test_a_running_request_does_not_hold_up_another(tmp_path, vec_versions, gate_versions):
    models = {"vec": ServedModel(str(vec_versions)), "gate": ServedModel(str(gate_versions))}
    gate = tmp_path / "open"

    with (
        Server(models, port=0) as server,
        Client(f"127.0.0.1:{server.port}", "vec") as client,
        Client(f"127.0.0.1:{server.port}", "gate") as waiting,
        futures.ThreadPoolExecutor(1) as thread,
    ):
        server.wait_until_available(120)
        answer = thread.submit(waiting.predict, {"path": np.array([str(gate)])})
        wait_for_a_request(server, "gate")
        assert client.predict({"x": X, "n": N})["y"].tolist() == [[3, 3]]
        gate.touch()
        assert answer.result(120)["version"] == 2


def test_a_request_that_runs_when_its_version_is_replaced_is_answered_by_it(
    tmp_path, gate_versions, publish
):
    base, gate = tmp_path / "gate", tmp_path / "open"
    publish(gate_versions / "1", base / "1")

    with (
        Server([base], port=0, poll_s=0.02) as server,
        Client(f"127.0.0.1:{server.port}", "gate") as client,
        futures.ThreadPoolExecutor(1) as thread,
    ):
        server.wait_until_available(120)
        answer = thread.submit(client.predict, {"path": np.array([str(gate)])})
        wait_for_a_request(server, "gate")
        publish(gate_versions / "2", base / "2")
        wait_for_states(client, {2: "AVAILABLE", 1: "UNLOADING"})
        gate.touch()
        assert answer.result(120)["version"] == 1
        assert client.predict({"path": np.array([str(gate)])})["version"] == 2


def wait_for_states(client, expected):
    ends_at = time.monotonic() + 60
    while time.monotonic() < ends_at:
        if (states := {told.version: told.state for told in client.status()}) == expected:
            return
    pytest.fail(f"states are {states}, not {expected}")


def test_a_request_beyond_the_deadline_ends_at_the_client(tmp_path, gate_versions):
    gate = tmp_path / "open"

    with served({"gate": gate_versions}, "gate") as client:
        with pytest.raises(ServingError, match=r"no answer from .* within 0.2 s") as refused:
            client.predict({"path": np.array([str(gate)])}, timeout_s=0.2)
        gate.touch()

    assert refused.value.code == Code.DEADLINE_EXCEEDED


def test_a_request_beyond_the_deadline_is_stopped(tmp_path, gate_versions):
    gate, never = tmp_path / "open", tmp_path / "never"
    gate.touch()
    with (
        Server({"gate": gate_versions}, port=0, num_threads=1) as server,
        Client(f"127.0.0.1:{server.port}", "gate", timeout_s=120) as client,
    ):
        server.wait_until_available(120)
        with pytest.raises(ServingError, match="DEADLINE_EXCEEDED"):
            client.predict({"path": np.array([str(never)])}, timeout_s=0.3)
        # Were it not, it would hold the only thread for ever.
        assert client.predict({"path": np.array([str(gate)])})["version"] == 2


def test_a_queued_request_whose_client_has_gone_is_not_run(tmp_path, gate_versions, caplog):
    first, second = tmp_path / "first", tmp_path / "second"

    with (
        Server({"gate": gate_versions}, port=0, num_threads=1) as server,
        Client(f"127.0.0.1:{server.port}", "gate", timeout_s=120) as client,
        futures.ThreadPoolExecutor(1) as thread,
    ):
        server.wait_until_available(120)
        running = thread.submit(client.predict, {"path": np.array([str(first)])})
        wait_for_a_request(server, "gate")
        with pytest.raises(ServingError, match="DEADLINE_EXCEEDED"):
            client.predict({"path": np.array([str(second)])}, timeout_s=0.2)
        first.touch()
        assert running.result(120)["version"] == 2
        # Had the second one been run, it would hold the only thread: `second` never comes.
        assert client.predict({"path": np.array([str(first)])})["version"] == 2
    assert not caplog.records


def first_refusal(client):
    """Asks for the status until that fails."""
    while True:
        try:
            client.status()
        except ServingError as error:
            return error


def test_stopping_lets_running_requests_end_and_refuses_new_ones(tmp_path, gate_versions):
    gate = tmp_path / "open"
    server = Server({"gate": gate_versions}, port=0).start()
    server.wait_until_available(120)

    with (
        Client(f"127.0.0.1:{server.port}", "gate", retries=0) as client,
        futures.ThreadPoolExecutor(2) as threads,
    ):
        answer = threads.submit(client.predict, {"path": np.array([str(gate)])})
        wait_for_a_request(server, "gate")
        stopping = threads.submit(server.stop, 600)
        refused = first_refusal(client)
        gate.touch()
        assert answer.result(120)["version"] == 2
        stopping.result(120)
    assert refused.code == Code.UNAVAILABLE


def test_what_still_runs_after_the_grace_is_cancelled(tmp_path, gate_versions):
    server = Server({"gate": gate_versions}, port=0).start()
    server.wait_until_available(120)

    with (
        Client(f"127.0.0.1:{server.port}", "gate") as client,
        futures.ThreadPoolExecutor(1) as thread,
    ):
        answer = thread.submit(client.predict, {"path": np.array([str(tmp_path / "never")])})
        wait_for_a_request(server, "gate")
        server.stop(0.1)
        with pytest.raises(ServingError) as refused:
            answer.result(120)
    assert refused.value.code in (Code.CANCELLED, Code.UNAVAILABLE)


class Fold(tf.Module):
    """Uses an op that only TF-Text has."""

    @tf.function(input_signature=[tf.TensorSpec([None], tf.string, name="text")])
    def fold(self, text):
        return {"folded": tf_text.case_fold_utf8(text)}


SERVE = """
import sys
from tfllm.serving import ServedModel, serve
serve({"gate": sys.argv[1], "fold": sys.argv[2]}, port=0, poll_s=0.02)
"""


def free_port():
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        return listening.getsockname()[1]


def test_sigterm_finishes_the_running_request_then_returns(tmp_path, gate_versions, capfd):
    gate, port = tmp_path / "open", free_port()

    def ask_then_terminate(client):
        with futures.ThreadPoolExecutor(1) as thread:
            try:
                client.wait_until_available(120)
                answer = thread.submit(client.predict, {"path": np.array([str(gate)])})
                client.status()  # comes after the request on the same connection
            finally:
                os.kill(os.getpid(), signal.SIGTERM)
            assert first_refusal(client).code == Code.UNAVAILABLE
            gate.touch()
            return answer.result(120)["version"]

    before = signal.getsignal(signal.SIGTERM)
    with (
        Client(f"127.0.0.1:{port}", "gate", retries=0) as client,
        futures.ThreadPoolExecutor(1) as thread,
    ):
        asking = thread.submit(ask_then_terminate, client)
        serve({"gate": gate_versions}, port=port)
        assert asking.result(120) == 2

    assert signal.getsignal(signal.SIGTERM) == before
    told = capfd.readouterr().err
    for words in (f"listening on 127.0.0.1:{port}", "gate version 2 is available", "stopping:"):
        assert words in told


def test_a_second_signal_ends_the_process_at_once(tmp_path, gate_versions):
    model = Fold()
    tf.saved_model.save(model, str(tmp_path / "fold" / "1"), signatures=model.fold)
    process = subprocess.Popen(
        [sys.executable, "-c", SERVE, str(gate_versions), str(tmp_path / "fold")],
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "TF_CPP_MIN_LOG_LEVEL": "3"},
    )
    try:
        port = next(re.finditer(r"127\.0\.0\.1:(\d+)", next_line(process, "listening")))[1]
        with (
            Client(f"127.0.0.1:{port}", "gate", retries=0) as client,
            Client(f"127.0.0.1:{port}", "fold") as folding,
            futures.ThreadPoolExecutor(1) as thread,
        ):
            folding.wait_until_available(120)
            assert folding.predict({"text": ["Straße"]})["folded"].tolist() == [b"strasse"]
            never = {"path": np.array([str(tmp_path / "never")])}
            answer = thread.submit(client.predict, never)
            client.status()
            process.send_signal(signal.SIGINT)
            next_line(process, "stopping")
            process.send_signal(signal.SIGINT)
            assert process.wait(120) == 128 + signal.SIGINT
            with pytest.raises(ServingError):
                answer.result(120)
    finally:
        process.kill()
        process.communicate()


def next_line(process, words):
    """The next line of the log with these words."""
    for line in process.stderr:
        if words in line:
            return line
    return pytest.fail(f"the server ended without saying {words!r}")


def test_a_port_that_is_taken_is_refused(vec_versions):
    with (
        Server({"vec": vec_versions}, port=0) as first,
        pytest.raises(UserError, match=f"cannot listen on 127.0.0.1:{first.port}: another program"),
    ):
        Server({"vec": vec_versions}, port=first.port).start()


@pytest.mark.parametrize(
    ("models", "words"),
    [
        ({"vec": "missing"}, "must be a folder: there is none at missing"),
        ("missing", "must be a folder"),
        ([], "there is no model to serve"),
        (["a/vec", "b/vec"], "two models are named 'vec'"),
        (["a/vec/1"], "a/vec/1 is a version of a model: give the folder that holds it, a/vec"),
    ],
)
def test_models_that_cannot_be_served_are_refused(
    tmp_path, vec_versions, monkeypatch, models, words
):
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "vec").symlink_to(vec_versions)
    monkeypatch.chdir(tmp_path)

    with pytest.raises(UserError, match=words):
        Server(models)


def test_what_becomes_of_versions_is_logged(tmp_path, vec_versions, publish, caplog):
    caplog.set_level(logging.INFO, "tfllm.serving")
    base = tmp_path / "vec"
    publish(vec_versions / "1", base / "1")
    with served([base], "vec") as client:
        publish(vec_versions / "2", base / "2")
        wait_for_states(client, {2: "AVAILABLE", 1: "END"})
        (base / "3").mkdir()
        wait_for_states(client, {3: "END", 2: "AVAILABLE", 1: "END"})

    told = [record.getMessage() for record in caplog.records]
    assert told[1:4] == [
        "vec version 1 is available",
        "vec version 2 is available",
        "vec version 1 is unloaded",
    ]
    assert told[4].startswith("vec version 3 failed to load: NOT_FOUND: Specified file path")
    assert "\n" not in told[4]
    assert told[5:] == ["vec version 2 is unloaded"]


class Broken:
    """A service with a defect, for the outermost handler."""

    @answered
    def divide(self, request, context):  # noqa: ARG002
        return 1 // len(request.inputs)

    @answered
    def complain(self, request, context):  # noqa: ARG002
        raise ServingError(Code.NOT_FOUND, "x" * 2000)


@pytest.fixture(scope="module")
def broken():
    """Calls the methods of `Broken` over a socket."""
    server = grpc.server(futures.ThreadPoolExecutor(1))
    handlers = {
        name: grpc.unary_unary_rpc_method_handler(
            getattr(Broken(), name), request_deserializer=predict_pb2.PredictRequest.FromString
        )
        for name in ("divide", "complain")
    }
    server.add_generic_rpc_handlers([grpc.method_handlers_generic_handler("Broken", handlers)])
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    with grpc.insecure_channel(f"127.0.0.1:{port}") as channel:
        yield lambda name: channel.unary_unary(f"/Broken/{name}")(b"")
    server.stop(None)


def test_a_defect_of_a_handler_is_internal_and_logged_without_its_message(broken, caplog):
    with pytest.raises(grpc.RpcError) as refused:
        broken("divide")

    assert refused.value.code() == grpc.StatusCode.INTERNAL
    assert refused.value.details().startswith("ZeroDivisionError: ")
    assert "ZeroDivisionError in divide" in caplog.text
    assert "by zero" not in caplog.text


def test_a_long_message_is_cut_as_the_stock_server_cuts_it(broken):
    with pytest.raises(grpc.RpcError) as refused:
        broken("complain")

    assert refused.value.details() == "x" * 1024 + "...TRUNCATED"
