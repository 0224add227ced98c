r"""The gateway beside batches that the server merges, when all are busy and when requests arrive.

    python benchmarks/gateway.py --out gateway

The GPT-2 small shape in int8 with random weights; prompts of 16 to 256 tokens, answers of 8 to 256,
the logarithms of both uniform. They are sent to

- `gateway`: streams of `tfllm gateway` before `tfllm serve` with an export with sessions;
- `static`: calls of `generate` to `tfllm serve --enable_batching`, batches as large as the
  gateway's;
- `single`: calls of `generate`, one at a time;
- `beside`: streams of another server, if there is one: `--beside localhost:8000/gpt2` with the
  model of gateway_gguf.py. This one of llama.cpp merges texts into steps, as the gateway does:

      llama-server --model gateway/gpt2-small.Q8_0.gguf --alias gpt2 --port 8000 --threads 2 \
          --parallel 16 --ctx-size 8192 --flash-attn on --no-cache-prompt --cache-ram 0

  and this one (`pip install llama-cpp-python[server]`) writes one text at a time, the others wait:

      python -m llama_cpp.server --model gateway/gpt2-small.Q8_0.gguf --model_alias gpt2 \
          --port 8000 --n_threads 2 --flash_attn True --interrupt_requests False

First each has more clients than it has room for, in turns, which tells its tokens per second. Then
requests come by a Poisson process at 70 % of what `static` could do, to each but `single`. A server
that cannot do as much has a queue that grows with `--seconds`, and its clients wait for that.
Last, eight streams run through the gateway, and calls of `decode` for eight rows come one after the
other from a client of their own, of as many tokens: what a step takes longer through the gateway is
its overhead. That is little beside what one run differs from the next, so there are many short ones
in pairs, each way first in turns. `--only-overhead` measures nothing else.

Prints one JSON line: tokens per second of each, medians of the rounds; of the arriving requests
milliseconds to the first token and between pieces (of a text, at its client; one of the gateway has
the tokens of a call of `decode`, one of llama.cpp has one), median and 95th percentile; the step of
`decode` at eight rows, the median overhead of the pairs and its quartiles, and the processor time
of the gateway for a call.
"""

import argparse
import asyncio
import json
import os
import statistics
import sys
import time
import uuid
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import numpy as np
from streaming import programs, traffic
from streaming.traffic import Answer, Ask, Request

from tfllm import contract
from tfllm.serving import AsyncClient, Client

_ROWS, _PROMPT, _NEW = 8, 64, 192  # of the measurement of the gateway's overhead
_MEAN_NEW = (traffic.ANSWER[1] - traffic.ANSWER[0]) / np.log(traffic.ANSWER[1] / traffic.ANSWER[0])


def say(*what) -> None:
    print(*what, file=sys.stderr, flush=True)


def seen(answers: list[Answer]) -> dict[str, float]:
    """What clients of arriving requests see, in milliseconds."""
    first = [told.times[0] - asked_at for asked_at, told in answers]
    between = [gap for _, told in answers for gap in np.diff(told.times)]
    found = {
        f"{name}_{percent}_ms": round(float(1000 * np.percentile(values, percent)), 1)
        for name, values in (("first_token", first), ("between", between))
        for percent in (50, 95)
        if len(values)
    }
    return {**found, "answers": len(answers)}


