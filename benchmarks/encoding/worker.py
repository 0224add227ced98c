"""What every engine of benchmarks/encode.py has in common: a process that answers lines of JSON.

A request has `rows`, lists of token ids. The answer has the seconds of the clock and of the
processor (all threads) that they took, the logits of each row, and the megabytes of memory that is
not mapped from files.
"""

import argparse
import json
import os
import re
import sys
import time
from collections.abc import Callable
from pathlib import Path

from batches import in_groups, in_one

Rows = list[list[int]]


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser()
    parser.add_argument("folder", help="what the engine loads")
    parser.add_argument("--precision", default="float32")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--grouped", action="store_true", help="rows of like length together")
    return parser.parse_args()


def batch_by_batch(call, grouped: bool) -> Callable[[Rows], list[list[float]]]:
    """A function of rows, for an engine that takes padded batches.

    Args:
        call: Takes a batch as of `batches.padded` and returns float[b, 2].
        grouped: Whether rows of like length make batches of their own.
    """

    def answer(rows):
        logits = [None] * len(rows)
        for numbers, batch in (in_groups if grouped else in_one)(rows):
            for number, row in zip(numbers, call(batch), strict=True):
                logits[number] = row.tolist()
        return logits

    return answer


def answer_lines(load: Callable[[], Callable[[Rows], list[list[float]]]]) -> None:
    """Loads an engine and answers until there are no more lines.

    Args:
        load: Returns a function of rows of token ids, which returns two numbers for each.
    """
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # what a library prints is no answer
    started = time.perf_counter()
    classify = load()
    loaded = {"load_s": round(time.perf_counter() - started, 2), "memory_mb": _memory()}
    print(json.dumps(loaded), file=answers, flush=True)
    for line in sys.stdin:
        rows = json.loads(line)["rows"]
        wall, cpu = time.perf_counter(), time.process_time()
        logits = classify(rows)
        wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
        done = {"wall_s": wall, "cpu_s": cpu, "logits": logits, "memory_mb": _memory()}
        print(json.dumps(done), file=answers, flush=True)


def _memory() -> int:
    status = Path("/proc/self/status").read_text()
    return int(re.search(r"RssAnon:\s+(\d+)", status)[1]) >> 10
