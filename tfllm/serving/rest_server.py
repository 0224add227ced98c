"""HTTP for the REST API: an event loop reads and writes, the server's threads answer.

A slow client costs a socket and no thread; a request whose client has gone before its turn came is
not run. Limits are on the body's size, on the time it takes to come and on how many wait.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import socket
import threading
from concurrent import futures
from dataclasses import dataclass

from aiohttp import web

from tfllm.errors import UserError
from tfllm.serving.callers import RestCaller, answering
from tfllm.serving.rest_api import METRICS_PATH, Answer, RestApi, error_body, refusal
from tfllm.serving.status import Code
from tfllm.serving.versions import Versions

# aiohttp logs what it could not parse, which may be a prompt. Defects are logged by `RestApi`.
_silent = logging.getLogger("tfllm.serving.http")
_silent.setLevel(logging.CRITICAL + 1)

_JSON = "application/json"
_CORS = {
    "Access-Control-Allow-Origin": "*",
    "Access-Control-Allow-Methods": "POST, GET",
    "Access-Control-Allow-Headers": "Content-Type",
}


@dataclass(frozen=True)
class RestOptions:
    """How the REST port answers.

    Attributes:
        timeout_s: Seconds after which a request is answered with 504, as with the stock server's
            `--rest_api_timeout_in_ms`, and its run is stopped.
        cors: Whether pages of other sites may ask, as with `--rest_api_enable_cors_support`.
        metrics_path: Where Prometheus finds the metrics; None has none.
        max_body_bytes: A larger body is answered with 413, decompressed or not.
        max_requests: Requests that run or wait at the same time; more are answered with 503.
        body_timeout_s: Seconds that a body may take to come; then it is answered with 408.
        idle_timeout_s: Seconds after which a connection without requests is closed.
    """

    timeout_s: float = 30.0
    cors: bool = False
    metrics_path: str | None = METRICS_PATH
    max_body_bytes: int = 64 * 2**20
    max_requests: int = 1024
    body_timeout_s: float = 60.0
    idle_timeout_s: float = 75.0


def listen(host: str, port: int) -> socket.socket:
    """A port that nothing is answered at yet; 0 takes a free one.

    Raises:
        UserError: it is taken, or this machine has no such address.
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        listening = socket.create_server((host, port), family=family, backlog=1024)
    except OSError as error:
        raise UserError(
            f"cannot listen on {host}:{port} for REST: {error.strerror}. Choose another port, "
            "or 0 for a free one."
        ) from error
    listening.setblocking(False)
    return listening