class EightTexts:
    """Eight texts, through a gateway and without it.

    Args:
        ask: Streams of the gateway.
        client: Of its server.
    """

    def __init__(self, ask: Ask, client: Client):
        self._ask = ask
        self._client = client
        self._requests = traffic.requests(0)

    def _prompts(self) -> list[str]:
        return [next(self._requests).prompt.ljust(_PROMPT, "a")[:_PROMPT] for _ in range(_ROWS)]

    async def through(self) -> tuple[float, int]:
        """Seconds of a step, and tokens in a piece."""
        told = await asyncio.gather(*(self._ask(Request(p, _NEW)) for p in self._prompts()))
        texts = [one.times for one in told]
        began = max(times[0] for times in texts)
        ended = min(times[-1] for times in texts)
        # The same steps of each text, though they do not begin together.
        whole = [[at for at in times if began <= at <= ended] for times in texts]
        at_once = round(_NEW / statistics.median(map(len, texts)))
        steps = at_once * (statistics.median(map(len, whole)) - 1)
        spans = statistics.median(times[-1] - times[0] for times in whole)
        return spans / steps, at_once

    def without(self, at_once: int) -> float:
        """Seconds of a step."""
        slots = {"lease": np.array([uuid.uuid4().hex.encode() for _ in range(_ROWS)], object)}
        prompts = np.array([prompt.encode() for prompt in self._prompts()], object)
        told = self._client.predict(
            {"prompt": prompts, "max_new_tokens": np.full(_ROWS, _NEW, np.int32), **slots},
            contract.PREFILL,
        )
        assert not any(told["error"]), told["error"]
        slots["slot"] = told["slot"]
        position = np.zeros(_ROWS, np.int32)
        most = np.full(_ROWS, at_once, np.int32)
        times = []
        while (position < _NEW).any():
            told = self._client.predict(
                {**slots, "position": position, "max_tokens": most},
                contract.DECODE,
                output_filter=["text", "finish_reason", "position", "num_tokens", "token_ids"],
            )
            position = told["position"]
            times.append(time.perf_counter())
        self._client.predict(slots, contract.RELEASE)
        return (times[-1] - times[0]) / (at_once * (len(times) - 1))


async def rates(args, asks: dict[str, Ask], compared: list[str]) -> dict[str, float]:
    """Tokens per second of each while it is busy: of those compared the median of all rounds."""

    async def saturated(name: str, seconds: float, seed: int) -> float:
        rate = await traffic.saturated(asks[name], args.clients, seconds, seed)
        if name == "beside":
            # It may be busy with what its clients no longer wait for, as long as this one waits.
            await asks[name](Request("a" * traffic.PROMPT[0], traffic.ANSWER[0]))
        return rate

    say("warming up: shapes that are new are slow")
    for name in compared:
        await saturated(name, args.seconds / 2, 1000)

    found: dict[str, list[float]] = {name: [] for name in asks}
    for round_number in range(args.rounds):
        for name in asks if round_number == 0 else compared:
            found[name].append(await saturated(name, args.seconds, round_number))
            say(name, "saturated:", round(found[name][-1], 1), "tokens per second")
    medians = {name: statistics.median(each) for name, each in found.items()}
    if not all(medians.values()):
        raise SystemExit(f"Some had no time to answer: raise --seconds. {medians}")
    return medians


async def overhead(pairs: int, running: dict[str, programs.Program]) -> dict:
    """What the gateway adds to a step of `decode` of eight texts."""
    ask = traffic.streams("127.0.0.1", running["gateway"].port, programs.MODEL)
    with Client(running["server"].address, programs.MODEL, timeout_s=600) as client:
        eight = EightTexts(ask, client)
        _, at_once = await eight.through()  # these are to warm up
        eight.without(at_once)
        through, without, cpu_s, calls = [], [], 0.0, 0.0
        for number in range(pairs):
            if number % 2:
                without.append(eight.without(at_once))
            before = running["gateway"].cpu_s
            step_s, at_once = await eight.through()
            through.append(step_s)
            cpu_s += running["gateway"].cpu_s - before
            calls += _NEW / at_once
            if not number % 2:
                without.append(eight.without(at_once))
            say("step through the gateway and without:", through[-1], without[-1], at_once)
    ratios = [a / b - 1 for a, b in zip(through, without, strict=True)]
    return {
        "step_ms": round(1000 * statistics.median(without), 2),
        "gateway_step_ms": round(1000 * statistics.median(through), 2),
        "tokens_of_a_call": at_once,
        "overhead": round(statistics.median(ratios), 3),
        "overhead_quartiles": np.percentile(ratios, [25, 75]).round(3).tolist(),
        "gateway_cpu_ms_of_a_call": round(1000 * cpu_s / calls, 2),
    }


