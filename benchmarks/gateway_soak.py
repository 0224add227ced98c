"""A long load on two gateways before one server, of which each is killed while clients come and go.

    python benchmarks/gateway_soak.py
    python benchmarks/gateway_soak.py --model models/gpt --requests 2000 --distinct 500

A tiny GPT of random weights has sessions, or an export with them is given. First `generate` gives
the text of each of 1,000 requests of all settings; then clients ask for them again and again, half
of them as streams, at either gateway: what they get must be that text, to the byte. A part of them
goes away at some moment. In the first half of the load a gateway is killed with -9 and started
again, a new version takes the place of the old one, the server is killed and started again, and
then the other gateway. A client whose gateway has gone asks again.

Prints one JSON line: how the requests ended (`left`: the client went away; `asked_again` and
`refused` come besides), answers that were `wrong` and why, slots that did not come back, and the
resident sets of the three processes after half of the requests and after all.
"""

import argparse
import asyncio
import collections
import contextlib
import json
import os
import random
import re
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path
from pydoc_data import topics

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import aiohttp
import numpy as np

from tfllm import contract
from tfllm.export.versions import publish_export
from tfllm.serving import AsyncClient

MODEL = "soak"
SLOTS = 16
# Seconds after which the slots of a gateway that was killed are free again.
SESSION_TIMEOUT_S = 5
PATIENCE_S = 120  # for one answer


def save_model(base: Path) -> None:
    import keras

    from tfllm.export import for_serving
    from tfllm.models import GPTBackbone, GPTCausalLM, GPTCausalLMPreprocessor
    from tfllm.tokenizers import train_sentencepiece

    keras.utils.set_random_seed(1)
    tokenizer = train_sentencepiece(list(topics.topics.values())[:20], vocabulary_size=500)
    backbone = GPTBackbone(tokenizer.vocabulary_size(), 1, 2, 16, max_sequence_length=160)
    model = GPTCausalLM(backbone, GPTCausalLMPreprocessor(tokenizer, sequence_length=160))
    for_serving(model, base, sessions=SLOTS, session_timeout_s=SESSION_TIMEOUT_S, warm_up=[])


def make_requests(number: int) -> list[dict]:
    """Bodies of /v1/completions with every setting that `generate` has."""
    chance = random.Random(0)
    text = topics.topics["strings"] + topics.topics["class"]
    bodies = []
    for _ in range(number):
        start = chance.randrange(len(text) - 300)
        body = {
            "prompt": text[start : start + int(4 * 50 ** chance.random())],
            "max_tokens": int(48 ** chance.random()),
            "seed": chance.randrange(2**31),
        }
        if chance.random() < 0.7:
            body["temperature"] = round(chance.uniform(0.3, 1.5), 2)
        for name, value in (
            ("top_k", chance.randint(1, 50)),
            ("top_p", round(chance.uniform(0.5, 1.0), 2)),
            ("min_p", round(chance.uniform(0.0, 0.2), 2)),
            ("repetition_penalty", round(chance.uniform(1.0, 1.5), 2)),
            ("stop", [chance.choice("etaoins")]),
        ):
            if chance.random() < 0.2:
                body[name] = value
        bodies.append(body)
    return bodies


def free_port() -> int:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        return taken.getsockname()[1]


class Process:
    """A command of tfllm that can be killed and started again at the same port."""

    def __init__(self, port: int, *arguments: str):
        self.port = port
        self._command = [sys.executable, "-m", "tfllm", *arguments, f"--port={port}"]
        self.start()

    def start(self) -> None:
        self._process = subprocess.Popen(self._command, stderr=subprocess.PIPE, text=True)
        for line in self._process.stderr:
            if "listening on" in line:
                break
        else:
            raise SystemExit(f"{' '.join(self._command)} has ended")
        threading.Thread(target=self._process.stderr.read, daemon=True).start()

    def kill(self) -> None:
        self._process.kill()
        self._process.wait()

    def stop(self) -> int:
        self._process.send_signal(signal.SIGTERM)
        return self._process.wait(120)

    def resident_mb(self) -> float:
        status = Path(f"/proc/{self._process.pid}/status").read_text()
        return round(int(re.search(r"VmRSS:\s+(\d+)", status)[1]) / 1e3, 1)


