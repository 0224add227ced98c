"""One loop for each server: what waits gets its turn, and what fails begins again."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable

from tfllm.gateway import metrics
from tfllm.gateway.backend import MAY_PASS, Backend
from tfllm.gateway.session_steps import SessionSteps
from tfllm.gateway.texts import Refused, Text
from tfllm.gateway.waiting import Waiting
from tfllm.gateway.whole_steps import WholeSteps
from tfllm.serving import Code, ServingError

log = logging.getLogger(__name__)

_FIRST_PAUSE_S, _LONGEST_PAUSE_S = 0.05, 1.0
_TEXT_S = 2.0  # how long a text may take, to tell clients when to come again
_HAND_OVER_S = 1.0  # of failing, after which other servers take the texts


class Scheduler:
    """The texts of one server.

    Args:
        backend: Of the server.
        max_waiting: Texts that may wait for a slot; more are refused.
        give_up_s: Seconds of failing after which texts are refused.

    Attributes:
        backend: As given.
        is_up: Whether the last call was answered.
        hand_over: Offers texts to other servers; returns whether they take them.
    """

    def __init__(self, backend: Backend, max_waiting: int = 256, give_up_s: float = 30.0):
        self.backend = backend
        self.is_up = False
        self.hand_over: Callable[[Scheduler, list[Text]], bool] = lambda *_: False
        self._give_up_s = give_up_s
        self._waiting = Waiting(max_waiting)
        self._steps: SessionSteps | WholeSteps | None = None
        self._wake = asyncio.Event()
        self._failing_since: float | None = None
        self._pause_s = _FIRST_PAUSE_S
        self._task: asyncio.Task | None = None

    @property
    def load(self) -> int:
        """Texts that run or wait."""
        return len(self._waiting) + (self._steps.num_texts if self._steps else 0)

    @property
    def max_waiting(self) -> int:
        return self._waiting.most

    @property
    def has_sessions(self) -> bool:
        return self.backend.num_slots > 0

    def start(self) -> None:
        """Begins to look for the server; belongs to the running event loop from then on."""
        self._task = asyncio.create_task(self._run())
        self._task.add_done_callback(self._ended)

    async def stop(self) -> None:
        """Ends all at once."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)
        if self._steps is not None:
            await self._steps.close()
        for text in self._take_all():
            text.refuse(Refused(503, "the gateway is being stopped."))
        await self.backend.close()

    def _ended(self, task: asyncio.Task) -> None:
        """Says what a defect of ours, or an export that is none of ours, has ended."""
        if task.cancelled() or (error := task.exception()) is None:
            return
        log.error("%s is not asked any more", self.backend.address, exc_info=error)
        self.is_up = False
        for text in self._take_all():
            text.refuse(Refused(500, f"the gateway failed: {type(error).__name__}"))

    def add(self, texts: list[Text]) -> None:
        """Takes texts of one request.

        Raises:
            Refused: too many wait.
        """
        num_slots = self.backend.num_slots or 1
        num_free = max(0, num_slots - (self._steps.num_texts if self._steps else 0))
        retry_after_s = min(60.0, max(1.0, _TEXT_S * self.load / num_slots))
        self._waiting.add(texts, num_free, retry_after_s)
        self._own(texts)

    def take_over(self, texts: list[Text]) -> None:
        """Takes texts that another server had to leave."""
        self._waiting.put_back(texts)
        self._own(texts)

    def _own(self, texts: list[Text]) -> None:
        for text in texts:
            text.on_leave = self._left
            text.server = self.backend.address
        self._wake.set()

    def _left(self, text: Text) -> None:
        metrics.LEFT.add(self.backend.model)
        self._waiting.drop(text)
        self._wake.set()

    async def _run(self) -> None:
        while True:
            try:
                steps = self._steps or await self._open()
                pause_s = await steps.step()
            except ServingError as error:
                pause_s = await self._recover(error)
            else:
                self._be_up()
            self._show()
            if pause_s or (self.is_up and self._steps and not self._steps.has_work):
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

    async def _open(self) -> SessionSteps | WholeSteps:
        await self.backend.open()
        backend = self.backend
        kind = SessionSteps if backend.num_slots else WholeSteps
        self._steps = kind(backend, self._waiting)
        log.info(
            "%s has version %d of %s, %d slots",
            backend.address, backend.version, backend.model, backend.num_slots,
        )  # fmt: skip
        return self._steps

    def _be_up(self) -> None:
        self.is_up = True
        self._failing_since, self._pause_s = None, _FIRST_PAUSE_S

    async def _recover(self, error: ServingError) -> float:
        """What to do after a call failed; the seconds to wait before the next one."""
        now = time.monotonic()
        if self._failing_since is None:
            log.warning("%s: %s", self.backend.address, error)
            self._failing_since = now
        if error.code not in MAY_PASS and error.code != Code.NOT_FOUND:
            log.error("%s: %s", self.backend.address, error)
            for text in self._steps.take_all() if self._steps else ():
                text.refuse(Refused(502, f"The model server failed: {error.message}"))
        if self._steps is not None and error.code not in MAY_PASS:
            # The version is not there any more, or not as it was.
            self._waiting.put_back(self._steps.take_all())
            self._steps = None
        failing_s = now - self._failing_since
        if failing_s >= _HAND_OVER_S or self._steps is None:
            self.is_up = False
        if failing_s >= _HAND_OVER_S:
            self._give_away(self._take_all(), failing_s, error)
            self._steps = None
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
        texts = [*(self._steps.take_all() if self._steps else ()), *self._waiting.take_all()]
        return [text for text in texts if not (text.is_gone or text.is_over)]

    def _show(self) -> None:
        labels = self.backend.model, self.backend.address
        metrics.WAITING.set(*labels, value=len(self._waiting))
        metrics.RUNNING.set(*labels, value=self._steps.num_texts if self._steps else 0)
        metrics.SLOTS.set(*labels, value=self.backend.num_slots)
        metrics.IS_UP.set(*labels, value=self.is_up)
