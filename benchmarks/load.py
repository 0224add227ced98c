"""Mixed traffic against an export: requests of all sizes, the first time and once more.

    python benchmarks/load.py --shape 6x384 --out decode
    python benchmarks/load.py --shape t5-small --precision float32 --threads 1 2 --grpc --out decode

Random weights, greedy. The requests have 1 to 8 rows, prompts of 8 to 400 tokens and answers of 8
to 128, and come one after the other. A server that has only just replayed the warm-up requests of
its export meets nearly every size for the first time; then the same requests come again, when
whatever is kept per size is there. The ratio of the two says what a new size costs.

Each number of threads is measured in a process of its own with TF_ENABLE_ONEDNN_OPTS=1, the stock
server's default, and with 0.

Prints a JSON line for each: tokens per second of both passes by the clock, their ratio, the same by
processor time, and the megabytes of memory that no file backs before, between and after; on stderr
a table.
"""

import argparse
import json
import sys
from pathlib import Path
from typing import NamedTuple

import numpy as np
from decoding.engine import Engine
from decoding.prompts import Prompts, prompts_for
from decoding.shapes import BYTES, SHAPES, Shape

_COLUMNS = (
    ("threads", "threads"),
    ("onednn_opts", "oneDNN"),
    ("first_tokens_per_second", "first tok/s"),
    ("second_tokens_per_second", "second tok/s"),
    ("ratio", "ratio"),
    ("ratio_of_cpu", "CPU ratio"),
    ("memory", "memory MB"),
)


class Request(NamedTuple):
    """One call: rows of one length, and tokens to write to each."""

    prompts: Prompts
    new: int


def traffic(shape: Shape, requests: int, seed: int) -> list[Request]:
    """Requests of random sizes; the same for the same seed."""
    random = np.random.default_rng(seed)
    made = []
    for _ in range(requests):
        rows, length, new = random.integers((1, 8, 8), (9, 401, 129)).tolist()
        made.append(Request(prompts_for(shape, rows, length, random), new))
    return made


def measure(args, threads: int, onednn_opts: int, requests: list[Request]) -> dict:
    """Both passes in a fresh process."""
    engine = Engine(
        f"tfllm-{args.precision}" + ("-grpc" if args.grpc else ""),
        SHAPES[args.shape],
        args.out / args.shape,
        threads=threads,
        beams=args.beams,
        warm_up=True,
        env={"TF_ENABLE_ONEDNN_OPTS": str(onednn_opts)},
    )
    tokens = sum(len(request.prompts.texts) * request.new for request in requests)
    memory_mb, wall_s, cpu_s = [engine.loaded["memory_mb"]], [], []
    for _ in range(2):
        answers = [engine(request.prompts, request.new) for request in requests]
        wall_s.append(sum(answer["wall_s"] for answer in answers))
        cpu_s.append(sum(answer["cpu_s"] for answer in answers))
        memory_mb.append(answers[-1]["memory_mb"])
    engine.close()
    return {
        "engine": engine.name,
        "shape": args.shape,
        "threads": threads,
        "onednn_opts": onednn_opts,
        "beams": args.beams,
        "requests": len(requests),
        "tokens": tokens,
        "first_tokens_per_second": round(tokens / wall_s[0], 1),
        "second_tokens_per_second": round(tokens / wall_s[1], 1),
        "ratio": round(wall_s[1] / wall_s[0], 3),
        "first_tokens_per_cpu_second": round(tokens / cpu_s[0], 1),
        "second_tokens_per_cpu_second": round(tokens / cpu_s[1], 1),
        "ratio_of_cpu": round(cpu_s[1] / cpu_s[0], 3),
        "memory_mb": memory_mb,
        "load_s": engine.loaded["load_s"],
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--shape", choices=SHAPES, default="gpt2-small")
    parser.add_argument("--precision", choices=BYTES, default="int8")
    parser.add_argument("--grpc", action="store_true", help="through the embedded server")
    parser.add_argument("--beams", type=int, default=1, help="1, or those of the shape's export")
    parser.add_argument("--requests", type=int, default=200)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--threads", nargs="+", type=int, default=[1, 2])
    parser.add_argument("--onednn", nargs="+", type=int, choices=(0, 1), default=[1, 0])
    parser.add_argument("--out", type=Path, required=True, help="a folder for what is made")
    args = parser.parse_args()
    shape = SHAPES[args.shape]
    if args.beams not in (1, shape.beams):
        parser.error(f"exports of {args.shape} are made with {shape.beams} beams; 1 is greedy.")
    (args.out / args.shape).mkdir(parents=True, exist_ok=True)
    requests = traffic(shape, args.requests, args.seed)
    lines = []
    for threads in args.threads:
        for onednn_opts in args.onednn:
            lines.append(measure(args, threads, onednn_opts, requests))
            print(json.dumps(lines[-1]), flush=True)
    print("".join(f"{title:>16}" for _, title in _COLUMNS), file=sys.stderr)
    for line in lines:
        shown = line | {"memory": "/".join(map(str, line["memory_mb"]))}
        print("".join(f"{shown[key]!s:>16}" for key, _ in _COLUMNS), file=sys.stderr)


if __name__ == "__main__":
    main()
