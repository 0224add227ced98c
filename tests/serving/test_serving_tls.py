"""Clients of servers with certificates, over gRPC and over REST."""

import asyncio
import ssl
import threading
from concurrent import futures
from pathlib import Path

import grpc
import pytest
from tensorflow_serving.apis import model_service_pb2_grpc
from test_serving_async_client import Heard
from test_serving_rest_client import MODEL, Recorded

from tfllm.errors import UserError
from tfllm.serving import TLS, AsyncClient, Client, Code, ServingError

# Of a test authority whose key nobody has: the server's for models.example and 127.0.0.1.
HERE = Path(__file__).parent / "certificates"
ROOT, KNOWN = HERE / "ca.pem", {"certificate": HERE / "client.pem", "key": HERE / "client.key"}


@pytest.fixture(scope="module")
def grpc_port():
    roots, key, certificate = (
        (HERE / name).read_bytes() for name in ("ca.pem", "server.key", "server.pem")
    )
    server = grpc.server(futures.ThreadPoolExecutor(1))
    model_service_pb2_grpc.add_ModelServiceServicer_to_server(Heard(1), server)
    credentials = grpc.ssl_server_credentials([(key, certificate)], roots, True)
    port = server.add_secure_port("127.0.0.1:0", credentials)
    server.start()
    yield port
    server.stop(None).wait()


@pytest.fixture(scope="module")
def https_port():
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(HERE / "server.pem", HERE / "server.key")
    context.load_verify_locations(ROOT)
    context.verify_mode = ssl.CERT_REQUIRED
    with Recorded() as server:
        server.socket = context.wrap_socket(
            server.socket, server_side=True, do_handshake_on_connect=False
        )
        status = {"version": "1", "state": "AVAILABLE", "status": {"error_code": "OK"}}
        server.answers[MODEL] = [(200, {"model_version_status": [status]})]
        server.handle_error = lambda *_: None  # of handshakes that are refused
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        yield server.server_port
        server.shutdown()
        thread.join()


@pytest.fixture(params=["grpc", "rest"])
def address(request):
    if request.param == "grpc":
        return f"127.0.0.1:{request.getfixturevalue('grpc_port')}"
    return f"https://127.0.0.1:{request.getfixturevalue('https_port')}"


@pytest.mark.parametrize("name", [None, "models.example"])
def test_a_client_with_the_right_certificates_is_answered(address, name):
    tls = TLS(ROOT, **KNOWN, server_name=name)
    with Client(address, "gpt", tls=tls) as client:
        assert [status.version for status in client.status()] == [1]

    async def waiting():
        async with AsyncClient(address, "gpt", tls=tls) as client:
            return [status.version for status in await client.status()]

    assert asyncio.run(waiting()) == [1]


@pytest.mark.parametrize(
    "tls",
    [TLS(**KNOWN), TLS(ROOT), TLS(ROOT, **KNOWN, server_name="elsewhere.example")],
    ids=["an unknown authority", "no certificate of the client", "another server"],
)
def test_a_certificate_that_does_not_prove_it_ends_the_call(address, tls):
    client = Client(address, "gpt", tls=tls, retries=0, timeout_s=5)
    with client, pytest.raises(ServingError) as refused:
        client.status()
    assert refused.value.code in (Code.UNAVAILABLE, Code.DEADLINE_EXCEEDED)


@pytest.mark.parametrize(
    ("address", "tls", "words"),
    [
        ("http://localhost:1", TLS(), "is without TLS: write https"),
        ("localhost:1", TLS("none.pem"), r"Cannot read none\.pem"),
        ("localhost:1", TLS(ROOT, HERE / "client.pem"), "needs its key"),
        ("https://localhost:1", TLS(__file__), "no certificates in PEM"),
    ],
)
def test_files_that_cannot_be_are_refused(address, tls, words):
    with pytest.raises(UserError, match=words):
        Client(address, "gpt", tls=tls)
