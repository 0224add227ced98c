"""A text piece by piece from an export with sessions, without a gateway: its client reads the
prompt, goes on by a few tokens a call and gives the slot back."""

from __future__ import annotations

import contextlib
import time
import uuid
from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping
from typing import Any, NamedTuple

import numpy as np

from tfllm import contract, rows
from tfllm.errors import UserError
from tfllm.serving import columns
from tfllm.serving.status import Code, ServingError

_READ_AT_ONCE = 512  # tokens of the prompt: what others wait for this text
_NO_SLOT = "no slot is free"
_FIRST_PAUSE_S, _LONGEST_PAUSE_S = 0.02, 0.5
_MOST_LOST = 10  # times in a row that the server does not know the text any more
_LEAVING_S = 5.0

_OUTPUTS = ("text", "finish_reason", "num_tokens", "token_ids")
_ALTERNATIVES = ("alternative_bytes", "alternative_logprobs")


class Piece(NamedTuple):
    """What is new of a text that is being written.

    Attributes:
        text: Whole characters; may be empty.
        token_ids: Of the new tokens, list[int].
        logprobs: Of each of them under the model itself (before temperature, penalties and
            filters), natural logarithm, list[float]; empty unless they were asked for.
        finish_reason: "" = it goes on, else `contract.STOP` or `contract.LENGTH`.
        alternatives: Of each of the new tokens the likeliest in its place, pairs of bytes and
            logprob, the best first; empty unless they were asked for.
    """

    text: str
    token_ids: list[int]
    logprobs: list[float]
    finish_reason: str
    alternatives: list[list[tuple[bytes, float]]]


class Wanted(NamedTuple):
    """How a text is streamed.

    Attributes:
        logprobs: Whether they are told.
        num_alternatives: Told of each token, which implies logprobs.
        tokens_per_piece: New tokens of one call at most, 1 to `contract.MAX_DECODED_TOKENS`.
        timeout_s: Seconds for the whole text; None sets no limit beside that of each call.
    """

    logprobs: bool = False
    num_alternatives: int = 0
    tokens_per_piece: int = 1
    timeout_s: float | None = None

    def check(self) -> None:
        """Refuses what no server can do.

        Raises:
            UserError: a number that is too small or too large.
        """
        for name, least, most in (
            ("num_alternatives", 0, contract.MAX_ALTERNATIVES),
            ("tokens_per_piece", 1, contract.MAX_DECODED_TOKENS),
        ):
            value = getattr(self, name)
            is_whole = isinstance(value, int) and not isinstance(value, bool)
            if not is_whole or not least <= value <= most:
                raise UserError(
                    f"{name} must be a whole number from {least} to {most}, got {value!r}."
                )


