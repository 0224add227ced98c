"""A load on a server, and how it bears it."""

from __future__ import annotations

import asyncio
import collections
import dataclasses
import itertools
import random
import time
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from typing import Any

from tfllm import contract, rows
from tfllm.errors import UserError
from tfllm.serving.client import AsyncClient
from tfllm.serving.status import ServingError

# What prompts are made of where none are given.
_WORDS = (
    "the a of to and in that it was his her with as had for but at not be on by this which have "
    "from all they one would there were so when no more very could what been their will who much "
    "house day time people little said good great man way old thought every must after without "
    "think before never long"
)
WORDS = _WORDS.split()
_QUANTILES = {"p50": 0.5, "p95": 0.95, "p99": 0.99}


@dataclasses.dataclass(frozen=True)
class Load:
    """Which requests come, and when.

    Attributes:
        clients: So many ask at a time, each again when it was answered (a closed loop).
        rate: Requests per second that come at random, as of a Poisson process, whether the others
            are answered or not (an open loop); None = a closed loop.
        seconds: For how long requests are sent; the running ones are then waited for.
        requests: How many are sent at most; None = as many as there is time for.
        warm_up: Requests before them, one after another, that are not counted.
        rows: In a request.
        prompt_words: The fewest and the most words of a text, all lengths alike often.
        new_tokens: The fewest and the most that `max_new_tokens` says.
        texts: From which the words of prompts are taken, one of them for each; default is to make
            them up.
        inputs: Sent as they are, for signatures that are none of ours.
        seed: Two loads with the same one ask the same in the same order.

    Raises:
        UserError: a value that none of them can have.
    """

    clients: int = 8
    rate: float | None = None
    seconds: float = 10.0
    requests: int | None = None
    warm_up: int = 1
    rows: int = 1
    prompt_words: tuple[int, int] = (8, 64)
    new_tokens: tuple[int, int] = (16, 64)
    texts: Sequence[str] = ()
    inputs: Mapping[str, Any] | None = None
    seed: int = 0

    def __post_init__(self):
        for name in ("clients", "rate", "seconds", "requests", "rows"):
            value = getattr(self, name)
            if value is not None and not value > 0:
                raise UserError(f"{name} must be above 0, got {value}.")
        for name in ("prompt_words", "new_tokens"):
            fewest, most = getattr(self, name)
            if not 1 <= fewest <= most:
                raise UserError(
                    f"{name} must be from 1 or more to as many or more: {fewest}:{most}"
                )


