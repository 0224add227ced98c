"""What `tfllm plan` says of a recipe on this CPU, and what its steps take.

python benchmarks/plan.py gpt_10m --data data/book --set precision=float32

CPU seconds, so that other work on the machine does not count. Memory is what the process grows by
while it trains, with the graph and the runtime's own.
"""

import argparse
import dataclasses
import json
import os
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

import keras

from tfllm.data import Records
from tfllm.trainers import fit, load_recipe
from tfllm.trainers.devices import device_named
from tfllm.trainers.plan import plan

WARM_UP = 3


class Times(keras.callbacks.Callback):
    """The CPU time at the end of each step."""

    def __init__(self):
        super().__init__()
        self.ends = []

    def on_train_batch_end(self, *_, **__):
        self.ends.append(time.process_time())


def resident_bytes():
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE")


def measured(recipe, steps):
    recipe = dataclasses.replace(recipe, steps=steps, validation_steps=1, sample_prompts=())
    before, most, done, times = resident_bytes(), 0, threading.Event(), Times()

    def watch():
        nonlocal most
        while not done.wait(0.02):
            most = max(most, resident_bytes())

    watcher = threading.Thread(target=watch)
    watcher.start()
    with tempfile.TemporaryDirectory() as folder:
        fit(
            recipe, run=f"{folder}/run", tensorboard=f"{folder}/logs", strategy="one",
            callbacks=[times],
        )  # fmt: skip
    done.set()
    watcher.join()
    ends = times.ends[WARM_UP:-1]  # the last step ends with a checkpoint
    each = [end - begin for begin, end in zip(ends, ends[1:], strict=False)]
    return {"step_cpu_s": statistics.median(each), "grown_bytes": most - before}


def planned(recipe):
    found = plan(recipe, Records(recipe.data), device_named("cpu"))
    return {"step_s": found.step_s, "bytes": found.total_bytes, "mfu": found.mfu}


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("recipe")
    parser.add_argument("--data", required=True)
    parser.add_argument("--set", action="append", default=[])
    parser.add_argument("--steps", type=int, default=12)
    parser.add_argument("--only", choices=["planned", "measured"])
    args = parser.parse_args()
    recipe = load_recipe(args.recipe).with_settings([*args.set, f"data={args.data}"])
    if args.only == "planned":
        print(json.dumps({"planned": planned(recipe)}))
    elif args.only == "measured":
        print(json.dumps({"measured": measured(recipe, args.steps)}))
    else:  # each in a process of its own, whose memory the other does not touch
        for only in ("planned", "measured"):
            subprocess.run([sys.executable, *sys.argv, "--only", only], check=True)


if __name__ == "__main__":
    main()
