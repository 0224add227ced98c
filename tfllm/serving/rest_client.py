"""TensorFlow Serving's REST as a client speaks it: the standard library and numpy, nothing else.

Source:
    https://www.tensorflow.org/tfx/serving/api_rest; of the codes, `ToHTTPStatusCode` in
    tensorflow_serving/model_servers/http_server.cc, read for the behaviour.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import http.client
import json
import socket
import ssl
import threading
import time
import urllib.parse
from collections.abc import Mapping, Sequence
from concurrent import futures
from typing import Any

import numpy as np

from tfllm.errors import UserError
from tfllm.serving import rest_messages
from tfllm.serving.metadata import Metadata, SignatureInfo, VersionStatus
from tfllm.serving.status import Code, ServingError
from tfllm.serving.transport import TLS, Connection, Spec, Transport, place_of

# Several codes share a number: the first of them that a client can do something about.
_CODES = {
    400: Code.INVALID_ARGUMENT,
    401: Code.UNAUTHENTICATED,
    403: Code.PERMISSION_DENIED,
    404: Code.NOT_FOUND,
    408: Code.DEADLINE_EXCEEDED,
    409: Code.ABORTED,
    412: Code.FAILED_PRECONDITION,
    413: Code.RESOURCE_EXHAUSTED,
    429: Code.RESOURCE_EXHAUSTED,
    499: Code.CANCELLED,
    500: Code.INTERNAL,
    501: Code.UNIMPLEMENTED,
    502: Code.UNAVAILABLE,  # a proxy before the server
    503: Code.UNAVAILABLE,
    504: Code.DEADLINE_EXCEEDED,
}
_CHUNK = 2**16
MAX_THREADS = 256  # calls at a time of a client that waits; more wait for their turn


class Rest(Transport):
    """Connections to a REST port, as many as there are calls at a time; reused.

    The arguments are those of `Transport`.
    """

    def __init__(self, connection: Connection, spec: Spec, waits: bool):
        super().__init__(connection, spec, waits)
        place = place_of(connection.address)
        self._place = place
        self._tls = connection.tls or TLS()
        self._context = _ssl_context(self._tls) if place.scheme == "https" else None
        self._model_path = "/v1/models/" + urllib.parse.quote(spec.model, safe="")
        self._path = self._model_path
        if spec.version is not None:
            self._path += f"/versions/{spec.version}"
        if spec.label is not None:
            self._path += "/labels/" + urllib.parse.quote(spec.label, safe="")
        self._signatures: dict[str, SignatureInfo] = {}
        self._idle: list[_Connection] = []
        self._open: set[_Connection] = set()
        self._lock = threading.Lock()
        self._threads = futures.ThreadPoolExecutor(MAX_THREADS) if waits else None

    async def predict(
        self,
        inputs: Mapping[str, np.ndarray],
        signature_name: str,
        output_filter: Sequence[str],
        timeout_s: float | None,
    ) -> dict[str, np.ndarray]:
        # JSON has no dtypes, and an only output comes without its name: asked for once.
        if signature_name not in self._signatures:
            self._signatures = (await self.metadata(timeout_s)).signatures
        known = self._signatures.get(signature_name)
        body = rest_messages.request(inputs, signature_name)
        told = await self._call("POST", f"{self._path}:predict", body, timeout_s)
        outputs = rest_messages.outputs(told, known.outputs if known else {})
        if missing := sorted(set(output_filter) - set(outputs)):
            raise ServingError(
                Code.INVALID_ARGUMENT,
                f"output tensor alias not found in signature: {missing[0]} Outputs expected to be "
                f"in the set {{{','.join(sorted(outputs))}}}.",
            )
        return {name: outputs[name] for name in output_filter or outputs}

    async def metadata(self, timeout_s: float | None) -> Metadata:
        told = await self._call("GET", f"{self._path}/metadata", None, timeout_s)
        return rest_messages.metadata(told)

    async def status(self, timeout_s: float | None) -> list[VersionStatus]:
        return rest_messages.status(await self._call("GET", self._model_path, None, timeout_s))

    async def reload(self, config: Any, timeout_s: float | None) -> None:  # noqa: ARG002
        raise UserError(
            f"REST cannot change what {self.connection.address} serves: give its gRPC port, as "
            f"{self._place.host}:8500."
        )

    async def close(self) -> None:
        self.is_closed = True
        with self._lock:
            for connection in self._open:
                connection.abort()
            idle, self._idle = self._idle, []
        for connection in idle:
            self._forget(connection)
        if self._threads is not None:
            self._threads.shutdown(wait=False)

    async def _call(
        self, method: str, path: str, body: bytes | None, timeout_s: float | None
    ) -> dict[str, Any]:
        async def attempt(left_s: float) -> dict[str, Any]:
            ask = functools.partial(self._exchange, method, path, body, time.monotonic() + left_s)
            if self._threads is None:
                return ask()
            return await asyncio.get_running_loop().run_in_executor(self._threads, ask)

        most = self.connection.max_message_bytes
        if body is not None and most is not None and len(body) > most:
            raise ServingError(
                Code.RESOURCE_EXHAUSTED, f"a request of {len(body)} bytes, {most} at most."
            )
        return await self.call(attempt, timeout_s)

    def _exchange(self, method: str, path: str, body: bytes | None, end: float) -> dict[str, Any]:
        try:
            number, content = self._answer(method, path, body, end)
        except TimeoutError:
            raise ServingError(Code.DEADLINE_EXCEEDED, "") from None
        except (OSError, http.client.HTTPException) as error:
            code = Code.CANCELLED if self.is_closed else Code.UNAVAILABLE
            raise ServingError(code, str(error) or type(error).__name__) from error
        try:
            told = json.loads(content)
        except ValueError:  # the stock server escapes its errors as C does, a proxy speaks HTML
            told = None
        if number == 200 and isinstance(told, dict):
            return told
        message = told.get("error") if isinstance(told, dict) else None
        if not isinstance(message, str):
            message = content[:1000].decode(errors="replace") or f"HTTP {number}"
        raise ServingError(_CODES.get(number, Code.UNKNOWN), message)

    def _answer(self, method: str, path: str, body: bytes | None, end: float) -> tuple[int, bytes]:
        """The status and the content of one response."""
        while True:
            with self._lock:
                connection = self._idle.pop() if self._idle else None
            is_reused = connection is not None
            if connection is None:
                connection = _Connection(self._place.host, self._place.port, self)
                with self._lock:
                    self._open.add(connection)
            try:
                response = connection.ask(method, path, body, end)
                content = connection.read(response, end)
            except (ConnectionError, ssl.SSLEOFError, http.client.BadStatusLine):
                self._forget(connection)
                if not is_reused or self.is_closed:
                    raise
                continue  # the server had closed it since, which is not its refusal
            except BaseException:
                self._forget(connection)
                raise
            with self._lock:
                if not self.is_closed:
                    self._idle.append(connection)
            if self.is_closed:  # whose calls have no answer, also where it came just before
                self._forget(connection)
                raise ConnectionAbortedError("the client was closed.")
            return response.status, content

    def _forget(self, connection: _Connection) -> None:
        connection.close()
        with self._lock:
            self._open.discard(connection)


class _Connection(http.client.HTTPConnection):
    """One connection that keeps a deadline, not only a limit for each silence."""

    def __init__(self, host: str, port: int, rest: Rest):
        super().__init__(host.strip("[]"), port)
        self._rest = rest
        self._headers = {"Content-Type": "application/json", **rest.connection.headers}
        self._most = rest.connection.max_message_bytes
        self._keepalive_s = rest.connection.keepalive_s
        self._context = rest._context
        self._server_name = rest._tls.server_name or host.strip("[]")

    def connect(self) -> None:
        super().connect()
        if self._keepalive_s is not None:
            _keep_alive(self.sock, self._keepalive_s)
        if self._context is not None:
            self.sock = self._context.wrap_socket(self.sock, server_hostname=self._server_name)
        if self._rest.is_closed:  # `abort` may have seen no socket yet
            raise ConnectionAbortedError("the client was closed.")

    def ask(
        self, method: str, path: str, body: bytes | None, end: float
    ) -> http.client.HTTPResponse:
        self.timeout = _left(end)
        if self.sock is not None:
            self.sock.settimeout(self.timeout)
        self.request(method, path, body, self._headers)
        return self.getresponse()

    def read(self, response: http.client.HTTPResponse, end: float) -> bytes:
        sock, parts, size = self.sock, [], 0
        while part := response.read1(_CHUNK):
            parts.append(part)
            size += len(part)
            if self._most is not None and size > self._most:
                raise ServingError(
                    Code.RESOURCE_EXHAUSTED, f"an answer of more than {self._most} bytes."
                )
            if sock is not None:  # None when the server ends the connection with this answer
                sock.settimeout(_left(end))
        if response.length:
            raise http.client.IncompleteRead(b"".join(parts), response.length)
        response.close()  # else the connection takes no other request
        return b"".join(parts)

    def abort(self) -> None:
        """Ends what another thread waits for; that thread closes the connection."""
        sock = self.sock
        if sock is not None:
            with contextlib.suppress(OSError):  # it was not connected any more
                socket.socket.shutdown(sock, socket.SHUT_RDWR)  # TLS's own drops state in use


def _left(end: float) -> float:
    left = end - time.monotonic()
    if left <= 0:  # a timeout of 0 would mean another thing
        raise TimeoutError
    return left


def _keep_alive(sock: socket.socket, seconds: float) -> None:
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    if hasattr(socket, "TCP_KEEPIDLE"):  # not everywhere
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, max(1, int(seconds)))


def _ssl_context(tls: TLS) -> ssl.SSLContext:
    tls.read()  # says which file cannot be read
    try:
        context = ssl.create_default_context(cafile=tls.root_certificates)
        if tls.certificate is not None:
            context.load_cert_chain(tls.certificate, tls.key)
    except ssl.SSLError as error:
        raise UserError(f"These are no certificates in PEM, or not their key: {error}.") from None
    return context
