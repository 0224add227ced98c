"""Tokens per second of many clients at once, with and without batching on the server.

    python benchmarks/decode.py --shape gpt2-small --engines tfllm-int8 --batch 1 --out decode
    python benchmarks/batching.py decode/gpt2-small/tfllm-int8

Each client sends one row at a time to `generate`, with a temperature, a seed and a top_k of its
own, and the next one when it has the answer. The servers are processes of their own; rounds of both
take turns. (The first command is there for the export that it makes.)

Prints one JSON line: tokens per second by the clock of both and their ratio, medians of the rounds,
and the median seconds of a request.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import time
from concurrent import futures

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import numpy as np

from tfllm.serving import Client

_SERVE = """
import sys
from tfllm.serving import Server
from tfllm.serving.batching_parameters import BatchingParameters
batching = eval(sys.argv[2])
with Server({"model": sys.argv[1]}, port=0, num_threads=64, batching=batching) as server:
    server.wait_until_available(600)
    print(server.port, flush=True)
    sys.stdin.read()
"""


class Load:
    """A server and its clients."""

    def __init__(self, args, batching: str):
        self._args = args
        self._server = subprocess.Popen(
            [sys.executable, "-c", _SERVE, args.base_path, batching],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        address = f"127.0.0.1:{self._server.stdout.readline().strip()}"
        self._clients = [Client(address, "model", timeout_s=600) for _ in range(args.clients)]

    def __call__(self) -> tuple[float, float]:
        """Tokens per second, and the median seconds of a request."""
        with futures.ThreadPoolExecutor(len(self._clients)) as threads:
            started = time.perf_counter()
            done = list(threads.map(self._ask, range(len(self._clients))))
            elapsed = time.perf_counter() - started
        tokens = sum(tokens for tokens, _ in done)
        return tokens / elapsed, statistics.median(s for _, seconds in done for s in seconds)

    def _ask(self, number: int) -> tuple[int, list[float]]:
        random = np.random.default_rng(number)
        tokens, seconds = 0, []
        for _ in range(self._args.requests):
            letters = random.integers(ord("a"), ord("z") + 1, self._args.prompt, np.uint8)
            inputs = {
                "prompt": np.array([letters.tobytes()], object),
                "max_new_tokens": np.array([self._args.new], np.int32),
                "temperature": random.uniform(0.1, 1.5, 1).astype(np.float32),
                "top_k": random.integers(1, 100, 1, np.int32),
                "seed": random.integers(1, 1000, 1, np.int64),
            }
            started = time.perf_counter()
            outputs = self._clients[number].predict(inputs, "generate")
            seconds.append(time.perf_counter() - started)
            tokens += int(outputs["num_tokens"][0])
        return tokens, seconds

    def close(self) -> None:
        for client in self._clients:
            client.close()
        self._server.communicate("")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("base_path", help="of an export with a `generate` signature")
    parser.add_argument("--clients", type=int, default=16)
    parser.add_argument("--requests", type=int, default=2, help="of each client in a round")
    parser.add_argument("--prompt", type=int, default=32, help="tokens")
    parser.add_argument("--new", type=int, default=64, help="tokens")
    parser.add_argument("--rounds", type=int, default=3)
    args = parser.parse_args()
    parameters = (
        f"BatchingParameters(max_batch_size={args.clients}, batch_timeout_micros=20_000, "
        "num_batch_threads=1)"
    )
    loads = {"off": Load(args, "None"), "on": Load(args, parameters)}
    measured: dict[str, list[tuple[float, float]]] = {name: [] for name in loads}
    for _ in range(args.rounds):
        for name, load in loads.items():
            measured[name].append(load())
            print(name, measured[name][-1], file=sys.stderr)
    line = {}
    for name, load in loads.items():
        load.close()
        rates, seconds = zip(*measured[name], strict=True)
        line[f"{name}_tokens_per_second"] = round(statistics.median(rates), 1)
        line[f"{name}_request_s"] = round(statistics.median(seconds), 2)
    ratio = round(line["on_tokens_per_second"] / line["off_tokens_per_second"], 2)
    print(json.dumps({"ratio": ratio, **line, "batching": parameters, **vars(args)}))


if __name__ == "__main__":
    main()
