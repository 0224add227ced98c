"""What gRPC and REST have in common: how a server is reached, deadlines, retries, errors."""

from __future__ import annotations

import asyncio
import dataclasses
import os
import random
import re
import time
from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar

from tfllm.errors import UserError
from tfllm.serving.status import Code, ServingError

if TYPE_CHECKING:
    import numpy as np
    from tensorflow_serving.config.model_server_config_pb2 import ModelServerConfig

    from tfllm.serving.metadata import Metadata, VersionStatus

_ADDRESS = re.compile(
    r"(?P<scheme>https?://)?(?P<host>\[[0-9A-Fa-f:.%]+\]|[^\s/:\[\]]+):(?P<port>\d{1,5})"
)

FIRST_BACKOFF_S = 0.1
MAX_BACKOFF_S = 2.0

Answer = TypeVar("Answer")
PathLike = str | os.PathLike[str]


class TLS(NamedTuple):
    """How the server proves who it is, and the client if the server asks for it.

    Attributes:
        root_certificates: A PEM file of those who sign certificates; default those of the system.
        certificate: A PEM file of the client's own certificates.
        key: A PEM file of its private key.
        server_name: What the server's certificate must be for; default the host of the address.
    """

    root_certificates: PathLike | None = None
    certificate: PathLike | None = None
    key: PathLike | None = None
    server_name: str | None = None

    def read(self) -> tuple[bytes | None, bytes | None, bytes | None]:
        """The bytes of the three files.

        Raises:
            UserError: a file cannot be read, or one of certificate and key is missing.
        """
        if (self.certificate is None) != (self.key is None):
            raise UserError("A client's certificate needs its key, and a key its certificate.")
        return _read(self.root_certificates), _read(self.certificate), _read(self.key)


def _read(path: PathLike | None) -> bytes | None:
    if path is None:
        return None
    try:
        return Path(path).read_bytes()
    except OSError as error:
        raise UserError(f"Cannot read {path}: {error.strerror}.") from None


class Place(NamedTuple):
    """The parts of an address; `scheme` is "" for gRPC, "http" or "https" for REST."""

    scheme: str
    host: str
    port: int


def place_of(address: str) -> Place:
    """The parts of "host:port", "[::1]:8500" or "http://host:8501".

    Raises:
        UserError: an address of another form.
    """
    match = _ADDRESS.fullmatch(address)
    if match is None or not 0 < int(match["port"]) < 2**16:
        raise UserError(
            "an address must have the form host:port for gRPC, such as localhost:8500 or "
            "[::1]:8500, or http://host:port or https://host:port for REST, without a path: "
            f"got {address!r}."
        )
    return Place((match["scheme"] or "").removesuffix("://"), match["host"], int(match["port"]))


@dataclasses.dataclass(frozen=True)
class Connection:
    """How a server is reached; the arguments of `Client` that say so.

    Raises:
        UserError: a value that none of them can have.
    """

    address: str
    timeout_s: float = 60.0
    retries: int = 3
    tls: TLS | None = None
    headers: Mapping[str, str] = dataclasses.field(default_factory=dict)
    keepalive_s: float | None = None
    max_message_bytes: int | None = None

    def __post_init__(self):
        for name, value in self.headers.items():
            if not isinstance(value, str) or not re.fullmatch(r"[\w.-]+", name, re.ASCII):
                raise UserError(f"A header is a name with a str: got {name!r}: {value!r}.")
            if not value.isprintable() or not value.isascii():
                raise UserError(f"The header {name} must be printable ASCII.")
        if self.keepalive_s is not None and not self.keepalive_s > 0:
            raise UserError(f"keepalive_s must be above 0, got {self.keepalive_s}.")
        if self.max_message_bytes is not None and self.max_message_bytes < 1:
            raise UserError(f"max_message_bytes must be at least 1, got {self.max_message_bytes}.")
        if self.tls is not None and place_of(self.address).scheme == "http":
            raise UserError(f"{self.address} is without TLS: write https://, or leave tls out.")


class Spec(NamedTuple):
    """Which model is asked: the newest version, one by its number, or one by its label."""

    model: str
    version: int | None = None
    label: str | None = None


class Transport:
    """One server, spoken to by gRPC or by REST.

    Args:
        connection: How it is reached.
        spec: Which model is asked.
        waits: Whether its coroutines wait in an event loop; else they block and end at once.
    """

    def __init__(self, connection: Connection, spec: Spec, waits: bool):
        self.connection = connection
        self.spec = spec
        self.waits = waits
        self.is_closed = False

    async def predict(
        self,
        inputs: Mapping[str, np.ndarray],
        signature_name: str,
        output_filter: Sequence[str],
        timeout_s: float | None,
    ) -> dict[str, np.ndarray]:
        """Arrays by name; strings as bytes objects in object arrays.

        Raises:
            ServingError: as all of these, with the server's code.
        """
        raise NotImplementedError

    async def metadata(self, timeout_s: float | None) -> Metadata:
        """The model's signatures."""
        raise NotImplementedError

    async def status(self, timeout_s: float | None) -> list[VersionStatus]:
        """All versions, the highest first."""
        raise NotImplementedError

    async def reload(self, config: ModelServerConfig, timeout_s: float | None) -> None:
        """Has the server serve these models and no others.

        Raises:
            UserError: it cannot be asked by this transport.
        """
        raise NotImplementedError

    def generate(self, request: Any, timeout_s: float | None) -> AsyncGenerator[Any, None]:
        """The replies of a gateway, as they come; closing the iterator ends the call.

        Args:
            request: A `GenerateRequest` of `text_generation`.
            timeout_s: Seconds for all of it; None sets no limit.
        """
        raise NotImplementedError

    async def close(self) -> None:
        """Ends the connections and what is running on them."""
        raise NotImplementedError

    async def pause(self, seconds: float) -> None:
        if self.waits:
            await asyncio.sleep(seconds)
        else:
            time.sleep(seconds)

    async def call(
        self, attempt: Callable[[float], Awaitable[Answer]], timeout_s: float | None
    ) -> Answer:
        """What `attempt` returns, which is called with the seconds left, and again while no server
        answers: what is asked here reads, or sets the same again, so that nothing happens twice.

        Raises:
            ServingError: of the last attempt.
        """
        timeout_s = self.connection.timeout_s if timeout_s is None else timeout_s
        end = time.monotonic() + timeout_s
        for number in range(self.connection.retries + 1):
            if self.is_closed:
                raise ServingError(Code.CANCELLED, "the client is closed.")
            try:
                return await attempt(max(0.0, end - time.monotonic()))
            except ServingError as error:
                code, message = error.code, error.message
            # Randomly earlier, so that the clients of one server do not return all at once.
            pause = random.uniform(0.5, 1) * min(MAX_BACKOFF_S, FIRST_BACKOFF_S * 2**number)
            if code != Code.UNAVAILABLE or time.monotonic() + pause > end:
                break
            if number < self.connection.retries:
                await self.pause(pause)
        address = self.connection.address
        if code == Code.UNAVAILABLE:
            message = f"{address} cannot answer: {message}"
        elif code == Code.DEADLINE_EXCEEDED:
            message = f"no answer from {address} within {timeout_s:g} s. Raise timeout_s?"
        raise ServingError(code, message)
