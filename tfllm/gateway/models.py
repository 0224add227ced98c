"""What is behind a gateway, whichever interface asks: models, keys, and texts being written."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from typing import Any

from tfllm import contract
from tfllm.gateway.balancing import Replicas
from tfllm.gateway.keys import Client, Keys
from tfllm.gateway.records import Record
from tfllm.gateway.scheduler import Scheduler
from tfllm.gateway.texts import Asked, Refused, Text


class Models:
    """The models of a gateway.

    Args:
        replicas: By the names that clients use.
        keys: Who may ask.

    Attributes:
        is_draining: Whether new requests are refused, as the gateway is being stopped.
    """

    def __init__(self, replicas: Mapping[str, Replicas], keys: Keys):
        self._replicas = replicas
        self._keys = keys
        self.is_draining = False

    def __iter__(self) -> Iterator[str]:
        return iter(self._replicas)

    def start(self) -> None:
        """Looks for the servers."""
        for scheduler in self._schedulers:
            scheduler.start()

    async def drain(self, grace_s: float) -> None:
        """Refuses new texts, and lets the running ones end for so many seconds."""
        self.is_draining = True
        end = time.monotonic() + grace_s
        while self.load and time.monotonic() < end:
            await asyncio.sleep(0.02)

    async def stop(self) -> None:
        """Ends all texts."""
        await asyncio.gather(*(each.stop() for each in self._schedulers))

    @property
    def load(self) -> int:
        """Texts that run or wait."""
        return sum(scheduler.load for scheduler in self._schedulers)

    @property
    def _schedulers(self) -> list[Scheduler]:
        return [each for replicas in self._replicas.values() for each in replicas.schedulers]

    @property
    def up(self) -> dict[str, bool]:
        """Whether a server of each model answers."""
        return {name: replicas.is_up for name, replicas in self._replicas.items()}

    @property
    def is_fine(self) -> bool:
        """Whether all models have a server that answers, and new requests are taken."""
        return all(self.up.values()) and not self.is_draining

    def client(self, authorization: str | None) -> Client:
        """Who sent this header.

        Raises:
            Refused: nobody who is known.
        """
        return self._keys.client(authorization)

    def check_open(self) -> None:
        """Refuses new requests where there shall be none.

        Raises:
            Refused: the gateway is being stopped.
        """
        if self.is_draining:
            raise Refused(503, "The gateway is being stopped.", retry_after_s=5)

    def named(self, name: Any) -> Replicas:
        """A model that is asked for.

        Raises:
            Refused: there is none of that name.
        """
        if not isinstance(name, str) or name not in self._replicas:
            known = ", ".join(self._replicas)
            raise Refused(
                404,
                f"There is no model {name!r} here, but {known}.",
                param="model",
                code="model_not_found",
            )
        return self._replicas[name]


@contextlib.asynccontextmanager
async def written(
    replicas: Replicas, prompts: Sequence[Sequence[Asked]], record: Record
) -> AsyncIterator[list[list[Text]]]:
    """Has texts written inside the `with`, which begins when the first prompt is accepted.

    Args:
        replicas: Of the model.
        prompts: What is asked; the texts of one list have the same prompt.
        record: Of the request.

    Raises:
        Refused: what is asked cannot be answered, or not now.
    """
    if contract.GENERATE not in replicas.any().backend.signatures:
        raise Refused(400, f"{replicas.name} writes no texts.", param="model")
    groups = [_texts(asked) for asked in prompts]
    record.follow(groups)
    try:
        for group in groups:
            replicas.add(group)
        await groups[0][0].begun()
        yield groups
    finally:
        for group in groups:
            for text in group:
                text.leave()


def _texts(asked: Sequence[Asked]) -> list[Text]:
    """Texts of one prompt: the first reads it."""
    first = Text(asked[0])
    return [first, *(Text(each, leader=first) for each in asked[1:])]
