"""Texts of a version without sessions: one call of `generate` each, answered in one piece."""

from __future__ import annotations

import asyncio
import time

from tfllm import contract
from tfllm.gateway import metrics
from tfllm.gateway.backend import MAY_PASS, Backend
from tfllm.gateway.texts import Piece, Refused, Text
from tfllm.gateway.waiting import Waiting
from tfllm.serving import Code, ServingError

_MOST_AT_ONCE = 64  # calls that a server runs or merges into batches


class WholeSteps:
    """The texts of one version that has no sessions.

    Args:
        backend: Open.
        waiting: Where new texts come from, and go that failed; may be replaced.
    """

    def __init__(self, backend: Backend, waiting: Waiting):
        self.backend = backend
        self.waiting = waiting
        self._calls: dict[asyncio.Task, Text] = {}
        self._failed: list[tuple[Text, ServingError]] = []

    @property
    def num_texts(self) -> int:
        return len(self._calls)

    @property
    def has_work(self) -> bool:
        return bool(self._calls or self._failed or len(self.waiting))

    async def step(self) -> float:
        """One round; the seconds after which there may be something to do.

        Raises:
            ServingError: of a call; its text waits again.
        """
        for call, text in self._calls.items():
            if text.is_gone:
                call.cancel()
        while len(self._calls) < _MOST_AT_ONCE and (new := self.waiting.first()):
            self.waiting.take(new)
            metrics.QUEUE_TIME.add(self.backend.model, value=time.monotonic() - new.asked_at)
            self._calls[asyncio.create_task(self._ask(new))] = new
        if self._calls:
            # A while at most: others may have come or gone.
            done, _ = await asyncio.wait(
                self._calls, timeout=0.02, return_when=asyncio.FIRST_COMPLETED
            )
            for call in done:
                del self._calls[call]
        if self._failed:
            texts, (error, *_) = zip(*self._failed, strict=True)
            self._failed = []
            self.waiting.put_back(texts)
            raise error
        return 0.0

    def take_all(self) -> list[Text]:
        """The texts, to go on elsewhere."""
        texts = [text for text in self._calls.values() if not text.is_gone]
        for call in self._calls:
            call.cancel()
        self._calls = {}
        return texts

    async def close(self) -> None:
        """Ends the calls."""
        self.take_all()

    async def _ask(self, text: Text) -> None:
        if text.asked.wants_tokens or text.asked.biases:
            what = "logprobs" if text.asked.wants_tokens else "logit_bias"
            text.refuse(
                Refused(400, f"This model was exported without sessions: no {what}.", param=what)
            )
            return
        if refused := self.backend.refusal(text.asked):
            text.refuse(refused)
            return
        try:
            told, num_prompt_tokens = await self.backend.generate(text.asked)
        except ServingError as error:
            if error.code in MAY_PASS or error.code == Code.NOT_FOUND:
                self._failed.append((text, error))
            else:
                text.refuse(Refused(502, f"The model server failed: {error.message}"))
            return
        if told.finish_reason.startswith(contract.ERROR_PREFIX):
            why = told.finish_reason.removeprefix(contract.ERROR_PREFIX)
            text.refuse(Refused(400, f"The model cannot read this: {why}."))
            return
        model = self.backend.model
        text.num_prompt_tokens = num_prompt_tokens
        metrics.PROMPT_TOKENS.add(model, count=num_prompt_tokens)
        metrics.TOKENS.add(model, count=told.num_tokens)
        metrics.TIME_TO_FIRST_TOKEN.add(model, value=time.monotonic() - text.asked_at)
        text.be_ready()
        text.give(Piece(told.text, told.num_tokens, told.finish_reason))
