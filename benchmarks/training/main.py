"""The command line of train.py and train_lstm.py."""

import argparse
import json
import sys
from pathlib import Path

from training.engines import Engine, Kind, prepare_data, take_turns
from training.worker import SHAPES

_PEAK_FLOPS = 2 * 2048**3


def main(model: str, kinds: dict[str, Kind], doc: str) -> None:
    parser = argparse.ArgumentParser(description=doc.splitlines()[0])
    parser.add_argument("--out", type=Path, required=True, help="a folder for data and logs")
    parser.add_argument("--engines", nargs="+", choices=kinds)
    parser.add_argument("--precision", nargs="+", default=["float32", "bfloat16"])
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--steps", type=int, default=3, help="of each engine in a round")
    parser.add_argument("--peers-python", help="an interpreter with torch and transformers")
    args = parser.parse_args()
    names = [n for n in args.engines or kinds if args.peers_python or not kinds[n].is_peer]
    args.out.mkdir(parents=True, exist_ok=True)
    prepare_data(args.out, model)
    for precision in args.precision:
        engines = {
            name: Engine(
                kinds[name],
                model,
                precision,
                args.threads,
                args.out,
                args.peers_python if kinds[name].is_peer else sys.executable,
            )
            for name in names
        }
        found = take_turns(engines, args.rounds, args.steps)
        for engine in engines.values():
            engine.close()
        line = {"model": model, "precision": precision, "threads": args.threads}
        print(json.dumps(line | summary(model, found)), flush=True)


def summary(model: str, found: dict[str, dict]) -> dict:
    """What the medians come to; see train.py."""
    shape = SHAPES[model]
    tokens = shape["rows"] * shape["length"]
    cpu = {name: run["cpu_s"] for name, run in found.items()}
    peak_s = cpu.pop("peak", None)
    line = {
        "tokens_per_cpu_second": {name: round(tokens / s) for name, s in cpu.items()},
        "tokens_per_second": {name: round(tokens / found[name]["wall_s"]) for name in cpu},
        "cpu_s_per_step": {name: round(s, 3) for name, s in cpu.items()},
        "loss": {name: found[name]["loss"] for name in cpu if name != "floor"},
    }
    ours = next((name for name in ("run", "fit", "step") if name in cpu), None)
    if ours:
        line["ours"] = ours
        line["times"] = {n: round(s / cpu[ours], 3) for n, s in cpu.items() if n != "floor"}
        if "floor" in cpu:
            line["share_of_floor"] = round(cpu["floor"] / cpu[ours], 3)
        if peak_s:
            flops = 6 * weights(model) * tokens
            line["peak_gflops"] = round(_PEAK_FLOPS / peak_s / 1e9)
            line["mfu"] = round(flops / cpu[ours] * peak_s / _PEAK_FLOPS, 3)
        if ours == "run" and "step" in cpu:
            line["loop_costs"] = round(cpu["run"] / cpu["step"] - 1, 3)
    return line


def weights(model: str) -> int:
    """In matrices that each token is multiplied by."""
    shape = SHAPES[model]
    of_layer = 12 if model == "gpt" else 8  # in squares of the width
    return (
        shape["num_layers"] * of_layer * shape["width"] ** 2
        + shape["vocabulary_size"] * shape["width"]
    )