class SessionStream:
    """One text in a slot of the server.

    Args:
        predict: Calls a signature: inputs, its name, the outputs and the seconds for it.
        pause: Waits so many seconds.
        prompt: What the model reads.
        settings: Columns of one row of all of `contract.SAMPLING`.
        wanted: How it is streamed.
    """

    def __init__(
        self,
        predict: Callable[..., Awaitable[Mapping[str, np.ndarray]]],
        pause: Callable[[float], Awaitable[None]],
        prompt: str,
        settings: Mapping[str, list],
        wanted: Wanted,
    ):
        self._predict = predict
        self._pause = pause
        self._inputs = {
            "prompt": [prompt],
            **settings,
            "num_alternatives": [wanted.num_alternatives],
        }
        self._inputs |= {"bias_token_ids": [[contract.PADDING]], "bias": [[0.0]]}
        self._wanted = wanted
        self._outputs: tuple[str, ...] = _OUTPUTS
        if wanted.num_alternatives:
            self._outputs = (*_OUTPUTS, "logprobs", *_ALTERNATIVES)
        elif wanted.logprobs:
            self._outputs = (*_OUTPUTS, "logprobs")
        self._end = None if wanted.timeout_s is None else time.monotonic() + wanted.timeout_s
        self._token_ids: list[int] = []
        self._lease, self._slot = "", -1

    async def pieces(self) -> AsyncGenerator[Piece, None]:
        """What is new, until the text ends; the slot is given back when the iterator is closed.

        Raises:
            ServingError: as the calls; INVALID_ARGUMENT for what the model cannot read,
                DEADLINE_EXCEEDED after `timeout_s`, RESOURCE_EXHAUSTED where no slot gets free in
                that time, ABORTED if the server forgets again and again what it reads.
        """
        num_lost = 0
        try:
            while True:
                if self._slot < 0:
                    await self._read()
                piece = await self._decode()
                if piece.finish_reason.startswith(contract.ERROR_PREFIX):
                    # Another version or a server that was started anew: it reads what is there.
                    self._lease, self._slot = "", -1
                    num_lost += 1
                    if num_lost > _MOST_LOST:
                        raise ServingError(Code.ABORTED, piece.finish_reason)
                    continue
                num_lost = 0
                self._token_ids += piece.token_ids
                yield piece
                if piece.finish_reason:
                    return
        finally:
            with contextlib.suppress(ServingError):  # then the slot is free after a time
                await self._leave()

    async def _read(self) -> None:
        """Has the text read, in a slot that is waited for."""
        self._lease = uuid.uuid4().hex
        pause_s = _FIRST_PAUSE_S
        while True:
            told = await self._prefill(_READ_AT_ONCE)
            if told["error"] == _NO_SLOT:
                if self._end is not None and time.monotonic() + pause_s > self._end:
                    message = f"{_NO_SLOT}, for {self._wanted.timeout_s:g} s."
                    raise ServingError(Code.RESOURCE_EXHAUSTED, message)
                await self._pause(pause_s)
                pause_s = min(2 * pause_s, _LONGEST_PAUSE_S)
            elif told["error"]:
                self._lease = ""
                message = f"The model cannot read this: {told['error']}."
                raise ServingError(Code.INVALID_ARGUMENT, message)
            else:
                self._slot = told["slot"]
                if told["is_ready"]:
                    return

    async def _prefill(self, num_tokens: int) -> dict[str, Any]:
        inputs = self._inputs | {
            "lease": [self._lease],
            "generated": [self._token_ids or [contract.PADDING]],
            "max_prefill_tokens": [num_tokens],
        }
        return await self._call(contract.PREFILL, inputs, ("slot", "is_ready", "error"))

    async def _decode(self) -> Piece:
        inputs: dict[str, list] = {
            "slot": [self._slot],
            "lease": [self._lease],
            "position": [len(self._token_ids)],
            "max_tokens": [self._wanted.tokens_per_piece],
        }
        told = await self._call(contract.DECODE, inputs, self._outputs)
        new = slice(told["num_tokens"])
        best = []
        if self._wanted.num_alternatives:
            raws, logprobs = (told[name][new] for name in _ALTERNATIVES)
            best = [list(zip(*each, strict=True)) for each in zip(raws, logprobs, strict=True)]
        return Piece(
            rows.plain(told["text"]),
            told["token_ids"][new],
            told["logprobs"][new] if "logprobs" in told else [],
            rows.plain(told["finish_reason"]),
            [each[: self._wanted.num_alternatives] for each in best],
        )

    async def _leave(self) -> None:
        if not self._lease:
            return
        self._end = None
        if self._slot < 0:  # it went while it was read: the same call tells where
            self._slot = (await self._prefill(1))["slot"]
        inputs: dict[str, list] = {"slot": [self._slot], "lease": [self._lease]}
        await self._call(contract.RELEASE, inputs, ("error",), _LEAVING_S)

    async def _call(
        self,
        signature: str,
        inputs: Mapping[str, list],
        wanted: tuple[str, ...],
        timeout_s: float | None = None,
    ) -> dict[str, Any]:
        """The outputs of the one row; `error` as text."""
        if self._end is not None:
            timeout_s = self._end - time.monotonic()
            if timeout_s <= 0:
                message = f"the text was not ended within {self._wanted.timeout_s:g} s."
                raise ServingError(Code.DEADLINE_EXCEEDED, message)
        told = await self._predict(columns.arrays(signature, inputs), signature, wanted, timeout_s)
        found = {name: array.tolist()[0] for name, array in told.items()}
        if "error" in found:
            found["error"] = rows.plain(found["error"])
        return found
