"""Speed of decoding: exports of tfllm in a Session and over gRPC, beside other engines, in one run.

    python benchmarks/decode.py --shape gpt2-small --out decode
    python benchmarks/decode.py --shape marian --out decode --peers-python peers/bin/python
    taskset -c 1 python benchmarks/decode.py --shape lstm --threads 1 --out decode

All engines have the same random weights and write the same number of tokens behind the same
prompts. Each is a process of its own, limited to `--threads`; they take turns, so that what else
the machine does meets all of them. tfllm reads strings and writes strings, the others token ids.
Engines of `--peers-python` need ctranslate2, transformers, torch and sentencepiece there; without
the option they are left out. llama-cpp-python is not among them: PyPI has it as source alone.

Weights, checkpoints and exports are made in `--out` where they are not there yet: after a change of
the code, remove the exports (`tfllm-*`).

Prints JSON lines: how fast memory is read, then one per engine and batch size with the medians of
all calls but the first (tokens per second of the processor's time and of the clock), the seconds of
the first call, megabytes of memory that no file backs, seconds to load, and at batch 1 the share of
what memory allows: bytes of weights per token, times tokens per second, by bytes read per second.
On stderr a table, and how many times as many tokens per second of processor time tfllm writes.
"""

import argparse
import json
import statistics
import subprocess
import sys
from pathlib import Path

import numpy as np
from decoding.engine import ENGINES, Engine
from decoding.prompts import prompts_for
from decoding.shapes import BYTES, SHAPES

_COLUMNS = (
    ("tokens_per_cpu_second", "tok/CPU s"),
    ("tokens_per_second", "tok/s"),
    ("first_call_s", "first s"),
    ("memory_mb", "MB"),
    ("load_s", "load s"),
    ("bandwidth_share", "bandwidth"),
)


def gb_per_second(threads: int) -> float:
    """What bandwidth.py measures, in a process of its own."""
    command = [sys.executable, str(Path(__file__).with_name("bandwidth.py"))]
    done = subprocess.run([*command, "--threads", str(threads)], check=True, capture_output=True)
    print(done.stdout.decode(), end="", flush=True)
    return json.loads(done.stdout)["gb_per_second"]


def chosen_engines(args) -> list[str]:
    """Names of those that can run; what is left out is said on stderr."""
    names = []
    for name in args.engines or ENGINES:
        kind = ENGINES[name]
        if kind.families and SHAPES[args.shape].family not in kind.families:
            continue
        if kind.is_peer and not args.peers_python:
            print(f"{name} is left out: no --peers-python", file=sys.stderr)
        else:
            names.append(name)
    return names


def measure(args, batch: int, bandwidth: float) -> list[dict]:
    """A line per engine, for one batch size."""
    shape, folder = SHAPES[args.shape], args.out / args.shape
    engines = [
        Engine(
            name,
            shape,
            folder,
            python=args.peers_python if ENGINES[name].is_peer else sys.executable,
            threads=args.threads,
            beams=args.beams,
        )
        for name in chosen_engines(args)
    ]
    prompts = prompts_for(shape, batch, args.prompt, np.random.default_rng(batch))
    found: dict[str, list[dict]] = {engine.name: [] for engine in engines}
    for _ in range(args.rounds + 1):
        for engine in engines:
            found[engine.name].append(engine(prompts, args.new))
    lines = []
    for engine in engines:
        engine.close()
        first, *others = found[engine.name]

        def rate(clock, runs=others):
            return round(batch * args.new / statistics.median(run[clock] for run in runs), 1)

        line = {
            "engine": engine.name,
            "shape": args.shape,
            "threads": args.threads,
            "batch": batch,
            "prompt": args.prompt,
            "new": args.new,
            "beams": args.beams,
            "tokens_per_cpu_second": rate("cpu_s"),
            "tokens_per_second": rate("wall_s"),
            "first_call_s": round(first["wall_s"], 2),
            "memory_mb": others[-1]["memory_mb"],
            "load_s": engine.loaded["load_s"],
        }
        if batch == 1:
            size = shape.weights_per_token(args.new) * BYTES[ENGINES[engine.name].precision]
            share = size * line["tokens_per_second"] / bandwidth / 1e9
            line["bandwidth_share"] = round(share, 2)
        print(json.dumps(line), flush=True)
        lines.append(line)
    return lines


def show(lines: list[dict]) -> None:
    """The table of one batch size, for people."""
    head = "".join(f"{title:>11}" for _, title in _COLUMNS)
    table = [f"\nbatch {lines[0]['batch']:<16}{head}"]
    for line in lines:
        table.append(
            f"{line['engine']:22}" + "".join(f"{line.get(key, '')!s:>11}" for key, _ in _COLUMNS)
        )
    ours = [line for line in lines if line["engine"].startswith("tfllm")]
    peers = [line for line in lines if line not in ours]
    if peers:
        names = "".join(f"{line['engine']:>21}" for line in peers)
        table.append(f"{'tokens/CPU s, ratio':22}{names}")
        for line in ours:
            mine = line["tokens_per_cpu_second"]
            ratios = (mine / peer["tokens_per_cpu_second"] for peer in peers)
            table.append(f"{line['engine']:22}" + "".join(f"{ratio:21.2f}" for ratio in ratios))
    print("\n".join(table), file=sys.stderr, flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--shape", choices=SHAPES, default="gpt2-small")
    parser.add_argument("--engines", nargs="+", choices=ENGINES, help="default: all there are")
    parser.add_argument("--peers-python", help="interpreter of the other engines")
    parser.add_argument("--batch", nargs="+", type=int, help="rows of a call; default: the shape's")
    parser.add_argument("--prompt", type=int, default=32, help="tokens of a prompt or source")
    parser.add_argument("--new", type=int, help="tokens that are written; default: the shape's")
    parser.add_argument("--beams", type=int, help="1 = greedy; default: the shape's")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument(
        "--rounds", type=int, default=3, help="calls of each engine after the first"
    )
    parser.add_argument("--out", type=Path, required=True, help="a folder for what is made")
    args = parser.parse_args()
    shape = SHAPES[args.shape]
    args.new, args.beams = args.new or shape.new, args.beams or shape.beams
    if args.beams not in (1, shape.beams):
        parser.error(f"exports of {args.shape} are made with {shape.beams} beams; 1 is greedy.")
    (args.out / args.shape).mkdir(parents=True, exist_ok=True)
    bandwidth = gb_per_second(args.threads)
    for batch in args.batch or shape.batches:
        show(measure(args, batch, bandwidth))


if __name__ == "__main__":
    main()
