"""The versions that one server is asked for: the one that is meant, and those whose texts end.

New texts, and those that wait, go to the version that is meant. When that becomes another one, the
texts in slots of the version before are written to their end there, in turns with the new ones.
"""

from __future__ import annotations

import logging

from tfllm.gateway.backend import MAY_PASS, Backend
from tfllm.gateway.endpoint import Endpoint
from tfllm.gateway.session_steps import SessionSteps
from tfllm.gateway.texts import Refused, Text
from tfllm.gateway.waiting import Elsewhere, Waiting
from tfllm.gateway.whole_steps import WholeSteps
from tfllm.serving import Code, ServingError

log = logging.getLogger(__name__)

_UNUSED_PAUSE_S = 1.0  # between two looks whether a version is still asked for embeddings

Steps = SessionSteps | WholeSteps


class Versions:
    """Of one model on one server; none is open at first.

    Args:
        endpoint: Of the server.
        waiting: The texts that have no slot yet.
    """

    def __init__(self, endpoint: Endpoint, waiting: Waiting):
        self._endpoint = endpoint
        self._waiting = waiting
        self._backend: Backend | None = None
        self._meant: Steps | None = None
        self._ending: list[Steps] = []

    @property
    def backend(self) -> Backend:
        """What is meant, as was seen last; there is none before the first step that was done."""
        assert self._backend is not None
        return self._backend

    @property
    def num_slots(self) -> int:
        """Of the version that is meant."""
        return self._backend.num_slots if self._backend else 0

    @property
    def num_free(self) -> int:
        """How many of these have no text of ours."""
        num_texts = self._meant.num_texts if self._meant else 0
        return max(0, (self.num_slots or 1) - num_texts)

    @property
    def num_texts(self) -> int:
        """Texts that run."""
        return sum(steps.num_texts for steps in self._all)

    @property
    def _all(self) -> list[Steps]:
        return [*self._ending, *([self._meant] if self._meant else [])]

    async def look(self) -> bool:
        """Turns to another version if that is meant now, beside the calls for texts.

        Returns:
            Whether it is so.

        Raises:
            ServingError: as the server says, or UNAVAILABLE.
            UserError: the version has a chat template that is none.
        """
        before = self._meant
        if before is None or await self._endpoint.version() == before.backend.version:
            return False
        found = await self._endpoint.open()
        if self._meant is not before:  # it was lost meanwhile, and `step` looks for another
            await found.close()
            return False
        self.leave()
        self._begin(found)
        return True

    async def step(self) -> float | None:
        """One round of each version; the seconds to rest, 0 = until something comes, None = not.

        Raises:
            ServingError: of a call to the server, of which nothing is known, or of the version
                that is meant.
        """
        for steps in list(self._ending):
            await self._step(steps)
            if not steps.has_work and not steps.backend.num_asking:
                self._ending.remove(steps)
                await steps.backend.close()
        steps = self._meant or self._begin(await self._endpoint.open())
        pause_s = await self._step(steps)
        if steps is not self._meant or any(each.has_work for each in self._ending):
            return None
        if steps.has_work:
            return pause_s or None
        return _UNUSED_PAUSE_S if self._ending else 0.0

    def leave(self) -> None:
        """No text goes to the version that was meant; the next step looks for another."""
        if self._meant is not None:
            self._meant.waiting = Elsewhere(self._waiting)
            self._ending.append(self._meant)
            self._meant = None

    def take_all(self) -> list[Text]:
        """The texts that run, to go on elsewhere."""
        return [text for steps in self._all for text in steps.take_all()]

    async def release(self) -> None:
        """Ends the texts that run, and gives their slots back."""
        for steps in self._all:
            await steps.close()

    async def close(self) -> None:
        """Ends the connections."""
        for steps in self._all:
            await steps.backend.close()
        await self._endpoint.close()

    def _begin(self, backend: Backend) -> Steps:
        self._backend = backend
        kind = SessionSteps if backend.num_slots else WholeSteps
        self._meant = kind(backend, self._waiting)
        log.info(
            "%s has version %d of %s, %d slots",
            backend.address, backend.version, backend.model, backend.num_slots,
        )  # fmt: skip
        return self._meant

    async def _step(self, steps: Steps) -> float:
        try:
            return await steps.step()
        except ServingError as error:
            if error.code in MAY_PASS:
                raise
            self._give_up(steps, error)
            if steps is not self._meant:
                return 0.0
            self.leave()
            raise

    def _give_up(self, steps: Steps, error: ServingError) -> None:
        """The texts of a version that was unloaded begin again; those of one that fails end."""
        texts = steps.take_all()
        if error.code == Code.NOT_FOUND:
            self._waiting.put_back(texts)
            return
        log.error("%s: %s", self._endpoint.address, error)
        for text in texts:
            text.refuse(Refused(502, f"The model server failed: {error.message}"))
