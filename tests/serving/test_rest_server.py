"""The REST port as a server: limits, hostile clients, stopping, pages of other sites."""

import contextlib
import gzip
import http.client
import json
import random
import socket
import threading
from concurrent import futures

import pytest

from tfllm.errors import UserError
from tfllm.serving import Client, RestOptions, Server
from tfllm.serving.grpc_options import GrpcOptions

PREDICT = "/v1/models/echo:predict"
GATE = "/v1/models/gate:predict"
ROW = b'{"instances": [1]}'
ANSWER = b'{\n    "predictions": [2.0\n    ]\n}'


@contextlib.contextmanager
def serving(models, **options):
    options, threads = dict(options), options.pop("num_threads", None)
    rest = RestOptions(**{k: v for k, v in options.items() if k != "num_threads"})
    with Server(models, port=0, rest_port=0, rest=rest, num_threads=threads) as server:
        server.wait_until_available(120)
        yield server


@pytest.fixture(scope="module")
def server(echo, gate_versions):
    with serving({"echo": echo, "gate": gate_versions}, max_body_bytes=200_000) as server:
        yield server


@pytest.fixture
def port(server):
    return server.rest_port


def wait_for_running(server, number):
    def are_running():
        return sum(v.running for v in server.versions.statuses("gate")) == number

    assert server.versions.wait_until(are_running, 120)


def test_a_connection_is_kept_for_more_requests(port):
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=120)
    for _ in range(3):
        connection.request("POST", PREDICT, ROW)
        assert connection.getresponse().read() == ANSWER
        first = connection.sock
    assert connection.sock is first is not None
    connection.close()


def test_a_compressed_body_is_read(port, ask):
    headers = {"Content-Encoding": "gzip"}

    assert ask(port, "POST", PREDICT, gzip.compress(ROW), headers) == (200, ANSWER)


def test_a_body_that_is_not_compressed_as_it_says_is_refused(port, ask):
    status, body = ask(port, "POST", PREDICT, b"x" * 100, {"Content-Encoding": "gzip"})

    assert status == 400
    assert b"Traceback" not in body


@pytest.mark.parametrize("encoding", ["identity", "gzip"])
def test_a_body_beyond_the_limit_is_refused(port, ask, encoding):
    body = b" " * 300_000
    body = gzip.compress(body) if encoding == "gzip" else body
    status, answer = ask(port, "POST", PREDICT, body, {"Content-Encoding": encoding})

    assert status == 413
    assert json.loads(answer) == {"error": "the body is larger than 200000 bytes"}


def test_chunks_beyond_the_limit_are_refused_as_they_come(port):
    with socket.create_connection(("127.0.0.1", port), timeout=120) as connection:
        connection.sendall(
            b"POST "
            + PREDICT.encode()
            + b" HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n"
        )
        with contextlib.suppress(ConnectionError):
            for _ in range(300):
                connection.sendall(b"400\r\n" + b" " * 1024 + b"\r\n")
        assert connection.recv(4096).startswith(b"HTTP/1.1 413")


def test_a_body_that_does_not_come_is_given_up(echo):
    with (
        serving({"echo": echo}, body_timeout_s=0.05) as server,
        socket.create_connection(("127.0.0.1", server.rest_port), timeout=120) as connection,
    ):
        head = f"POST {PREDICT} HTTP/1.1\r\nHost: x\r\nContent-Length: 10\r\n\r\n"
        connection.sendall(head.encode())
        assert connection.recv(4096).startswith(b"HTTP/1.1 408")


def test_slow_clients_hold_up_nobody(port, ask):
    with contextlib.ExitStack() as stack:
        for _ in range(100):
            slow = socket.create_connection(("127.0.0.1", port), timeout=120)
            stack.enter_context(slow)
            slow.sendall(b"POST /v1/models/echo:predict HTTP/1.1\r\nContent-Le")
        assert ask(port, "POST", PREDICT, ROW) == (200, ANSWER)


def hostile_documents():
    deep = b"[" * 50_000
    yield deep
    yield b'{"instances": ' + deep + b"]" * 50_000 + b"}"
    yield b'{"instances": ' + b"[" * 800 + b"1, 2" + b"]" * 800 + b"}"
    yield b'{"instances": [' + b'{"x":' * 900 + b"1" + b"}" * 900 + b"]}"
    yield b'{"instances": ' + b"[" * 80 + b"1" + b"]" * 80 + b"}"
    yield b'{"signature_name": "\\udcff", "instances": [1]}'
    yield b'{"signature_name": "\\ud800", "instances": [1]}'
    yield b'{"instances": [{"\\ud800": 1}]}'
    yield b'{"instances": [1' + b", [" * 30_000 + b"]" * 30_000 + b"]}"
    yield b'{"instances": [' + b"1e999999," * 5_000 + b'"x"]}'
    yield b'{"a": ' + b'{"a":' * 600 + b"[" + b"0," * 40_000 + b"0]" + b"}" * 600 + b"}"


