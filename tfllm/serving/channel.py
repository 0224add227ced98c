"""Calls over one gRPC channel: deadlines, retries where they are safe, errors that help."""

from __future__ import annotations

import random
import re
import time
from collections.abc import Callable
from typing import Any

import grpc

from tfllm.errors import UserError
from tfllm.serving.status import Code, ServingError

_ADDRESS = re.compile(r"(?P<host>\[[0-9A-Fa-f:.%]+\]|[^\s/:\[\]]+):(?P<port>\d{1,5})")

FIRST_BACKOFF_S = 0.1
MAX_BACKOFF_S = 2.0


class Channel:
    """A connection to one server.

    Args:
        address: "host:port" or "[::1]:8500".
        timeout_s: Seconds for one call, its retries included.
        retries: How often a call is repeated while no server answers. Every RPC of TensorFlow
            Serving that is called here only reads, so that repeating one is safe.

    Raises:
        UserError: an address of another form.
    """

    def __init__(self, address: str, timeout_s: float, retries: int):
        self.address = address
        self.timeout_s = timeout_s
        self._retries = retries
        self._is_closed = False
        host = _checked_host(address)
        options: list[tuple[str, Any]] = [
            ("grpc.max_send_message_length", -1),
            ("grpc.max_receive_message_length", -1),
            # By default a server that restarts is looked for after a second, then ever more rarely.
            ("grpc.initial_reconnect_backoff_ms", int(1000 * FIRST_BACKOFF_S)),
            ("grpc.min_reconnect_backoff_ms", int(1000 * FIRST_BACKOFF_S)),
            ("grpc.max_reconnect_backoff_ms", int(1000 * MAX_BACKOFF_S)),
        ]
        if host in ("localhost", "[::1]") or host.startswith("127."):
            options.append(("grpc.enable_http_proxy", 0))  # a proxy has another localhost
        self.grpc = grpc.insecure_channel(address, options)

    def call(self, rpc: Callable, request: Any, timeout_s: float | None = None) -> Any:
        """The response of one RPC.

        Raises:
            ServingError: with the server's code.
        """
        timeout_s = self.timeout_s if timeout_s is None else timeout_s
        end = time.monotonic() + timeout_s
        for attempt in range(self._retries + 1):
            if self._is_closed:
                raise ServingError(Code.CANCELLED, "the client is closed.")
            try:
                return rpc(request, timeout=max(0.0, end - time.monotonic()))
            except grpc.RpcError as error:
                code, message = Code(error.code().value[0]), error.details() or ""
            if code == Code.CANCELLED and not self._is_closed:
                code = Code.UNAVAILABLE  # so says a server that is stopping to what comes too late
            # Randomly earlier, so that the clients of one server do not return all at once.
            pause = random.uniform(0.5, 1) * min(MAX_BACKOFF_S, FIRST_BACKOFF_S * 2**attempt)
            if code != Code.UNAVAILABLE or time.monotonic() + pause > end:
                break
            if attempt < self._retries:
                time.sleep(pause)
        if code == Code.UNAVAILABLE:
            message = f"{self.address} cannot answer: {message}"
        elif code == Code.DEADLINE_EXCEEDED:
            message = f"no answer from {self.address} within {timeout_s:g} s. Raise timeout_s?"
        raise ServingError(code, message)

    def close(self) -> None:
        self._is_closed = True
        self.grpc.close()


def _checked_host(address: str) -> str:
    if "://" in address:
        raise UserError(
            f"a gRPC address has the form host:port, without a scheme or a path: got {address!r}."
        )
    match = _ADDRESS.fullmatch(address)
    if match is None or not 0 < int(match["port"]) < 2**16:
        raise UserError(
            f"an address must have the form host:port, such as localhost:8500 or [::1]:8500: "
            f"got {address!r}."
        )
    return match["host"]