@dataclasses.dataclass
class Report:
    """What became of a load.

    Attributes:
        seconds: From the first request to the last answer.
        latencies_s: Of each answered request; in an open loop from when it should have been sent.
        rows: That were answered.
        tokens: That the model says it wrote or scored.
        errors: Requests without an answer, by the code.
        row_errors: Rows that the model refused, by its reason.
    """

    seconds: float = 0.0
    latencies_s: list[float] = dataclasses.field(default_factory=list)
    rows: int = 0
    tokens: int = 0
    errors: collections.Counter = dataclasses.field(default_factory=collections.Counter)
    row_errors: collections.Counter = dataclasses.field(default_factory=collections.Counter)

    def latency_ms(self) -> dict[str, float]:
        """Mean, quantiles (the nearest rank) and maximum; {} if nothing was answered."""
        found = sorted(self.latencies_s)
        if not found:
            return {}
        ranks = {name: found[-int(-q * len(found) // 1) - 1] for name, q in _QUANTILES.items()}
        ranks = {"mean": sum(found) / len(found), **ranks, "max": found[-1]}
        return {name: round(1000 * seconds, 3) for name, seconds in ranks.items()}

    def as_json(self) -> dict[str, Any]:
        """Plain values, rates per second of `seconds`."""
        answered = len(self.latencies_s)
        per_s = 1 / self.seconds if self.seconds else 0.0
        return {
            "requests": answered + self.errors.total(),
            "answered": answered,
            "seconds": round(self.seconds, 3),
            "requests_per_s": round(answered * per_s, 3),
            "rows_per_s": round(self.rows * per_s, 3),
            "tokens": self.tokens,
            "tokens_per_s": round(self.tokens * per_s, 3),
            "latency_ms": self.latency_ms(),
            "errors": dict(self.errors),
            "row_errors": dict(self.row_errors),
        }


async def put_load(client: AsyncClient, load: Load, signature: str = contract.GENERATE) -> Report:
    """Sends a load and waits for all of its answers.

    Args:
        client: Best without retries, so that every refusal is seen.
        load: Which requests, and when.
        signature: Of the contract with texts as inputs; any other with `load.inputs`.

    Raises:
        UserError: requests to that signature cannot be made up.
        ServingError: a request of the warm-up was refused.
    """
    ask = _asker(client, load, signature)
    for number in range(load.warm_up):
        await ask(random.Random(f"{load.seed} before {number}"))
    report = Report()
    begin = time.monotonic()

    async def one(number: int, due: float) -> None:
        try:
            answers = await ask(random.Random(f"{load.seed} {number}"))
        except ServingError as error:
            report.errors[error.code.name] += 1
            return
        report.latencies_s.append(time.monotonic() - due)
        _count(report, answers)

    numbers = itertools.count() if load.requests is None else iter(range(load.requests))
    if load.rate is None:
        await _closed_loop(one, numbers, load, begin)
    else:
        await _open_loop(one, numbers, load, begin)
    report.seconds = time.monotonic() - begin
    return report


_One = Callable[[int, float], Awaitable[None]]


async def _closed_loop(one: _One, numbers: Iterator[int], load: Load, begin: float) -> None:
    async def client() -> None:
        for number in numbers:
            now = time.monotonic()
            if now - begin >= load.seconds:
                return
            await one(number, now)

    await asyncio.gather(*(client() for _ in range(load.clients)))


async def _open_loop(one: _One, numbers: Iterator[int], load: Load, begin: float) -> None:
    assert load.rate is not None
    between = random.Random(f"{load.seed} arrivals")
    running = set()
    due = begin
    for number in numbers:
        due += between.expovariate(load.rate)
        if due - begin >= load.seconds:
            break
        await asyncio.sleep(max(0.0, due - time.monotonic()))
        task = asyncio.ensure_future(one(number, due))
        running.add(task)
        task.add_done_callback(running.discard)
    await asyncio.gather(*running)


def _asker(
    client: AsyncClient, load: Load, signature: str
) -> Callable[[random.Random], Awaitable[Any]]:
    """What sends one request, made up by a source of random numbers."""
    inputs = load.inputs
    if inputs is not None:
        return lambda _: client.predict(inputs, signature)
    known = contract.SIGNATURES.get(signature)
    required = [field for field in known.inputs if field.default is None] if known else []
    call = getattr(client, signature, None)
    if call is None or any(field.dtype != "string" for field in required):
        raise UserError(f"{signature} needs --inputs JSON: what it takes cannot be made up.")
    writes = "max_new_tokens" in rows.optional_inputs(signature)

    def ask(chance: random.Random) -> Awaitable[Any]:
        texts = [[_text(load, chance) for _ in range(load.rows)] for _ in required]
        settings = {}
        if writes:
            settings["max_new_tokens"] = [chance.randint(*load.new_tokens) for _ in texts[0]]
        return call(*texts, **settings)

    return ask


def _text(load: Load, chance: random.Random) -> str:
    number = chance.randint(*load.prompt_words)
    if not load.texts:
        return " ".join(chance.choices(WORDS, k=number))
    words = chance.choice(load.texts).split(" ")
    return " ".join(words[:number])


def _count(report: Report, answers: Any) -> None:
    if isinstance(answers, dict):  # of predict
        report.rows += len(next(iter(answers.values()), ()))
        tokens = answers.get("num_tokens")
        report.tokens += 0 if tokens is None else int(tokens.sum())
        return
    report.rows += len(answers)
    for answer in answers:
        if not isinstance(answer, tuple):  # token ids
            report.tokens += len(answer)
            continue
        report.tokens += getattr(answer, "num_tokens", 0)
        if reason := rows.refusal(answer):
            report.row_errors[reason] += 1