async def measure(args, running: dict[str, programs.Program]) -> dict:
    server = running["server"]
    static = AsyncClient(running["static"].address, programs.MODEL, timeout_s=600)
    single = AsyncClient(server.address, programs.MODEL, timeout_s=600)
    asks = {
        "gateway": traffic.streams("127.0.0.1", running["gateway"].port, programs.MODEL),
        "static": traffic.whole(static),
        "single": traffic.whole(single, at_once=1),
    }
    if args.beside:
        address, _, model = args.beside.partition("/")
        host, _, port = address.rpartition(":")
        asks["beside"] = traffic.streams(host, int(port), model, counted=True)
    compared = [name for name in asks if name != "single"]
    medians = await rates(args, asks, compared)
    line: dict = {f"{name}_tokens_per_second": round(rate, 1) for name, rate in medians.items()}
    line["gateway_to_static"] = round(medians["gateway"] / medians["static"], 2)

    per_second = 0.7 * medians["static"] / _MEAN_NEW
    arrived: dict[str, list[Answer]] = {name: [] for name in compared}
    for round_number in range(args.rounds):
        for name, answers in arrived.items():
            # Prompts that are new to a server that keeps those of before.
            seed = 2000 + round_number
            told = await traffic.arriving(asks[name], per_second, args.seconds, seed)
            say(name, "at 70 %:", seen(told))
            answers += told
    line["per_second"] = round(per_second, 2)
    line |= {f"{name}_at_70": seen(answers) for name, answers in arrived.items()}

    line |= await overhead(args.pairs, running)
    at_70 = line["gateway_at_70"]
    line["first_token_95_to_static"] = round(
        at_70["first_token_95_ms"] / line["static_at_70"]["first_token_95_ms"], 3
    )
    line["between_95_in_steps"] = round(at_70["between_95_ms"] / line["step_ms"], 2)
    await static.close()
    await single.close()
    return line


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, required=True, help="a folder for what is made")
    parser.add_argument("--shape", choices=("gpt2-small", "6x384"), default="gpt2-small")
    parser.add_argument("--sessions", type=int, default=16, help="and rows of a static batch")
    parser.add_argument("--clients", type=int, default=32, help="of each at saturation")
    parser.add_argument("--seconds", type=float, default=40, help="of each measurement")
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--pairs", type=int, default=15, help="of runs that tell the overhead")
    parser.add_argument("--only-overhead", action="store_true", help="without the comparison")
    parser.add_argument("--batch-threads", type=int, default=1, help="static batches at a time")
    parser.add_argument(
        "--beside", metavar="HOST:PORT/MODEL", help="another server with OpenAI's interface"
    )
    args = parser.parse_args()
    base = programs.export(args.out, args.shape, args.sessions)
    batching = (
        f"max_batch_size {{ value: {args.sessions} }} batch_timeout_micros {{ value: 10000 }} "
        f"num_batch_threads {{ value: {args.batch_threads} }} "
        "max_enqueued_batches { value: 1000 }"
    )
    running: dict[str, programs.Program] = {}
    try:
        running["server"] = programs.server(base, args.out / "server.log")
        running["gateway"] = programs.gateway(running["server"], args.out / "gateway.log")
        if not args.only_overhead:
            running["static"] = programs.server(base, args.out / "static.log", batching)
        for program in running.values():
            program.wait()
        found = overhead(args.pairs, running) if args.only_overhead else measure(args, running)
        line = asyncio.run(found)
    finally:
        for program in reversed(list(running.values())):
            program.close()
    arguments = {name: str(value) for name, value in vars(args).items() if value is not None}
    print(json.dumps({**line, **arguments}))


if __name__ == "__main__":
    main()