class RestServer:
    """Serves the REST API until it is stopped.

    Args:
        versions: Where the loaded versions are found.
        threads: What POST requests are answered by. GET requests are not: probes and Prometheus
            get their answers under any load.
        options: Limits and paths.
        max_rows: A request for more rows is refused; None takes any number.
    """

    def __init__(
        self,
        versions: Versions,
        threads: futures.Executor,
        options: RestOptions | None = None,
        max_rows: int | None = None,
    ):
        self._options = options or RestOptions()
        self._api = RestApi(versions, self._options.metrics_path, max_rows)
        self._threads = threads
        self._num_requests = 0
        self._grace_s: float | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._connecting: set[asyncio.Task] = set()
        self._retrying: asyncio.TimerHandle | None = None
        self._stopping = asyncio.Event()
        self._has_started, self._has_stopped = threading.Event(), threading.Event()

    def start(self, listening: socket.socket) -> None:
        """Answers what comes at the port that `listen` gave."""
        self._listening = listening
        threading.Thread(
            target=asyncio.run, args=[self._serve()], name="tfllm-rest", daemon=True
        ).start()
        self._has_started.wait()

    def stop(self, grace_s: float | None) -> threading.Event:
        """Refuses new connections and lets the running requests end for `grace_s`.

        Returns:
            What is set when that is done.
        """
        if self._loop is None:  # never started
            self._has_stopped.set()
            return self._has_stopped
        self._grace_s = grace_s
        self._loop.call_soon_threadsafe(self._stopping.set)
        return self._has_stopped

    async def _serve(self) -> None:
        try:
            self._loop = asyncio.get_running_loop()
            server = web.Server(
                self._respond,
                handler_cancellation=True,
                logger=_silent,
                access_log=None,
                keepalive_timeout=self._options.idle_timeout_s,
            )
            self._loop.add_reader(self._listening, self._accept, server)
            self._has_started.set()
            await self._stopping.wait()
            if self._retrying is not None:
                self._retrying.cancel()
            self._loop.remove_reader(self._listening)
            self._listening.close()
            await asyncio.gather(*self._connecting)
            server.pre_shutdown()
            await server.shutdown(self._grace_s or 0)
        finally:
            self._has_started.set()
            self._has_stopped.set()

    def _accept(self, server: web.Server) -> None:
        # Not asyncio's own server: closed at the wrong moment, that of Python 3.11 forgets a
        # connection that it has accepted, and its client waits for ever.
        loop = asyncio.get_running_loop()
        try:
            connection, _ = self._listening.accept()
        except BlockingIOError:
            return
        except OSError:  # too many open files: some of them will be closed
            loop.remove_reader(self._listening)
            self._retrying = loop.call_later(
                0.1, loop.add_reader, self._listening, self._accept, server
            )
            return
        task = loop.create_task(_connect(server, connection))
        self._connecting.add(task)
        task.add_done_callback(self._connecting.discard)

    async def _respond(self, request: web.BaseRequest) -> web.Response:
        answer = await self._answer(request)
        headers = {"Content-Type": answer.content_type, "Server": "tfllm"}
        if self._options.cors:
            headers |= _CORS
        return web.Response(status=answer.status, body=answer.body, headers=headers)

    async def _answer(self, request: web.BaseRequest) -> Answer:
        method, path = request.method, request.raw_path.partition("?")[0]
        if method == "OPTIONS" and self._options.cors:
            return Answer(200, _JSON, b"")
        if method != "POST":
            return self._api.answer(method, path, b"")
        if self._num_requests >= self._options.max_requests:
            return refusal(Code.UNAVAILABLE, "too many requests are waiting")
        self._num_requests += 1
        try:
            return await self._answer_post(request, path)
        finally:
            self._num_requests -= 1

    async def _answer_post(self, request: web.BaseRequest, path: str) -> Answer:
        try:
            async with asyncio.timeout(self._options.body_timeout_s):
                body = await self._body(request)
        except TimeoutError:
            return Answer(408, _JSON, error_body("the body did not come in time"))
        except web.RequestPayloadError:
            return Answer(400, _JSON, error_body("the body is not encoded as its headers say"))
        if body is None:
            limit = self._options.max_body_bytes
            return Answer(413, _JSON, error_body(f"the body is larger than {limit} bytes"))
        caller = RestCaller(self._options.timeout_s)
        try:
            async with asyncio.timeout(self._options.timeout_s):
                loop = asyncio.get_running_loop()
                return await loop.run_in_executor(
                    self._threads, self._answer_to, caller, path, body
                )
        except TimeoutError:
            return refusal(Code.DEADLINE_EXCEEDED, "Timed out waiting for notification")
        finally:
            caller.leave()

    def _answer_to(self, caller: RestCaller, path: str, body: bytes) -> Answer:
        with answering(caller):
            return self._api.answer("POST", path, body)

    async def _body(self, request: web.BaseRequest) -> bytes | None:
        """The body, or None if it is too large."""
        limit = self._options.max_body_bytes
        if (request.content_length or 0) > limit:
            return None
        body = bytearray()
        async for chunk in request.content.iter_any():
            body += chunk
            if len(body) > limit:
                return None
        return bytes(body)


async def _connect(server: web.Server, connection: socket.socket) -> None:
    with contextlib.suppress(OSError):  # the client has gone already
        await asyncio.get_running_loop().connect_accepted_socket(server, connection)
