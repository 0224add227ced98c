"""What `tfllm plan` says of a recipe on this CPU, and what its steps take: one device and two.

    python benchmarks/plan.py gpt_10m --data data/book --set precision=float32

Trains some steps in a process of its own each: on one device, on two logical CPUs
(MirroredStrategy), and in two processes over 127.0.0.1 (MultiWorkerMirroredStrategy). Prints one
JSON line: of each what was planned and measured, and `planned / measured` of a step, of the memory
and of the sum of the gradients.

Seconds are those of one core: CPU time, of both processes together, so that other work on the
machine does not count. A plan's seconds of computing are on all cores at once, those of two
processes that send to each other on one. `wall_s` is what the clock says; it means something on a
machine that is idle. `bytes` is the memory that is the processes' own, without the files that are
mapped into them; `bytes_of_half` is how much of it half of the batch adds, as a run on half of it
tells. With `batch_tokens` a step is the mean one.
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
import tensorflow as tf
from fitting.two_workers import clusters

from tfllm.data import Records
from tfllm.trainers import fit, load_recipe
from tfllm.trainers.devices import device_named
from tfllm.trainers.plan import plan
from tfllm.trainers.strategy import CLUSTER, LOGICAL_CPUS

# By the strategy: the device of the plan, its replicas, and the environment of each process.
WAYS = {
    "one": ("cpu", 1, lambda: [{}]),
    "mirrored": ("cpu", 2, lambda: [{LOGICAL_CPUS: "2"}]),
    "multiworker": ("cpu_workers", 2, lambda: [{CLUSTER: one} for one in clusters()]),
}
CORES = len(os.sched_getaffinity(0))
SUMS = 20


def clocks():
    """CPU seconds of this process, and those of the wall."""
    return time.process_time(), time.perf_counter()


def apart(begin, end):
    return [b - a for a, b in zip(begin, end, strict=True)]


class Times(keras.callbacks.Callback):
    """The clocks at the end of each step, and what the sum of the gradients takes."""

    def __init__(self):
        super().__init__()
        self.ends = []

    def on_train_batch_end(self, *_, **__):
        self.ends.append(clocks())

    def on_train_end(self, *_):
        self.sum_s = sum_of_gradients(self.model)


def sum_of_gradients(model):
    """CPU and wall seconds of one, beside those of what it sums up."""
    strategy = model.distribute_strategy
    if strategy.num_replicas_in_sync == 1:
        return [0.0, 0.0]

    def took(is_summed):
        @tf.function
        def run(number):
            def replica():
                parts = [tf.fill(w.shape, number) for w in model.trainable_variables]
                if is_summed:
                    context = tf.distribute.get_replica_context()
                    parts = context.all_reduce(tf.distribute.ReduceOp.SUM, parts)
                return tf.add_n([tf.reduce_max(part) for part in parts])

            return strategy.run(replica)

        run(tf.constant(1.0))
        times = []
        for _ in range(SUMS):
            begin = clocks()
            run(tf.constant(1.0))
            times.append(apart(begin, clocks()))
        return [statistics.median(values) for values in zip(*times, strict=True)]

    return apart(took(False), took(True))


def own_bytes():
    """Resident and of no file, such as TensorFlow's libraries, which all processes share."""
    lines = Path("/proc/self/status").read_text().splitlines()
    (kilobytes,) = [line.split()[1] for line in lines if line.startswith("RssAnon:")]
    return 1024 * int(kilobytes)


