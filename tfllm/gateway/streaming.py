"""Texts as they come: several merged into one sequence, and as server-sent events.

Source:
    https://html.spec.whatwg.org/multipage/server-sent-events.html, and OpenAI's reference for the
    message that ends a stream.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Sequence
from typing import Any

from aiohttp import web

from tfllm.gateway.openai_answers import Shape, error_body, shown, usage_of
from tfllm.gateway.texts import Piece, Refused, Text

_HEADERS = {
    "Content-Type": "text/event-stream; charset=utf-8",
    "Cache-Control": "no-cache",
    "X-Accel-Buffering": "no",  # else nginx keeps events until there are many
}


async def merged(texts: Sequence[Text]) -> AsyncIterator[tuple[int, Piece]]:
    """The pieces of all texts with the number of their text, as they come.

    Raises:
        Refused: one of them cannot be ended.
    """
    if len(texts) == 1:
        async for piece in texts[0].pieces():
            yield 0, piece
        return
    told: asyncio.Queue[tuple[int, Piece | Refused | None]] = asyncio.Queue()

    async def read(index: int, text: Text) -> None:
        try:
            async for piece in text.pieces():
                told.put_nowait((index, piece))
        except Refused as refused:
            told.put_nowait((index, refused))
        told.put_nowait((index, None))

    tasks = [asyncio.create_task(read(index, text)) for index, text in enumerate(texts)]
    try:
        open_texts = len(texts)
        while open_texts:
            index, one = await told.get()
            if isinstance(one, Refused):
                raise one
            if one is None:
                open_texts -= 1
            else:
                yield index, one
    finally:
        for task in tasks:
            task.cancel()


async def send_stream(
    request: web.Request, shape: Shape, groups: Sequence[Sequence[Text]], include_usage: bool
) -> web.StreamResponse:
    """Answers with the texts of a request as events, until they end or the client goes.

    What goes wrong from here on is the last event, as the status is sent already.
    """
    texts = [text for group in groups for text in group]
    response = web.StreamResponse(headers=_HEADERS)
    await response.prepare(request)
    more: dict[str, Any] = {"usage": None} if include_usage else {}

    def event(choice: dict[str, Any]) -> bytes:
        return _event(shape.chunk([choice], **more))

    plain = [_around_text(event(shape.piece(index, _PLAIN, 0))) for index in range(len(texts))]
    num_characters, num_written = [0] * len(texts), 0
    try:
        firsts = [first for index in range(len(texts)) if (first := shape.first(index))]
        if firsts:
            await response.write(b"".join(map(event, firsts)))
        async for index, piece in merged(texts):
            num_written += piece.num_tokens
            if piece.finish_reason or piece.tokens:
                await response.write(event(shape.piece(index, piece, num_characters[index])))
                num_characters[index] += sum(len(shown(token.raw)) for token in piece.tokens)
            elif piece.text:
                before, behind = plain[index]
                await response.write(before + _encoded(piece.text) + behind)
        if include_usage:
            usage = usage_of(groups, num_written)
            await response.write(_event(shape.chunk([], usage=usage)))
        await response.write(b"data: [DONE]\n\n")
        await response.write_eof()
    except Refused as refused:
        await response.write(_event(error_body(refused)))
        await response.write_eof()
    return response


_encode = json.JSONEncoder(ensure_ascii=False).encode  # `json.dumps` would make one each time


def _encoded(message: Any) -> bytes:
    return _encode(message).encode()


def _event(message: dict[str, Any]) -> bytes:
    return b"data: " + _encoded(message) + b"\n\n"


# Most pieces are a text and nothing else: the same event each time but for the text.
_PLAIN = Piece("\0", 0, "")


def _around_text(event: bytes) -> tuple[bytes, bytes]:
    """What the event of `_PLAIN` has before and behind the text."""
    before, _, behind = event.rpartition(_encoded(_PLAIN.text))
    return before, behind