class Load:
    """What the clients do and find."""

    def __init__(self, bodies: list[dict], expected: list[contract.Generation], ports: list[int]):
        self._asks = list(zip(bodies, expected, strict=True))
        self._ports = ports
        self.ends: collections.Counter[str] = collections.Counter()
        self.wrong: list[str] = []

    @property
    def num_ended(self) -> int:
        return self.ends["answered"] + self.ends["left"]

    async def run(self, clients: int, number: int) -> None:
        """Asks until so many requests have ended, since the beginning."""
        left = iter(range(number - self.num_ended))
        timeout = aiohttp.ClientTimeout(total=PATIENCE_S)
        connector = aiohttp.TCPConnector(limit=0)
        async with aiohttp.ClientSession(timeout=timeout, connector=connector) as session:

            async def ask_on() -> None:
                for _ in left:
                    await self._until_ended(session)

            await asyncio.gather(*(ask_on() for _ in range(clients)))

    async def _until_ended(self, session: aiohttp.ClientSession) -> None:
        body, expected = random.choice(self._asks)
        body = {**body, "model": MODEL, "stream": random.random() < 0.5}
        pieces = random.choice([0, 1, 2, 5]) if random.random() < 0.15 else None
        until = time.monotonic() + PATIENCE_S
        while time.monotonic() < until:
            try:
                end = await self._ask(session, body, expected, pieces)
            except (aiohttp.ClientError, ConnectionError):
                end = "asked_again"  # the gateway was killed, or is not there yet
            self.ends[end] += 1
            if end in ("answered", "left"):
                return
            await asyncio.sleep(random.uniform(0.05, 0.3))
        self.wrong.append(f"no answer in {PATIENCE_S} s")
        self.ends["answered"] += 1

    async def _ask(self, session, body: dict, expected, pieces: int | None) -> str:
        url = f"http://127.0.0.1:{random.choice(self._ports)}/v1/completions"
        if pieces is not None and not body["stream"]:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(0.02 * pieces), session.post(url, json=body) as answer:
                    await answer.read()
            return "left"
        async with session.post(url, json=body) as answer:
            if answer.status in (429, 503):
                return "refused"
            if answer.status != 200:
                self._say_wrong(body, await answer.text(), "")
                return "answered"
            if not body["stream"]:
                told = await answer.json()
                self._check(body, expected, [told], told["usage"]["completion_tokens"])
                return "answered"
            events: list[dict] = []
            async for line in answer.content:
                if line == b"data: [DONE]\n":
                    self._check(body, expected, events)
                    return "answered"
                if line.startswith(b"data: "):
                    events.append(json.loads(line[6:]))
                    if "error" in events[-1]:
                        return "refused"
                    if pieces is not None and len(events) > pieces:
                        answer.close()
                        return "left"
        return "asked_again"  # the stream broke

    def _check(self, body, expected, answers: list[dict], num_tokens: int | None = None) -> None:
        choices = [answer["choices"][0] for answer in answers]
        got = contract.Generation(
            "".join(choice["text"] for choice in choices),
            choices[-1]["finish_reason"],
            expected.num_tokens if num_tokens is None else num_tokens,
            expected.logprob,
        )
        if got != expected:
            self._say_wrong(body, got, expected)

    def _say_wrong(self, body: dict, got, expected) -> None:
        self.wrong.append(f"{body}: {got}, expected {expected}")
        print(self.wrong[-1], file=sys.stderr)


async def slots_taken(port: int) -> int:
    """Slots that no release and no time has given back."""
    async with AsyncClient(f"127.0.0.1:{port}", MODEL) as client:
        told = await client.predict({"slot": np.zeros(1, np.int32)}, contract.SLOTS)
        every = np.arange(told["num_slots"][0], dtype=np.int32)
        told = await client.predict({"slot": every}, contract.SLOTS)
    return int((~told["is_free"]).sum())


async def soak(args, base: Path, started: contextlib.ExitStack) -> dict:
    server = Process(free_port(), "serve", str(base), "--file_system_poll_wait_seconds=0.2")
    started.callback(server.kill)
    endpoint = f"127.0.0.1:{server.port}"
    bodies = make_requests(args.distinct)
    async with AsyncClient(endpoint, MODEL, timeout_s=600) as client:
        await client.wait_until_available(120)
        settings = [
            {"max_new_tokens" if name == "max_tokens" else name: body[name] for name in body}
            for body in bodies
        ]
        expected = [await client.generate(**each) for each in settings]
    ways = [
        Process(free_port(), "gateway", f"{endpoint}/{MODEL}", "--max-waiting=1000")
        for _ in range(2)
    ]
    for way in ways:
        started.callback(way.kill)
    load = Load(bodies, expected, [way.port for way in ways])

    def new_version() -> None:
        publish_export(base / "1", base)

    def again(process: Process):
        def kill_and_start() -> None:
            process.kill()
            process.start()

        return kill_and_start

    events = [again(ways[0]), new_version, again(server), again(ways[1])]
    started_at = time.monotonic()
    for part, event in enumerate(events, 1):
        await asyncio.gather(
            load.run(args.clients, args.requests * part // 10), asyncio.to_thread(event)
        )
    await load.run(args.clients, args.requests // 2)
    early = [process.resident_mb() for process in (server, *ways)]
    await load.run(args.clients, args.requests)
    seconds = time.monotonic() - started_at
    late = [process.resident_mb() for process in (server, *ways)]
    taken = await slots_taken(server.port)
    exit_codes = [process.stop() for process in (*ways, server)]
    return {
        "requests": args.requests,
        "distinct": args.distinct,
        "clients": args.clients,
        "seconds": round(seconds, 1),
        **load.ends,
        "wrong": len(load.wrong),
        "slots_not_back": taken,
        "exit_codes": exit_codes,
        "early_mb": early,
        "late_mb": late,
        "growth_percent": [round(100 * (b / a - 1), 1) for a, b in zip(early, late, strict=True)],
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", help="an export with sessions, or its base path")
    parser.add_argument("--requests", type=int, default=50_000)
    parser.add_argument("--distinct", type=int, default=1000)
    parser.add_argument("--clients", type=int, default=32)
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder, contextlib.ExitStack() as started:
        base = Path(folder) / MODEL
        if args.model:
            publish_export(args.model, base)
        else:
            save_model(base)
        print(json.dumps(asyncio.run(soak(args, base, started))))


if __name__ == "__main__":
    main()
