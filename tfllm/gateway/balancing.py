"""Which server gets a text, of several that have the same model."""

from __future__ import annotations

import asyncio
import contextlib
from collections import OrderedDict
from collections.abc import AsyncIterator, Sequence

from tfllm.chat import ChatTemplate
from tfllm.gateway.backend import Backend
from tfllm.gateway.scheduler import Scheduler
from tfllm.gateway.texts import Refused, Text

_SHORTEST_PREFIX = 64  # characters: what is shared by less is read again as fast
_MOST_PREFIXES = 8192
_CALLS_AT_ONCE = 64  # at one server, of those that need no slot


class Replicas:
    """The servers of one model.

    A text goes to the server that has read the longest beginning of it, unless that has much more
    to do than another; else to the one with the least to do.

    Args:
        name: Of the model.
        schedulers: One for each server.
    """

    def __init__(self, name: str, schedulers: Sequence[Scheduler]):
        self.name = name
        self.schedulers = schedulers
        self._seen: OrderedDict[int, Scheduler] = OrderedDict()
        self._num_asking = dict.fromkeys(schedulers, 0)
        self._calls = {each: asyncio.Semaphore(_CALLS_AT_ONCE) for each in schedulers}
        for scheduler in schedulers:
            scheduler.hand_over = self._hand_over

    @property
    def is_up(self) -> bool:
        return any(scheduler.is_up for scheduler in self.schedulers)

    def any(self) -> Scheduler:
        """A server that answers, the one with the least to do.

        Raises:
            Refused: there is none.
        """
        up = [scheduler for scheduler in self.schedulers if scheduler.is_up]
        if not up:
            raise Refused(
                503, f"No server of {self.name} answers: try again later.", retry_after_s=2
            )
        return min(up, key=lambda scheduler: scheduler.load + self._num_asking[scheduler])

    @contextlib.asynccontextmanager
    async def asking(self) -> AsyncIterator[Backend]:
        """A server for one request that needs no slot, as embeddings do; they wait in line.

        Raises:
            Refused: no server answers, or too many requests wait.
        """
        scheduler = self.any()
        num_waiting = self._num_asking[scheduler] - _CALLS_AT_ONCE
        if num_waiting >= scheduler.max_waiting:
            raise Refused(
                429,
                f"{num_waiting} requests are waiting already, which is the most: ask again later.",
                code="overloaded",
                retry_after_s=1,
            )
        self._num_asking[scheduler] += 1
        try:
            async with self._calls[scheduler]:
                with scheduler.backend.asked() as backend:
                    yield backend
        finally:
            self._num_asking[scheduler] -= 1

    @property
    def chat_template(self) -> ChatTemplate | None:
        return self.any().backend.chat_template

    @property
    def can_chat(self) -> bool | None:
        """Whether conversations can be rendered; None while no server answers."""
        return self.chat_template is not None if self.is_up else None

    def add(self, texts: list[Text]) -> None:
        """Has texts of one prompt written.

        Raises:
            Refused: no server answers, or too many texts wait.
        """
        scheduler = self._chosen(texts[0].asked.prompt)
        scheduler.add(texts)
        for prefix in _prefixes(texts[0].asked.prompt):
            self._seen[prefix] = scheduler
            self._seen.move_to_end(prefix)
        while len(self._seen) > _MOST_PREFIXES:
            self._seen.popitem(last=False)

    def _chosen(self, prompt: str) -> Scheduler:
        idlest = self.any()
        for prefix in reversed(_prefixes(prompt)):
            scheduler = self._seen.get(prefix)
            if scheduler is not None and scheduler.is_up:
                room = max(1, scheduler.backend.num_slots // 2)
                return scheduler if scheduler.load <= idlest.load + room else idlest
        return idlest

    def _hand_over(self, failing: Scheduler, texts: list[Text]) -> bool:
        up = [each for each in self.schedulers if each.is_up and each is not failing]
        for text in texts if up else ():
            min(up, key=lambda scheduler: scheduler.load).take_over([text])
        return bool(up)


def _prefixes(prompt: str) -> list[int]:
    """Hashes of beginnings of a text, each twice as long as the one before."""
    lengths = []
    length = _SHORTEST_PREFIX
    while length <= len(prompt):
        lengths.append(length)
        length *= 2
    return [hash(prompt[:length]) for length in lengths]
