"""What every engine of benchmarks/decode.py has in common: a process that answers lines of JSON.

A request has rows of one length as `texts`, `ids` of tokens and their strings (`tokens`), and how
many tokens each row gets (`new`). The answer has the seconds of the clock and of the processor (all
threads of the process) that it took, how many tokens were written, and the megabytes of memory that
is not mapped from files.
"""

import argparse
import json
import os
import re
import sys
import time
from collections.abc import Callable
from pathlib import Path


def arguments() -> argparse.Namespace:
    """Of the command line; what limits threads by the environment is set, so call it first."""
    parser = argparse.ArgumentParser()
    parser.add_argument("folder", help="what the engine loads")
    parser.add_argument("--precision", default="float32")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--beams", type=int, default=1, help="1 = greedy")
    parser.add_argument("--warm-up", action="store_true", help="replay an export's requests first")
    args = parser.parse_args()
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    for name in ("OMP_NUM_THREADS", "TF_NUM_INTRAOP_THREADS", "TF_NUM_INTEROP_THREADS"):
        os.environ[name] = str(args.threads)
    return args


def answer_lines(load: Callable[[], Callable[[dict], int]]) -> None:
    """Loads an engine and answers until there are no more lines.

    Args:
        load: Returns a function of a request that writes, and returns how many tokens it wrote to
            all rows together.
    """
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # what a library prints is no answer
    started = time.perf_counter()
    write = load()
    loaded = {"load_s": round(time.perf_counter() - started, 2), "memory_mb": _memory_mb()}
    print(json.dumps(loaded), file=answers, flush=True)
    for line in sys.stdin:
        request = json.loads(line)
        wall, cpu = time.perf_counter(), time.process_time()
        written = write(request)
        wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
        done = {"wall_s": wall, "cpu_s": cpu, "written": written, "memory_mb": _memory_mb()}
        print(json.dumps(done), file=answers, flush=True)


def _memory_mb() -> int:
    status = Path("/proc/self/status").read_text()
    return int(re.search(r"RssAnon:\s+(\d+)", status)[1]) >> 10
