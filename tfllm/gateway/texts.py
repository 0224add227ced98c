"""One text that a client waits for, and what it is told while the text is being written."""

from __future__ import annotations

import asyncio
import dataclasses
import time
import uuid
from collections.abc import AsyncIterator, Callable, Mapping
from typing import Any, NamedTuple, Protocol

from tfllm.errors import Failure


class Refused(Failure):
    """A request that is not answered as it was asked.

    Attributes:
        status: Of HTTP: 400 = the request is wrong, 429 = too much at once, 503 = later, perhaps.
        message: What is wrong, for the client.
        param: The field of the request; None if it is not about one.
        code: A word that programs compare.
        retry_after_s: When to come again; None says nothing of that.
    """

    def __init__(
        self,
        status: int,
        message: str,
        *,
        param: str | None = None,
        code: str | None = None,
        retry_after_s: float | None = None,
    ):
        super().__init__(message)
        self.status = status
        self.message = message
        self.param = param
        self.code = code
        self.retry_after_s = retry_after_s


class Token(NamedTuple):
    """One token of a text and how likely it was under the model, natural logarithm.

    Attributes:
        raw: Its bytes, which may be a part of a character.
        logprob: Of the token.
        alternatives: Bytes and logarithm of the likeliest tokens in its place, the best first.
    """

    raw: bytes
    logprob: float
    alternatives: tuple[tuple[bytes, float], ...] = ()


class Piece(NamedTuple):
    """What is new of a text.

    Attributes:
        text: Whole characters; may be empty.
        num_tokens: New tokens.
        finish_reason: "" = it goes on, else `contract.STOP` or `contract.LENGTH`.
        tokens: The new ones, if they were asked for.
    """

    text: str
    num_tokens: int
    finish_reason: str
    tokens: tuple[Token, ...] = ()


@dataclasses.dataclass(frozen=True)
class Asked:
    """What one text shall be.

    Attributes:
        prompt: What the model reads.
        settings: By names of `contract.SAMPLING`; what is left out is as the export has it.
        wants_tokens: Whether the tokens are told.
        num_alternatives: With so many alternatives each, at most `contract.MAX_ALTERNATIVES`.
        biases: Added to the scores of tokens.
        client: Who asks: texts of different clients get slots in turns.
    """

    prompt: str
    settings: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    wants_tokens: bool = False
    num_alternatives: int = 0
    biases: Mapping[int, float] = dataclasses.field(default_factory=dict)
    client: str = ""


class Observer(Protocol):
    """Notes what becomes of a text."""

    def take(self, piece: Piece) -> None:
        """What is new."""


class Text:
    """A text from its request to its end. It belongs to one event loop.

    Args:
        asked: What it shall be.
        leader: Another text with the same prompt, which is read first, so that this one need not
            read it again.

    Attributes:
        token_ids: What was received so far; with them it can go on on any server.
        lease: The word by which the server knows it; another one each time it begins.
        slot: On the server; None as long as it is not known.
        num_read: Tokens that the server has read.
        num_prompt_tokens: Of the prompt; 0 as long as it is not known.
        num_reused: Of these, what another text had read.
        is_ready: Whether the prompt was read whole, once.
        is_gone: Nobody waits for it.
        is_over: It has ended, well or not.
        num_lost: How often it was begun again since it was given something.
        server: Whose it is, "host:port"; "" before it has one.
        follower: Is shown every piece, if what becomes of the text is to be told.
    """

    def __init__(self, asked: Asked, leader: Text | None = None):
        self.asked = asked
        self.leader = leader
        self.token_ids: list[int] = []
        self.num_prompt_tokens = 0
        self.num_reused = 0
        self.num_lost = 0
        self.is_ready = self.is_gone = self.is_over = False
        self.asked_at = time.monotonic()
        self.told_at: float | None = None
        self.on_leave: Callable[[Text], None] | None = None
        self.server = ""
        self.follower: Observer | None = None
        self._told: asyncio.Queue[Piece | Refused] = asyncio.Queue()
        self._has_begun = asyncio.Event()
        self.begin_again()

    def begin_again(self) -> None:
        """Forgets the server; what was received stays."""
        self.lease = uuid.uuid4().hex
        self.slot: int | None = None
        self.num_read = 0

    @property
    def num_unread(self) -> int:
        """Tokens that the server has still to read; a guess while nothing is known."""
        known = self.num_prompt_tokens or len(self.asked.prompt.encode(errors="replace")) // 4 + 1
        return max(1, known + len(self.token_ids) - 1 - self.num_read)

    @property
    def may_begin(self) -> bool:
        leader = self.leader
        return leader is None or leader.is_ready or leader.is_over or leader.is_gone

    def be_ready(self) -> None:
        """The prompt was read."""
        self.is_ready = True
        self._has_begun.set()

    def give(self, piece: Piece) -> None:
        """Tells the reader what is new."""
        self.told_at = time.monotonic()
        self.num_lost = 0
        self.is_over = bool(piece.finish_reason)
        if self.follower is not None:
            self.follower.take(piece)
        self._told.put_nowait(piece)

    def refuse(self, refused: Refused) -> None:
        """Ends it without an answer, or with a part of one."""
        self.is_over = True
        self._told.put_nowait(refused)
        self._has_begun.set()

    def leave(self) -> None:
        """Nobody waits for it any more: its slot is for others."""
        if not (self.is_over or self.is_gone):
            self.is_gone = True
            if self.on_leave is not None:
                self.on_leave(self)

    async def begun(self) -> None:
        """Returns when the prompt is accepted and read.

        Raises:
            Refused: it was not.
        """
        await self._has_begun.wait()
        if self.is_over and not self.is_ready:
            refused = self._told.get_nowait()
            assert isinstance(refused, Refused)
            raise refused

    async def pieces(self) -> AsyncIterator[Piece]:
        """What is new, until the text ends.

        Raises:
            Refused: it cannot be ended.
        """
        while True:
            told = await self._told.get()
            if isinstance(told, Refused):
                raise told
            yield told
            if told.finish_reason:
                return