@pytest.mark.parametrize("document", hostile_documents())
@pytest.mark.parametrize("call", ["predict", "classify"])
def test_a_hostile_document_is_refused(port, ask, caplog, call, document):
    status, body = ask(port, "POST", f"/v1/models/echo:{call}", document)

    assert status == 400
    assert json.loads(body)["error"]
    assert len(body) < 200_000
    assert not caplog.records


def test_random_changes_of_a_request_get_an_answer_of_json(port, ask, caplog):
    random_ = random.Random(7)
    whole = json.dumps(
        {
            "signature_name": "text",
            "instances": [{"text": ["a", {"b64": "YQ=="}]}, {"text": ["\u00e9", "b"]}],
            "inputs": {"text": [1, 2.5, None, True, -7e3]},
        }
    ).encode()

    for _ in range(300):
        changed = bytearray(whole)
        for _ in range(random_.randint(1, 8)):
            at = random_.randrange(len(changed))
            if random_.random() < 0.5:
                changed[at] = random_.randrange(256)
            else:
                del changed[at : at + random_.randint(1, 30)]
                changed = changed or bytearray(b" ")
        call = random_.choice(["predict", "classify", "regress"])
        status, body = ask(port, "POST", f"/v1/models/echo:{call}", bytes(changed))
        assert status in (200, 400)
        json.loads(body.decode(errors="replace"))
    assert not caplog.records


def test_random_bytes_are_no_end_of_the_server(port, ask, caplog):
    random_ = random.Random(7)

    for _ in range(100):
        with socket.create_connection(("127.0.0.1", port), timeout=120) as connection:
            start = random_.choice([b"", b"POST ", b"GET /v1/models/echo HTTP/1.1\r\n"])
            with contextlib.suppress(ConnectionError):
                connection.sendall(start + random_.randbytes(300) + b"\r\n\r\n")
                connection.shutdown(socket.SHUT_WR)
                assert b"Traceback" not in connection.recv(65536)
    assert ask(port, "POST", PREDICT, ROW) == (200, ANSWER)
    assert not caplog.records


@pytest.mark.parametrize(
    ("line", "status"),
    [("GET /" + "a" * 20_000, 400), ("GET /v1/models/%ff%00", 404), ("GET //v1/models/echo", 404)],
)
def test_an_odd_path_is_refused(port, line, status):
    with socket.create_connection(("127.0.0.1", port), timeout=120) as connection:
        connection.sendall(f"{line} HTTP/1.1\r\nHost: x\r\n\r\n".encode())
        assert f" {status} ".encode() in connection.recv(4096)[:20]


def test_a_request_beyond_its_time_is_answered_and_stopped(tmp_path, gate_versions, ask):
    gate, never = tmp_path / "open", tmp_path / "never"
    gate.touch()
    with (
        serving({"gate": gate_versions}, timeout_s=0.1, num_threads=1) as server,
        Client(f"127.0.0.1:{server.port}", "gate", timeout_s=120) as client,
    ):
        status, body = ask(server.rest_port, "POST", GATE, {"inputs": [str(never)]})
        # Were it not stopped, it would hold the only thread, which both ports share.
        assert client.predict({"path": [str(gate)]})["version"] == [2]

    assert status == 504
    assert json.loads(body) == {"error": "Timed out waiting for notification"}


def test_more_requests_than_may_wait_are_refused_but_questions_are_answered(
    tmp_path, gate_versions, ask
):
    gate = tmp_path / "open"
    with (
        serving({"gate": gate_versions}, max_requests=1, num_threads=1) as server,
        futures.ThreadPoolExecutor(1) as thread,
    ):
        document = {"inputs": [str(gate)]}
        running = thread.submit(ask, server.rest_port, "POST", GATE, document)
        wait_for_running(server, 1)
        refused = ask(server.rest_port, "POST", GATE, document)
        status = ask(server.rest_port, "GET", "/v1/models/gate")
        metrics = ask(server.rest_port, "GET", "/monitoring/prometheus/metrics")
        gate.touch()
        assert running.result(120)[0] == 200
    assert refused[0] == 503
    assert (status[0], metrics[0]) == (200, 200)


