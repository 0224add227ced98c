"""Speed of classifying a batch of texts of mixed lengths: exports of tfllm beside other engines.

    python benchmarks/encode.py --out encode
    python benchmarks/encode.py --out encode --peers-python peers/bin/python --threads 2

All engines read the same random BERT and classify the same texts. Each is a process of its own,
limited to `--threads`; they take turns, so that what else the machine does meets all of them. tfllm
reads strings, tokenizes them and sorts them by length itself; the others get token ids, padded to
the longest row, and once more ("-grouped") in groups of rows of like length. ONNX Runtime has what
`torch.onnx.export` traces of the model of transformers, and for int8 what `quantize_dynamic` makes
of that. The peers run with an interpreter that has onnxruntime, onnx, transformers and torch
(`--peers-python`).

Prints a JSON line per engine (medians: tokens per second of the processor's time and of the clock,
padding not counted; megabytes of memory that no file backs; how far its probabilities are from
those of float32), and a table on stderr.
"""

import argparse
import json
import statistics
import subprocess
import sys
from pathlib import Path

import numpy as np
from encoding.checkpoint import CLS, FIRST_WORD, SEP, SHAPES, write_checkpoint

_HERE = Path(__file__).parent / "encoding"
# Worker, precision, whether it gets groups, whether it runs with the peers' interpreter.
ENGINES = {
    "tfllm-float32": ("tfllm", "float32", False, False),
    "tfllm-bfloat16": ("tfllm", "bfloat16", False, False),
    "tfllm-int8": ("tfllm", "int8", False, False),
    "onnxruntime-float32": ("onnxruntime", "float32", False, True),
    "onnxruntime-float32-grouped": ("onnxruntime", "float32", True, True),
    "onnxruntime-int8": ("onnxruntime", "int8", False, True),
    "onnxruntime-int8-grouped": ("onnxruntime", "int8", True, True),
    "transformers-float32": ("transformers", "float32", False, True),
    "transformers-float32-grouped": ("transformers", "float32", True, True),
}


class Engine:
    """A worker process."""

    def __init__(self, name: str, folder: Path, reads: Path, python: str, threads: int):
        worker, precision, grouped, _ = ENGINES[name]
        command = [python, str(_HERE / f"{worker}_worker.py"), str(reads)]
        command += ["--precision", precision, "--threads", str(threads)]
        self.name, self._log = name, folder / f"{name}.log"
        self._process = subprocess.Popen(
            [*command, *(["--grouped"] if grouped else [])],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=open(self._log, "w"),  # noqa: SIM115 - the process's own
            text=True,
        )
        self.loaded = self._answer()

    def __call__(self, rows: list[list[int]]) -> dict:
        self._process.stdin.write(json.dumps({"rows": rows}) + "\n")
        self._process.stdin.flush()
        return self._answer()

    def close(self) -> None:
        self._process.stdin.close()
        self._process.wait()

    def _answer(self) -> dict:
        line = self._process.stdout.readline()
        if not line:
            sys.exit(f"{self.name} ended: see {self._log}")
        return json.loads(line)


def exported(folder: Path, precision: str) -> Path:
    """The version folder of the checkpoint's export, made at the first call."""
    base = folder / f"tfllm-{precision}"
    if not (base / "1").exists():
        import tfllm
        from tfllm.export import for_serving

        for_serving(tfllm.from_huggingface(folder), base, precision=precision)
    return base / "1"


def prepare(name: str, folder: Path, peers_python: str) -> Path:
    """The folder that an engine reads, made if it is not there."""
    worker, precision, *_ = ENGINES[name]
    if worker == "tfllm":
        return exported(folder, precision)
    if worker == "onnxruntime" and not (folder / "int8.onnx").exists():
        subprocess.run([peers_python, str(_HERE / "onnx_checkpoint.py"), str(folder)], check=True)
    return folder


def rows_of(batch: int, shortest: int, longest: int, vocabulary_size: int) -> list[list[int]]:
    """Rows of token ids, each of so many tokens with the special ones; the same each time."""
    random = np.random.default_rng(0)
    return [
        [CLS, *random.integers(FIRST_WORD, vocabulary_size, length - 2).tolist(), SEP]
        for length in random.integers(shortest, longest + 1, batch)
    ]


def probabilities(logits) -> np.ndarray:
    e = np.exp(np.array(logits) - np.max(logits, -1, keepdims=True))
    return e / e.sum(-1, keepdims=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--shape", choices=SHAPES, default="bert-base")
    parser.add_argument("--engines", nargs="+", choices=ENGINES, default=list(ENGINES))
    parser.add_argument("--peers-python", help="without it the peers are left out")
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--lengths", nargs=2, type=int, default=[8, 256], help="tokens of a row")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--out", type=Path, required=True, help="a folder for what is made")
    args = parser.parse_args()

    folder = args.out / args.shape
    if not (folder / "model.safetensors").exists():
        write_checkpoint(args.shape, folder)
    names = [name for name in args.engines if args.peers_python or not ENGINES[name][-1]]
    reads = {name: prepare(name, folder, args.peers_python) for name in names}
    engines = [
        Engine(
            name, folder, reads[name], args.peers_python if ENGINES[name][-1] else sys.executable,
            args.threads,
        )
        for name in names
    ]  # fmt: skip
    rows = rows_of(args.batch, *args.lengths, SHAPES[args.shape]["vocab_size"])
    tokens = sum(map(len, rows))
    found = {engine.name: [] for engine in engines}
    for _ in range(args.rounds + 1):
        for engine in engines:
            found[engine.name].append(engine(rows))
    exact = next((name for name in names if "float32" in name), names[0])
    expected = probabilities(found[exact][-1]["logits"])
    for engine in engines:
        engine.close()
        first, *others = found[engine.name]

        def rate(key, runs):
            return round(tokens / statistics.median(run[key] for run in runs), 1)

        distance = np.abs(probabilities(others[-1]["logits"]) - expected).max()
        line = {
            "engine": engine.name,
            "shape": args.shape,
            "threads": args.threads,
            "batch": args.batch,
            "tokens": tokens,
            "tokens_per_cpu_second": rate("cpu_s", others),
            "tokens_per_second": rate("wall_s", others),
            "first_tokens_per_second": rate("wall_s", [first]),
            "largest_distance": round(float(distance), 5),
            "memory_mb": others[-1]["memory_mb"],
            "load_s": engine.loaded["load_s"],
        }
        print(json.dumps(line), flush=True)
        print(
            f"{engine.name:30}{line['tokens_per_cpu_second']:10.1f} tokens/CPU s"
            f"{line['tokens_per_second']:10.1f} tokens/s{line['memory_mb']:8} MB",
            file=sys.stderr,
        )


if __name__ == "__main__":
    main()
