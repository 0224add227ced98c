"""How fast the memory of this machine is read: what decoding at batch 1 is bounded by.

    python benchmarks/bandwidth.py --threads 1 2

Each thread reads 512 MB of its own, as a scalar product of it with itself, all at the same time;
the best of twenty counts. A decoder reads every weight once per step, so `gb_per_second` divided by
the size of the weights is the most steps per second that any engine can do.

Prints a JSON line per number of threads.
"""

import argparse
import json
import os
import time
from concurrent.futures import ThreadPoolExecutor
from threading import Barrier

# One thread of BLAS per thread of ours; read when NumPy is imported.
os.environ["OPENBLAS_NUM_THREADS"] = os.environ["MKL_NUM_THREADS"] = "1"

import numpy as np  # noqa: E402

MEGABYTES = 512
REPEATS = 20


def gb_per_second(threads: int) -> float:
    """Of all threads together, in 10⁹ bytes."""
    arrays = [np.ones(MEGABYTES * 2**18, np.float32) for _ in range(threads)]
    together = Barrier(threads)

    def read(array):
        together.wait()
        started = time.perf_counter()
        np.dot(array, array)
        return started, time.perf_counter()

    best_s = float("inf")
    with ThreadPoolExecutor(threads) as pool:
        for _ in range(REPEATS):
            starts, ends = zip(*pool.map(read, arrays), strict=True)
            best_s = min(best_s, max(ends) - min(starts))
    return sum(array.nbytes for array in arrays) / best_s / 1e9


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--threads", nargs="+", type=int, default=[1])
    args = parser.parse_args()
    for threads in args.threads:
        line = {"threads": threads, "gb_per_second": round(gb_per_second(threads), 1)}
        print(json.dumps(line), flush=True)


if __name__ == "__main__":
    main()
