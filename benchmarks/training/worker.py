"""What every engine of train.py and train_lstm.py has in common: a process that trains on demand.

A line of the input is a number of steps. The answer has the seconds of the clock and of the
processor (all threads of the process) that they took, and the loss of the last one. The first
request compiles.
"""

import argparse
import json
import os
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np

SHAPES = {
    "gpt": {
        "vocabulary_size": 8000,
        "rows": 16,
        "length": 256,
        "num_layers": 6,
        "num_heads": 6,
        "width": 384,
    },
    "lstm": {"vocabulary_size": 8000, "rows": 32, "length": 128, "num_layers": 2, "width": 512},
}


def arguments() -> argparse.Namespace:
    """Of the command line, with the `shape`; sets what limits threads, so call it first."""
    parser = argparse.ArgumentParser()
    parser.add_argument("model", choices=SHAPES)
    parser.add_argument("variant")
    parser.add_argument("--precision", default="float32")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--folder", type=Path, help="with the prepared data")
    args = parser.parse_args()
    args.shape = argparse.Namespace(**SHAPES[args.model])
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    os.environ["KERAS_BACKEND"] = "tensorflow"
    for name in ("OMP_NUM_THREADS", "TF_NUM_INTRAOP_THREADS", "TF_NUM_INTEROP_THREADS"):
        os.environ[name] = str(args.threads)
    return args


def random_batches(shape) -> tuple[np.ndarray, np.ndarray]:
    """64 batches of tokens as frequent as words are, and the ones that follow.

    Returns:
        int32[64, rows, length] twice.
    """
    size = (64, shape.rows, shape.length + 1)
    tokens = np.random.default_rng(0).zipf(1.3, size) % shape.vocabulary_size
    tokens = tokens.astype("int32")
    return tokens[..., :-1], tokens[..., 1:]


class Requests:
    """The lines of the input; what else is printed goes to stderr."""

    def __init__(self):
        self._answers = os.fdopen(os.dup(1), "w")
        os.dup2(2, 1)

    def next(self) -> int:
        """Steps to train; the clocks run from here. 0 when there is nothing more to do."""
        line = sys.stdin.readline()
        self._wall, self._cpu = time.perf_counter(), time.process_time()
        return int(line or 0)

    def done(self, loss) -> None:
        answer = {
            "wall_s": time.perf_counter() - self._wall,
            "cpu_s": time.process_time() - self._cpu,
            "loss": round(float(loss), 4),
        }
        print(json.dumps(answer), file=self._answers, flush=True)


def answer_lines(train: Callable[[int], float]) -> None:
    """Trains until there are no more lines.

    Args:
        train: Makes so many steps and returns the last loss.
    """
    requests = Requests()
    while steps := requests.next():
        requests.done(train(steps))
