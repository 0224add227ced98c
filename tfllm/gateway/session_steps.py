"""Continuous batching: the texts in the slots of one version, a few tokens at a time.

A step gives back the slots that are free, reads a part of the prompts that are new and has all
other texts go on together. Nothing is on its way to the server beside that one call, so the batch
is decided as late as it can be. What a call wrote is told to its readers while the next one runs:
the server does not wait for that.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Awaitable
from typing import TypeVar

from tfllm import contract
from tfllm.gateway import metrics
from tfllm.gateway.backend import Backend, Decoded, Prefilled
from tfllm.gateway.pace import READ_AT_ONCE, Pace
from tfllm.gateway.texts import Piece, Refused, Text
from tfllm.gateway.waiting import Waiting
from tfllm.serving import ServingError

_NO_SLOT_PAUSE_S = 0.05
_NO_WORK_PAUSE_S = 0.005
_CLOSING_S = 5.0
_MOST_LOST = 10  # a text that is begun again so often without a token will never come

_NO_SLOT = "no slot is free"
_OTHER_TEXT = "the lease has another text"

Answer = TypeVar("Answer")


class SessionSteps:
    """The texts of one version that has sessions.

    Args:
        backend: Open.
        waiting: Where new texts come from, and go that find no slot; may be replaced.
    """

    def __init__(self, backend: Backend, waiting: Waiting):
        self.backend = backend
        self.waiting = waiting
        self._reading: list[Text] = []
        self._running: list[Text] = []
        self._leaving: list[tuple[int, str]] = []
        self._untold: list[tuple[Text, Piece]] = []
        self._full_until = 0.0  # slots are taken by another gateway
        self._pace = Pace()

    @property
    def num_texts(self) -> int:
        """Texts in slots."""
        return len(self._reading) + len(self._running)

    @property
    def has_work(self) -> bool:
        return bool(self._reading or self._running or self._leaving or len(self.waiting))

    async def step(self) -> float:
        """One round; the seconds after which there may be something to do.

        Raises:
            ServingError: of a call, of which nothing is known; the next step repeats it.
        """
        self._let_go()
        if self._leaving:
            await self._call(self.backend.release(self._leaving))
            self._leaving = []
        await self._read()
        self._let_go()
        if self._running:
            await self._decode()
        elif not self._reading:
            pause_s = self._full_until - time.monotonic()
            return max(pause_s, _NO_WORK_PAUSE_S) if len(self.waiting) else 0.0
        return 0.0

    def take_all(self) -> list[Text]:
        """The texts, to go on elsewhere."""
        self._tell()
        self._let_go()
        metrics.BEGUN_AGAIN.add(self.backend.model, count=len(self._running))
        texts = [*self._running, *self._reading]
        for text in texts:
            text.begin_again()
        self._reading, self._running, self._leaving = [], [], []
        return texts

    async def close(self) -> None:
        """Gives all slots back, if the server still answers."""
        self._tell()
        held = [(text.slot, text.lease) for text in [*self._running, *self._reading]]
        slots = [*self._leaving, *((slot, lease) for slot, lease in held if slot is not None)]
        if slots:
            with contextlib.suppress(ServingError, TimeoutError):
                async with asyncio.timeout(_CLOSING_S):
                    await self.backend.release(slots)

    async def _call(self, call: Awaitable[Answer]) -> Answer:
        """An answer of the server; readers are told what is new as soon as it is asked for."""
        if not self._untold:
            return await call
        telling = asyncio.create_task(self._tell_when_sent())
        try:
            return await call
        finally:
            await telling

    async def _tell_when_sent(self) -> None:
        await asyncio.sleep(0)  # in the turn of the event loop that sends the call
        self._tell()

    def _tell(self) -> None:
        model, now = self.backend.model, time.monotonic()
        for text, piece in self._untold:
            if text.told_at is None:
                metrics.TIME_TO_FIRST_TOKEN.add(model, value=now - text.asked_at)
            else:
                metrics.TIME_BETWEEN_PIECES.add(model, value=now - text.told_at)
            text.give(piece)
        self._untold = []

    def _let_go(self) -> None:
        for texts in (self._reading, self._running):
            for text in [text for text in texts if text.is_gone or text.is_over]:
                texts.remove(text)
                if text.slot is not None:
                    self._leaving.append((text.slot, text.lease))

    def _lose(self, text: Text) -> None:
        metrics.BEGUN_AGAIN.add(self.backend.model)
        text.begin_again()
        text.num_lost += 1
        if text.num_lost > _MOST_LOST:
            text.refuse(Refused(503, "the model server forgets what it reads: try again later."))
        else:
            self._reading.append(text)

    @property
    def _room(self) -> int:
        """Slots that are free."""
        is_known_full = time.monotonic() < self._full_until
        return 0 if is_known_full else self.backend.num_slots - self.num_texts

    @property
    def _is_crowded(self) -> bool:
        return len(self.waiting) > self._room

    async def _read(self) -> None:
        num_coming = len(self._reading) + len(self.waiting)
        budget = self._pace.tokens_to_read(self._is_crowded, num_coming, len(self._running))
        texts, most = self._to_read(budget)
        if not texts:
            return
        before = {text: text.num_read for text in texts}
        started_at = time.monotonic()
        told = await self._call(self.backend.prefill(texts, most))
        elapsed_s = time.monotonic() - started_at
        for text, one in zip(texts, told, strict=True):
            self._take_read(text, one)
        num_read = sum(
            one.num_read - max(before[text], one.num_reused if before[text] == 0 else 0)
            for text, one in zip(texts, told, strict=True)
        )
        self._pace.took_to_read(elapsed_s, num_read)

    def _to_read(self, budget: int) -> tuple[list[Text], list[int]]:
        """Texts to read now, new ones among them, as many as fit into a budget of tokens."""
        texts: list[Text] = []
        longest = 0

        def fits(text: Text) -> bool:
            nonlocal longest
            longest = max(longest, min(text.num_unread, budget))
            rounded = -(-longest // READ_AT_ONCE) * READ_AT_ONCE
            return not texts or (len(texts) + 1) * rounded <= budget

        for text in self._reading:
            if not fits(text):
                break
            texts.append(text)
        else:
            while self._room and (new := self.waiting.first()) and fits(new):
                self.waiting.take(new)
                if refused := self.backend.refusal(new.asked):
                    new.refuse(refused)
                    continue
                if not new.is_ready:
                    waited_s = time.monotonic() - new.asked_at
                    metrics.QUEUE_TIME.add(self.backend.model, value=waited_s)
                self._reading.append(new)
                texts.append(new)
        return texts, [budget] * len(texts)

    def _take_read(self, text: Text, told: Prefilled) -> None:
        if told.error == _NO_SLOT:
            self._reading.remove(text)
            self.waiting.put_back([text])
            self._full_until = time.monotonic() + _NO_SLOT_PAUSE_S
            return
        if told.error == _OTHER_TEXT:
            self._reading.remove(text)
            self._lose(text)
            return
        if told.error:
            self._reading.remove(text)
            text.refuse(Refused(400, f"The model cannot read this: {told.error}."))
            return
        if text.num_prompt_tokens == 0:
            text.num_reused = min(told.num_reused, told.num_prompt_tokens)
            metrics.PROMPT_TOKENS.add(self.backend.model, count=told.num_prompt_tokens)
            metrics.REUSED_TOKENS.add(self.backend.model, count=text.num_reused)
        text.slot = told.slot
        text.num_prompt_tokens = told.num_prompt_tokens
        text.num_read = told.num_read
        if told.is_ready:
            self._reading.remove(text)
            self._running.append(text)
            text.be_ready()

    async def _decode(self) -> None:
        texts = list(self._running)
        num_tokens = self._pace.tokens_to_write(self._is_crowded, len(self._reading), len(texts))
        started_at = time.monotonic()
        told = await self._call(self.backend.decode(texts, num_tokens))
        elapsed_s = time.monotonic() - started_at
        model = self.backend.model
        steps = max(len(one.token_ids) for one in told)
        if steps:
            self._pace.took(elapsed_s, steps)
            metrics.DECODE_STEP.add(model, value=elapsed_s / steps)
        metrics.BATCH_FILL.add(model, value=len(texts))
        metrics.TOKENS.add(model, count=sum(len(one.token_ids) for one in told))
        for text, one in zip(texts, told, strict=True):
            self._take_decoded(text, one)

    def _take_decoded(self, text: Text, told: Decoded) -> None:
        if told.finish_reason.startswith(contract.ERROR_PREFIX):
            # The lease is an earlier one's, or the server was started anew.
            self._running.remove(text)
            if not text.is_gone:
                self._lose(text)
            return
        if text.is_gone:
            return
        text.token_ids += told.token_ids
        text.is_over = bool(told.finish_reason)
        piece = Piece(told.text, len(told.token_ids), told.finish_reason, told.tokens)
        self._untold.append((text, piece))
