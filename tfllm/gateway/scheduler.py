"""One loop for each server: what waits gets its turn, and what fails begins again."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable

from tfllm.errors import UserError
from tfllm.gateway import metrics
from tfllm.gateway.backend import Backend
from tfllm.gateway.endpoint import Endpoint
from tfllm.gateway.texts import Refused, Text
from tfllm.gateway.versions import Versions
from tfllm.gateway.waiting import Waiting
from tfllm.serving import ServingError

log = logging.getLogger(__name__)

_FIRST_PAUSE_S, _LONGEST_PAUSE_S = 0.05, 1.0
_TEXT_S = 2.0  # how long a text may take, to tell clients when to come again
_HAND_OVER_S = 1.0  # of failing, after which other servers take the texts
LOOK_S = 2.0  # between two looks for the version that is meant


class Scheduler:
    """The texts of one server.

    Args:
        endpoint: Of the server.
        max_waiting: Texts that may wait for a slot; more are refused.
        give_up_s: Seconds of failing after which texts are refused.
        look_s: Seconds between two looks for the version that is meant.

    Attributes:
        is_up: Whether calls are answered, or were a moment ago.
        hand_over: Offers texts to other servers; returns whether they take them.
    """

    def __init__(
        self,
        endpoint: Endpoint,
        max_waiting: int = 256,
        give_up_s: float = 30.0,
        look_s: float = LOOK_S,
    ):
        self.is_up = False
        self.hand_over: Callable[[Scheduler, list[Text]], bool] = lambda *_: False
        self._endpoint = endpoint
        self._give_up_s = give_up_s
        self._look_s = look_s
        self._waiting = Waiting(max_waiting)
        self._versions = Versions(endpoint, self._waiting)
        self._wake = asyncio.Event()
        self._failing_since: float | None = None
        self._pause_s = _FIRST_PAUSE_S
        self._tasks: list[asyncio.Task] = []

    @property
    def backend(self) -> Backend:
        """The version that is meant; there is one as soon as the server is up."""
        return self._versions.backend

    @property
    def load(self) -> int:
        """Texts that run or wait."""
        return len(self._waiting) + self._versions.num_texts

    @property
    def max_waiting(self) -> int:
        return self._waiting.most

    def start(self) -> None:
        """Begins to look for the server; belongs to the running event loop from then on."""
        running, following = (asyncio.create_task(each) for each in (self._run(), self._follow()))
        running.add_done_callback(self._ended)
        following.add_done_callback(self._follows_no_more)
        self._tasks = [running, following]

    async def stop(self) -> None:
        """Ends all at once."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self._versions.release()
        for text in self._take_all():
            text.refuse(Refused(503, "the gateway is being stopped."))
        await self._versions.close()

    def _ended(self, task: asyncio.Task) -> None:
        """Says what a defect of ours, or an export that is none of ours, has ended."""
        if task.cancelled() or (error := task.exception()) is None:
            return
        log.error("%s is not asked any more", self._endpoint.address, exc_info=error)
        self.is_up = False
        for other in self._tasks:
            other.cancel()
        for text in self._take_all():
            text.refuse(Refused(500, f"the gateway failed: {type(error).__name__}"))

    def _follows_no_more(self, task: asyncio.Task) -> None:
        """Says what a defect of ours has ended; the version that is asked is asked on."""
        if not task.cancelled() and (error := task.exception()) is not None:
            log.error("%s: no other version is looked for", self._endpoint.address, exc_info=error)

    def add(self, texts: list[Text]) -> None:
        """Takes texts of one request.

        Raises:
            Refused: too many wait.
        """
        retry_after_s = min(60.0, max(1.0, _TEXT_S * self.load / (self._versions.num_slots or 1)))
        self._waiting.add(texts, self._versions.num_free, retry_after_s)
        self._own(texts)

    def take_over(self, texts: list[Text]) -> None:
        """Takes texts that another server had to leave."""
        self._waiting.put_back(texts)
        self._own(texts)

    def _own(self, texts: list[Text]) -> None:
        for text in texts:
            text.on_leave = self._left
            text.server = self._endpoint.address
        self._wake.set()

    def _left(self, text: Text) -> None:
        metrics.LEFT.add(self._endpoint.model)
        self._waiting.drop(text)
        self._wake.set()

    async def _follow(self) -> None:
        """Looks every few seconds which version is meant."""
        told = ""
        while True:
            await asyncio.sleep(self._look_s)
            try:
                if await self._versions.look():
                    self._wake.set()
                told = ""
            except (ServingError, UserError) as error:
                if self.is_up and str(error) != told:
                    told = str(error)
                    name, version = self._endpoint.address, self.backend.version
                    log.warning("%s: version %d goes on: %s", name, version, told)

    async def _run(self) -> None:
        while True:
            try:
                pause_s = await self._versions.step()
            except ServingError as error:
                pause_s = self._recover(error)
            else:
                self._be_up()
            self._show()
            if pause_s is not None:
                # Those who wait for the pause to end are not woken by a text that comes.
                await self._rest(pause_s)

    async def _rest(self, pause_s: float) -> None:
        if pause_s and not self.is_up:
            await asyncio.sleep(pause_s)
            return
        self._wake.clear()
        try:
            async with asyncio.timeout(pause_s or None):
                await self._wake.wait()
        except TimeoutError:
            pass

    def _be_up(self) -> None:
        self.is_up = True
        self._failing_since, self._pause_s = None, _FIRST_PAUSE_S

    def _recover(self, error: ServingError) -> float:
        """What to do after a call failed; the seconds to wait before the next one."""
        now = time.monotonic()
        if self._failing_since is None:
            log.warning("%s: %s", self._endpoint.address, error)
            self._failing_since = now
        failing_s = now - self._failing_since
        if failing_s >= _HAND_OVER_S:
            self.is_up = False
            self._give_away(self._take_all(), failing_s, error)
            self._versions.leave()
        pause_s, self._pause_s = self._pause_s, min(2 * self._pause_s, _LONGEST_PAUSE_S)
        return pause_s

    def _give_away(self, texts: list[Text], failing_s: float, error: ServingError) -> None:
        if not texts or self.hand_over(self, texts):
            return
        if failing_s < self._give_up_s:
            self._waiting.put_back(texts)
            return
        why = f"no model server answers: {error.message}"
        for text in texts:
            text.refuse(Refused(503, why, retry_after_s=5))

    def _take_all(self) -> list[Text]:
        texts = [*self._versions.take_all(), *self._waiting.take_all()]
        return [text for text in texts if not (text.is_gone or text.is_over)]

    def _show(self) -> None:
        labels = self._endpoint.model, self._endpoint.address
        metrics.WAITING.set(*labels, value=len(self._waiting))
        metrics.RUNNING.set(*labels, value=self._versions.num_texts)
        metrics.SLOTS.set(*labels, value=self._versions.num_slots)
        metrics.IS_UP.set(*labels, value=self.is_up)
