"""A model on one server: which of its versions is meant, now."""

from __future__ import annotations

import contextlib
from typing import Any

from tfllm.gateway.backend import Backend
from tfllm.serving import AsyncClient


class Endpoint:
    """Where a model is asked for.

    Args:
        address: "host:port" of gRPC.
        model: Its name there.
        timeout_s: Seconds for one call.
        version_label: Of the version that is meant; None = the newest.
        kind: Of the backends.
        **connection: Other arguments of `tfllm.serving.Client`.
    """

    def __init__(
        self,
        address: str,
        model: str,
        timeout_s: float = 60.0,
        version_label: str | None = None,
        kind: type[Backend] = Backend,
        **connection: Any,
    ):
        self.address = address
        self.model = model
        self._kind = kind
        self._options = {"timeout_s": timeout_s, "retries": 0, **connection}
        self._any_version = AsyncClient(
            address, model, version_label=version_label, **self._options
        )

    async def version(self) -> int:
        """Which one is meant: it has the label, or is the newest of those that are loaded.

        Raises:
            ServingError: as the server says, or UNAVAILABLE.
        """
        return (await self._any_version.metadata()).version

    async def open(self) -> Backend:
        """The version that is meant.

        Raises:
            ServingError: as the server says, or UNAVAILABLE.
            UserError: it has a chat template that is none.
        """
        version = await self.version()
        async with contextlib.AsyncExitStack() as stack:
            client = AsyncClient(self.address, self.model, version=version, **self._options)
            stack.push_async_callback(client.close)
            backend = self._kind(client)
            await backend.open()
            stack.pop_all()
        return backend

    async def close(self) -> None:
        await self._any_version.close()
