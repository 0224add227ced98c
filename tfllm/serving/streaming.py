"""Texts piece by piece, of an export with sessions or of a gateway."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncGenerator, AsyncIterator, Iterator, Mapping, Sequence
from typing import Any

from tfllm import contract, rows
from tfllm.calls import GeneratorCalls, ended
from tfllm.errors import UserError
from tfllm.serving.metadata import Metadata
from tfllm.serving.session_stream import Piece, SessionStream, Wanted
from tfllm.serving.status import Code, ServingError
from tfllm.serving.transport import Transport


class StreamCalls(GeneratorCalls):
    """What a client streams, whether it blocks or waits."""

    model: str
    _transport: Transport
    _is_gateway: bool | None = None  # not known yet

    def stream(
        self,
        prompt: str,
        *,
        stop: str | Sequence[str] = (),
        logprobs: bool = False,
        num_alternatives: int = 0,
        tokens_per_piece: int = 1,
        timeout_s: float | None = None,
        **settings: Any,
    ) -> Any:
        """Continues a prompt, piece by piece; put together they are the text of `generate`.

        The model must be exported with sessions (`tfllm export --sessions N`), or there must be a
        gateway at the address. Who leaves the iterator early closes it, so that others get the
        slot: a `for` that ends with `break` does; of `AsyncClient`, `contextlib.aclosing`. A text
        that the server forgot, as it was started anew or another version took its place, is read
        again and goes on where it was.

        Args:
            prompt: One prompt.
            stop: Up to four strings that end the text.
            logprobs: Whether they are told.
            num_alternatives: How many of the likeliest tokens are told in the place of each, up
                to 5, with the logprobs of all.
            tokens_per_piece: New tokens at most of one call of the server, up to 32; more of them
                save calls. A gateway decides by itself.
            timeout_s: Seconds for the whole text, with those until a slot is free; default no
                limit beside that of each call.
            **settings: As of `generate`, for one text: `max_new_tokens`, `temperature`, ….

        Returns:
            An iterator of `Piece`; of `AsyncClient` an async one. The last one has the
            `finish_reason`.

        Raises:
            UserError: from the first piece: an argument that cannot be sent, or an export without
                sessions.
            ServingError: from each piece, with the server's code; INVALID_ARGUMENT for what the
                model cannot read.
        """
        wanted = Wanted(logprobs, num_alternatives, tokens_per_piece, timeout_s)
        return self._iterated(self._stream(prompt, None, {**settings, "stop": stop}, wanted))

    def stream_chat(
        self,
        messages: Sequence[Mapping[str, Any]],
        *,
        stop: str | Sequence[str] = (),
        **options: Any,
    ) -> Any:
        """Answers a conversation, piece by piece.

        Args:
            messages: Dicts with `role` and `content`, the oldest first.
            stop: Strings that end the answer, beside those of the model's chat template.
            **options: As of `stream`.

        Returns:
            As `stream`.
        """
        wanted = Wanted(**{name: options.pop(name) for name in Wanted._fields if name in options})
        return self._iterated(self._stream(None, messages, {**options, "stop": stop}, wanted))

    def _iterated(self, pieces: AsyncIterator[Piece]) -> Any:
        """What a public call returns, as `_run` of a single answer."""
        return _ended_each(pieces)

    async def _metadata(self, timeout_s: float | None = None) -> Metadata:
        raise NotImplementedError

    async def _predict(self, inputs, signature_name, output_filter=(), timeout_s=None):
        raise NotImplementedError

    async def _stream(
        self,
        prompt: str | None,
        messages: Sequence[Mapping[str, Any]] | None,
        settings: dict[str, Any],
        wanted: Wanted,
    ) -> AsyncGenerator[Piece, None]:
        if not isinstance(prompt, str) and messages is None:
            raise UserError(f"A stream has one prompt, a str: got {type(prompt).__name__}.")
        wanted.check()
        if await self._asks_gateway(wanted.timeout_s):
            pieces = self._of_gateway(prompt, messages, settings, wanted)
        else:
            if messages is not None:
                template = await self._template()
                prompt = template.render(messages)
                stop = [*rows.text_rows(settings["stop"] or [], "stop"), *template.stop]
                settings["stop"] = [*dict.fromkeys(stop)]
            (prompt,) = rows.text_rows([prompt or ""], "prompt")
            columns = await self._columns(contract.GENERATE, 1, settings)
            stream = SessionStream(self._predict, self._transport.pause, prompt, columns, wanted)
            pieces = stream.pieces()
        async with contextlib.aclosing(pieces):
            async for piece in pieces:
                yield piece

    async def _asks_gateway(self, timeout_s: float | None) -> bool:
        """Whether at the address is a gateway, which has no service of TensorFlow's."""
        if self._is_gateway is None:  # asked for once
            try:
                signatures = (await self._metadata(timeout_s)).signatures
            except ServingError as error:
                if error.code != Code.UNIMPLEMENTED:
                    raise
                self._is_gateway = True
                return True
            if contract.DECODE not in signatures:
                raise UserError(
                    f"{self.model} was exported without sessions: export it with --sessions N, or "
                    "use generate()."
                )
            self._is_gateway = False
        return self._is_gateway

    async def _of_gateway(
        self,
        prompt: str | None,
        messages: Sequence[Mapping[str, Any]] | None,
        settings: dict[str, Any],
        wanted: Wanted,
    ) -> AsyncGenerator[Piece, None]:
        from tfllm.serving.gateway_stream import piece_of, request_of  # not over REST

        request = request_of(
            self.model,
            prompt,
            messages,
            rows.setting_columns(contract.GENERATE, 1, settings),
            wants_logprobs=wanted.logprobs or wanted.num_alternatives > 0,
            num_alternatives=wanted.num_alternatives,
        )
        replies = self._transport.generate(request, wanted.timeout_s)
        async with contextlib.aclosing(replies):
            async for reply in replies:
                yield piece_of(reply)


def _ended_each(pieces: Any) -> Iterator[Piece]:
    """The items of an async iterator in which nothing waits."""
    try:
        while True:
            try:
                piece = ended(pieces.__anext__())
            except StopAsyncIteration:
                return
            yield piece
    finally:
        ended(pieces.aclose())
