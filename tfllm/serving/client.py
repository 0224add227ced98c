"""Typed clients for any server that speaks TensorFlow Serving's gRPC or REST."""

from __future__ import annotations

from collections.abc import AsyncIterator, Coroutine
from typing import Any

from tfllm.serving.served import Served


class Client(Served):
    """Calls one model of a server; may be used by many threads at once. A context manager.

    Where a text is wanted, one str gives one answer and a list of str a list of answers. What is
    wrong with one row is said in its `Generation.finish_reason` or `Score.error`, never raised.

    Args:
        address: "host:port" for gRPC; "http://host:port" or "https://host:port" for REST, which
            needs neither TensorFlow nor its API.
        model: The name the server knows it by.
        version: A version number; default the newest one available.
        version_label: A label that the server gives to a version, as "stable".
        timeout_s: Seconds for one call, its repetitions included, unless the call says otherwise.
        retries: How often a call is repeated while no server answers (UNAVAILABLE), after pauses
            that grow. No call does anything twice by that.
        tls: For a server with a certificate; of "https://" the default is `TLS()`.
        headers: Sent with every call, as {"authorization": "Bearer …"}.
        keepalive_s: Seconds of silence after which the connection is tried. A server of gRPC ends
            connections that are tried more often than it allows: by default every 300 s.
        max_message_bytes: Of a request or a response; default as large as may be.

    Raises:
        UserError: an address of another form; from every call, arguments that cannot be sent.
        ServingError: from every call, a status other than OK, with its code.
    """

    def __enter__(self) -> Client:
        return self

    def __exit__(self, *_) -> None:
        self.close()


class AsyncClient(Served):
    """`Client` for asyncio: each of its calls is to be awaited. An async context manager.

    The arguments and the calls are those of `Client`. It belongs to the event loop of its first
    call. Over REST the calls run in the loop's threads.
    """

    waits = True

    def _run(self, call: Coroutine[Any, Any, Any]) -> Any:
        return call

    def _iterated(self, pieces: AsyncIterator[Any]) -> Any:
        return pieces

    async def __aenter__(self) -> AsyncClient:
        return self

    async def __aexit__(self, *_) -> None:
        await self.close()