def test_a_waiting_request_whose_client_has_gone_is_not_run(tmp_path, gate_versions, ask):
    first, never = tmp_path / "first", tmp_path / "never"
    with (
        serving({"gate": gate_versions}, num_threads=1) as server,
        futures.ThreadPoolExecutor(1) as thread,
    ):
        running = thread.submit(ask, server.rest_port, "POST", GATE, {"inputs": [str(first)]})
        wait_for_running(server, 1)
        body = json.dumps({"inputs": [str(never)]}).encode()
        with socket.create_connection(("127.0.0.1", server.rest_port), timeout=120) as gone:
            head = f"POST {GATE} HTTP/1.1\r\nHost: x\r\nContent-Length: {len(body)}\r\n\r\n"
            gone.sendall(head.encode() + body)
            # What comes later on another connection has been seen after that.
            ask(server.rest_port, "GET", "/v1/models/gate")
        ask(server.rest_port, "GET", "/v1/models/gate")
        first.touch()
        assert running.result(120)[0] == 200
        # Had the second one been run, it would hold the only thread.
        assert ask(server.rest_port, "POST", GATE, {"inputs": [str(first)]})[0] == 200


def ask_until_refused(ask, port):
    with contextlib.suppress(ConnectionError):
        while True:
            ask(port, "GET", "/v1/models/gate")


def test_stopping_finishes_running_requests_and_refuses_new_ones(tmp_path, gate_versions, ask):
    gate = tmp_path / "open"
    server = Server({"gate": gate_versions}, port=0, rest_port=0).start()
    server.wait_until_available(120)

    with futures.ThreadPoolExecutor(2) as threads:
        answer = threads.submit(ask, server.rest_port, "POST", GATE, {"inputs": [str(gate)]})
        wait_for_running(server, 1)
        stopping = threads.submit(server.stop, 600)
        ask_until_refused(ask, server.rest_port)
        gate.touch()
        status, body = answer.result(120)
        stopping.result(120)
    assert status == 200
    assert b'"outputs": ' in body


def test_stopping_waits_for_no_idle_connection(echo):
    server = Server({"echo": echo}, port=0, rest_port=0).start()
    with socket.create_connection(("127.0.0.1", server.rest_port), timeout=120) as connection:
        connection.sendall(b"GET /v1/models/echo HTTP/1.1\r\nHost: x\r\n\r\n")
        assert connection.recv(4096)
        stopping = threading.Thread(target=server.stop, args=[600])
        stopping.start()
        stopping.join(120)
        assert not stopping.is_alive()
        assert connection.recv(4096) == b""


@pytest.mark.parametrize("cors", [True, False])
def test_pages_of_other_sites_may_ask_only_if_they_are_let(echo, cors):
    with serving({"echo": echo}, cors=cors) as server:
        connection = http.client.HTTPConnection("127.0.0.1", server.rest_port, timeout=120)
        connection.request("OPTIONS", PREDICT)
        asked = connection.getresponse()
        asked.read()
        connection.request("GET", "/v1/models/echo")
        got = connection.getresponse()
        got.read()
        connection.close()

    assert asked.status == (200 if cors else 400)
    for response in (asked, got):
        assert response.getheader("Access-Control-Allow-Origin") == ("*" if cors else None)


def test_more_rows_than_the_server_takes_are_refused(echo, grades, ask):
    limits = GrpcOptions(max_rows=2)
    models = {"echo": echo, "grades": grades}
    with Server(models, port=0, rest_port=0, grpc_options=limits) as server:
        server.wait_until_available(120)
        port = server.rest_port
        assert ask(port, "POST", PREDICT, {"instances": [1, 2]})[0] == 200
        refused = ask(port, "POST", PREDICT, {"instances": [1, 2, 3]})
        examples = ask(port, "POST", "/v1/models/grades:classify", {"examples": [{}] * 3})

    assert refused[0] == examples[0] == 400
    assert b"2 rows at most, this one is for 3" in refused[1]


def test_without_a_rest_port_nothing_but_grpc_listens(echo):
    with Server({"echo": echo}, port=0) as server:
        assert server.rest_port is None


def test_a_rest_port_that_is_taken_is_refused(echo):
    with (
        Server({"echo": echo}, port=0, rest_port=0) as first,
        pytest.raises(UserError, match=f"cannot listen on 127.0.0.1:{first.rest_port} for REST"),
    ):
        Server({"echo": echo}, port=0, rest_port=first.rest_port).start()


def test_a_server_that_cannot_start_lets_its_rest_port_go(echo):
    with Server({"echo": echo}, port=0, rest_port=0) as first:
        port = first.rest_port
    with Server({"echo": echo}, port=0) as first:
        with pytest.raises(UserError, match="cannot listen"):
            Server({"echo": echo}, port=first.port, rest_port=port).start()
        with Server({"echo": echo}, port=0, rest_port=port):
            pass
