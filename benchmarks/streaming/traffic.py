"""Requests of all lengths, sent to saturation or as they come, and what their clients see."""

import asyncio
import itertools
import json
import re
import time
from collections.abc import Awaitable, Callable, Iterator
from typing import NamedTuple

import numpy as np

from tfllm import contract
from tfllm.serving import AsyncClient

PROMPT, ANSWER = (16, 256), (8, 256)  # tokens, the shortest and the longest


class Request(NamedTuple):
    """A prompt of letters, each a token, and how many tokens to write."""

    prompt: str
    new: int


class Told(NamedTuple):
    """What came when, by the clock of `time.perf_counter`.

    Attributes:
        times: Of the pieces.
        tokens: In all of them.
    """

    times: list[float]
    tokens: int


class Answer(NamedTuple):
    """What came of a request that was sent, or was to be sent, then."""

    asked_at: float
    told: Told


Ask = Callable[[Request], Awaitable[Told]]


def requests(seed: int) -> Iterator[Request]:
    """Lengths are log-uniform: many are short, and a few are long."""
    random = np.random.default_rng(seed)

    def length(shortest: int, longest: int) -> int:
        return round(np.exp(random.uniform(np.log(shortest), np.log(longest))))

    while True:
        letters = random.integers(ord("a"), ord("z") + 1, length(*PROMPT), np.uint8)
        yield Request(letters.tobytes().decode(), length(*ANSWER))


def whole(client: AsyncClient, at_once: int = 10**6) -> Ask:
    """Calls of `generate` of one row each, so many at a time."""
    free = asyncio.Semaphore(at_once)

    async def ask(request: Request) -> Told:
        inputs = {
            "prompt": np.array([request.prompt.encode()], object),
            "max_new_tokens": np.array([request.new], np.int32),
        }
        async with free:
            told = await client.predict(inputs, contract.GENERATE, output_filter=["num_tokens"])
        assert told["num_tokens"][0] == request.new, (told, request)
        return Told([time.perf_counter()], request.new)

    return ask


_EVENT, _DONE = b"data: {", b"data: [DONE]"


class _Events(asyncio.Protocol):
    """One stream of events. What a client does beside looking at the clock is as little as may be,
    as it takes the time from the server."""

    def __init__(self, host: str, body: bytes):
        self.times: list[float] = []
        self.told = bytearray()
        self.ended = asyncio.get_running_loop().create_future()
        self._sent = (
            b"POST /v1/completions HTTP/1.1\r\nHost: %b\r\nConnection: close\r\n"
            b"Content-Type: application/json\r\nContent-Length: %d\r\n\r\n%b"
        ) % (host.encode(), len(body), body)

    def connection_made(self, transport):
        transport.write(self._sent)

    def data_received(self, data: bytes):
        now = time.perf_counter()
        if not self.times and data.startswith(b"HTTP/") and b" 200 " not in data[:16]:
            self._end(RuntimeError(data))
        if b'data: {"error"' in data:
            self._end(RuntimeError(data))
        before = len(self.told)
        self.told += data
        self.times += [now] * self._count(_EVENT, before)
        if self._count(_DONE, before):
            self._end()

    def _count(self, mark: bytes, before: int) -> int:
        """How many end behind what was there before: one may come in two parts."""
        return self.told.count(mark, max(0, before - len(mark) + 1))

    def connection_lost(self, exc):
        self._end(exc or ConnectionError("the stream has no end"))

    def _end(self, error: Exception | None = None):
        if self.ended.done():
            return
        if error:
            self.ended.set_exception(error)
        else:
            self.ended.set_result(None)


def _counted(events: _Events) -> Told:
    """What a stream says of itself, whose text may have ended before it had all its tokens.

    Servers that do not tell their usage are taken to send each token by itself. The event that
    ends a text, or tells the usage, is no piece.
    """
    told = [json.loads(event) for event in re.findall(rb"data: (\{.*\})", events.told)]
    said = [any(choice["text"] for choice in event["choices"]) for event in told]
    times = list(itertools.compress(events.times, said))
    usages = [event["usage"] for event in told if event.get("usage")]
    if not times:
        raise RuntimeError(f"There is no text in the answer: {bytes(events.told)!r}")
    return Told(times, usages[-1]["completion_tokens"] if usages else len(times))


def streams(host: str, port: int, model: str, counted: bool = False) -> Ask:
    """Streams of `/v1/completions`.

    Args:
        host: Of the server.
        port: Of the server.
        model: Its name there.
        counted: Whether a text may end before it has all tokens, so that they are to be counted.
    """
    usage = {"stream_options": {"include_usage": True}} if counted else {}

    async def ask(request: Request) -> Told:
        body = json.dumps(
            {
                "model": model,
                "prompt": request.prompt,
                "max_tokens": request.new,
                "temperature": 0,
                "stream": True,
                **usage,
            }
        ).encode()
        loop = asyncio.get_running_loop()
        transport, events = await loop.create_connection(lambda: _Events(host, body), host, port)
        try:
            await events.ended
        finally:
            transport.close()
        return _counted(events) if counted else Told(events.times, request.new)

    return ask


async def saturated(ask: Ask, clients: int, seconds: float, seed: int) -> float:
    """Tokens per second of so many clients, each of which asks again when it has its answer.

    The clock begins and ends with an answer, so that whole batches are counted; the first third is
    not, as all texts begin at once there.
    """
    answers: list[Answer] = []
    coming = requests(seed)

    async def client():
        for request in coming:
            asked_at = time.perf_counter()
            answers.append(Answer(asked_at, await ask(request)))

    began = time.perf_counter()
    tasks = [asyncio.create_task(client()) for _ in range(clients)]
    done, _ = await asyncio.wait(tasks, timeout=seconds, return_when=asyncio.FIRST_EXCEPTION)
    for task in done:
        task.result()
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
    ends = sorted((told.times[-1], told.tokens) for _, told in answers)
    first = max([end for end, _ in ends if end < began + seconds / 3], default=began)
    later = [(end, tokens) for end, tokens in ends if end > first]
    return sum(tokens for _, tokens in later) / (later[-1][0] - first) if later else 0.0


async def arriving(ask: Ask, per_second: float, seconds: float, seed: int) -> list[Answer]:
    """Answers to requests that come at random times (Poisson), whatever has become of the others.

    Those that came in the first fifth are not told.
    """
    random = np.random.default_rng(seed)
    began = time.perf_counter()

    async def one(at: float, request: Request) -> Answer:
        await asyncio.sleep(began + at - time.perf_counter())
        return Answer(began + at, await ask(request))

    gaps = (random.exponential(1 / per_second) for _ in itertools.count())
    at = itertools.takewhile(lambda at: at < seconds, itertools.accumulate(gaps))
    answers = await asyncio.gather(*map(one, at, requests(seed)))
    return [answer for answer in answers if answer.asked_at > began + seconds / 5]