def measure(recipe, strategy, steps, warm_up):
    """Of this process."""
    steps += warm_up + 1  # the last step ends with a checkpoint
    recipe = dataclasses.replace(
        recipe, steps=steps, validation_steps=1, sample_prompts=(), validate_every=steps,
        checkpoint_every=steps,
    )  # fmt: skip
    most, done, times = 0, threading.Event(), Times()

    def watch():
        nonlocal most
        while not done.wait(0.02) and not hasattr(times, "sum_s"):
            most = max(most, own_bytes())

    watcher = threading.Thread(target=watch, daemon=True)
    watcher.start()
    with tempfile.TemporaryDirectory() as folder:
        fit(
            recipe, run=f"{folder}/run", tensorboard=f"{folder}/logs", strategy=strategy,
            callbacks=[times],
        )  # fmt: skip
    done.set()
    watcher.join()
    ends = times.ends[warm_up - 1 : -1]
    each = [apart(a, b) for a, b in zip(ends, ends[1:], strict=False)]
    middle = statistics.mean if recipe.batch_tokens else statistics.median
    cpu_s, wall_s = (middle(values) for values in zip(*each, strict=True))
    return {
        "cpu_s": cpu_s,
        "wall_s": wall_s,
        "bytes": most,
        "sum_cpu_s": times.sum_s[0],
        "sum_wall_s": times.sum_s[1],
    }


def of_all(found):
    """Of the processes of a run: they take turns on the CPU, and wait for each other."""
    walls = ("wall_s", "sum_wall_s")
    return {n: (max if n in walls else sum)(one[n] for one in found) for n in found[0]}


def planned(recipe, device, replicas):
    found = plan(recipe, Records(recipe.data), device_named(device), replicas)
    sending = found.seconds["communication"]
    on_all = CORES * (found.step_s - sending)
    sum_cpu_s = sending if device == "cpu_workers" else CORES * sending
    return {
        "cpu_s": on_all + sum_cpu_s,
        "wall_s": found.step_s,
        "bytes": found.total_bytes,
        "sum_cpu_s": sum_cpu_s,
        "sum_wall_s": sending,
    }


def of_way(way, changed=()):
    """What is planned and what is measured.

    Args:
        way: One of `WAYS`.
        changed: Arguments behind those of this process.
    """
    (on_paper,) = in_processes("planned", way, [{}], changed)
    return on_paper, of_all(in_processes("measured", way, WAYS[way][2](), changed))


def in_processes(only, way, environments, changed):
    """What processes of this script print."""
    command = [sys.executable, *sys.argv, "--only", only, "--way", way, *changed]
    started = [
        subprocess.Popen(command, env=os.environ | one, stdout=subprocess.PIPE, text=True)
        for one in environments
    ]
    said = [process.communicate()[0] for process in started]
    if any(process.returncode for process in started):
        raise SystemExit(f"{only}, {way}: a process failed.")
    return [json.loads(lines.splitlines()[-1]) for lines in said]


def rounded(numbers):
    return {
        name: value if value > 1e6 else float(f"{value:.3g}") for name, value in numbers.items()
    }


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("recipe")
    parser.add_argument("--data", required=True)
    parser.add_argument("--set", nargs="+", action="extend", default=[])
    parser.add_argument("--steps", type=int, default=8)
    parser.add_argument("--warm-up", type=int, default=3, help="steps that do not count")
    parser.add_argument("--ways", nargs="+", choices=WAYS, default=list(WAYS))
    parser.add_argument("--only", choices=["planned", "measured"], help=argparse.SUPPRESS)
    parser.add_argument("--way", help=argparse.SUPPRESS)
    args = parser.parse_args()
    recipe = load_recipe(args.recipe).with_settings([*args.set, f"data={args.data}"])
    if args.only == "planned":
        print(json.dumps(planned(recipe, *WAYS[args.way][:2])))
    elif args.only == "measured":
        print(json.dumps(measure(recipe, args.way, args.steps, args.warm_up)))
    else:
        name = "batch_tokens" if recipe.batch_tokens else "global_batch"
        half = ["--set", f"{name}={getattr(recipe, name) // 2}"]
        line = {"recipe": args.recipe, "set": args.set, "cores": CORES}
        for way in args.ways:
            on_paper, found = of_way(way)
            for numbers, of_half in zip((on_paper, found), of_way(way, half), strict=True):
                numbers["bytes_of_half"] = numbers["bytes"] - of_half["bytes"]
            ratios = {name: on_paper[name] / found[name] for name in found if on_paper[name]}
            line[way] = {
                "planned": rounded(on_paper),
                "measured": rounded(found),
                "ratio": rounded(ratios),
            }
        print(json.dumps(line))


if __name__ == "__main__":
    main()
