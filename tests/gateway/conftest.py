"""A server of a tiny model with sessions, and gateways before it, in loops of their own."""

import asyncio
import contextlib
import http.client
import json
import threading

import pytest

from tfllm.export import for_serving
from tfllm.gateway.run import gateway
from tfllm.serving import Server

NUM_SLOTS = 3


@pytest.fixture(scope="session")
def sessions_base(gpt, tmp_path_factory):
    base = tmp_path_factory.mktemp("gateway") / "gpt"
    for_serving(gpt, base, sessions=NUM_SLOTS, warm_up=[])
    return base


@pytest.fixture(scope="session")
def server(sessions_base):
    with Server({"gpt": sessions_base}, port=0) as server:
        server.wait_until_available(60)
        yield server


class Running:
    """A gateway in a thread; a client that speaks plain HTTP."""

    def __init__(self, *endpoints, **options):
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)
        self._thread.start()

        async def start():
            self.gateway = gateway(endpoints, **options)
            await self.gateway.start()

        self._do(start())

    def _do(self, coroutine):
        return asyncio.run_coroutine_threadsafe(coroutine, self._loop).result(60)

    @property
    def url(self):
        return f"http://127.0.0.1:{self.gateway.port}"

    def stop(self, grace_s=0.0):
        self._do(self.gateway.stop(grace_s))
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    def open(self, method, path, body=None, headers=None):
        """The connection and the response, of which nothing is read yet."""
        connection = http.client.HTTPConnection("127.0.0.1", self.gateway.port, timeout=60)
        if body is not None and not isinstance(body, bytes):
            body = json.dumps(body).encode()
        connection.request(method, path, body, headers or {})
        return connection, connection.getresponse()

    def ask(self, method, path, body=None, headers=None):
        """Status, and the body as JSON or text."""
        connection, response = self.open(method, path, body, headers)
        with contextlib.closing(connection):
            text = response.read().decode()
        is_json = response.headers["Content-Type"].startswith("application/json")
        return response.status, json.loads(text) if is_json else text

    def complete(self, **body):
        status, answer = self.ask("POST", "/v1/completions", {"model": "gpt", **body})
        assert status == 200, answer
        return answer

    def stream(self, path="/v1/completions", **body):
        """The messages of a stream, as they come."""
        connection, response = self.open("POST", path, {"model": "gpt", "stream": True, **body})
        with contextlib.closing(connection):
            assert response.status == 200, response.read()
            yield from events(response)


def events(response):
    for line in response:
        if line.startswith(b"data: {"):
            yield json.loads(line[6:])
        else:
            assert line in (b"\n", b"data: [DONE]\n"), line


@pytest.fixture(scope="session")
def start_gateway():
    """Starts gateways: `start_gateway((address, model), …)`; who asks for one stops it."""
    return Running


@pytest.fixture(scope="session")
def endpoint(server):
    return f"127.0.0.1:{server.port}", "gpt"


@pytest.fixture
def running(endpoint):
    running = Running(endpoint)
    wait_until_up(running)
    yield running
    running.stop()


def wait_until_up(running):
    """Asks until the gateway has found its servers."""
    for _ in range(3000):
        if running.ask("GET", "/healthz")[0] == 200:
            return
    raise AssertionError("the gateway found no server")
