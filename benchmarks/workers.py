"""Whether two worker processes train as one device does, also after one of them was killed.

    python benchmarks/workers.py --steps 50 --kill-at 25 --out workers

Trains a small GPT in float32 with dropout, microbatches, clipping and moving averages: once on one
device; once in two processes, of which one is killed by SIGKILL in the middle of a step, and which
are both started again when the other has noticed.

Prints a JSON line: `largest_difference` is that of the losses of a step, of all steps that the two
processes made, before the kill and after it; `again_from` the step from which they went on.
"""

import argparse
import json
import os
import signal
import subprocess
import sys
from pathlib import Path

from fitting.small_gpt import write_recipe
from fitting.two_workers import clusters

EVERY = 10  # steps between checkpoints
PATIENCE_S = 600


def train(folder: Path, name: str, strategy: str, kill_at: int) -> None:
    """Trains in this process, with a line on stdout after each step: its number and its loss."""
    import keras

    from tfllm.trainers import fit, load_recipe

    class Tell(keras.callbacks.Callback):
        def on_train_batch_begin(self, *_, **__):
            if kill_at and int(self.model.optimizer.iterations.numpy()) + 1 == kill_at:
                os.kill(os.getpid(), signal.SIGKILL)

        def on_train_batch_end(self, _, logs=None):
            done = int(self.model.optimizer.iterations.numpy())
            print(json.dumps([done, float(logs["loss"])]), flush=True)

    fit(
        load_recipe(str(folder / "recipe.json")),
        run=folder / name / "run",
        tensorboard=folder / name / "logs",
        strategy=strategy,
        callbacks=[Tell()],
    )


def start(folder: Path, name: str, strategy: str, kill_at: int = 0, cluster: str = ""):
    """A process of `train`."""
    return subprocess.Popen(
        [sys.executable, __file__, "--out", str(folder)]
        + ["--train", name, "--strategy", strategy, "--kill-at", str(kill_at)],
        env=os.environ | ({"TF_CONFIG": cluster} if cluster else {}),
        stdout=subprocess.PIPE,
        stderr=(folder / "stderr.txt").open("ab"),
        text=True,
    )


def start_two(folder: Path, name: str, kill_at: int) -> list[subprocess.Popen]:
    """The two workers, of which the second one will be killed."""
    return [
        start(folder, name, "multiworker", kill_at * worker, cluster)
        for worker, cluster in enumerate(clusters())
    ]


def told(process: subprocess.Popen, expected: int, folder: Path) -> list[tuple[int, float]]:
    """(step, loss) of the steps that a process made until its end."""
    said, _ = process.communicate(timeout=PATIENCE_S)
    if process.returncode != expected:
        raise SystemExit(
            f"A process ended with {process.returncode}, not {expected}: {folder}/stderr.txt says "
            "why."
        )
    return [tuple(json.loads(line)) for line in said.splitlines()]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--steps", type=int, default=50)
    parser.add_argument("--kill-at", type=int, default=25)
    parser.add_argument("--out", type=Path, default=Path("workers"))
    parser.add_argument("--train", help=argparse.SUPPRESS)
    parser.add_argument("--strategy", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.train:
        train(args.out, args.train, args.strategy, args.kill_at)
        return
    from tfllm.trainers import Optimizer

    args.out.mkdir(parents=True)  # a run that is there would go on
    write_recipe(
        args.out,
        global_batch=16,
        steps=args.steps,
        optimizer=Optimizer(peak_learning_rate=3e-3, warmup_steps=10),
        validate_every=args.steps,
        checkpoint_every=EVERY,
    )

    expected = dict(told(start(args.out, "one", "one"), 0, args.out))
    killed = start_two(args.out, "two", args.kill_at)
    found = told(killed[1], -signal.SIGKILL, args.out)
    found += told(killed[0], 1, args.out)  # it says that the other one is gone
    again = [told(process, 0, args.out) for process in start_two(args.out, "two", 0)]
    found += [step for steps in again for step in steps]

    line = {
        "steps": args.steps,
        "killed_in_step": args.kill_at,
        "again_from": again[0][0][0] - 1,
        "compared": len(found),
        "largest_difference": max(abs(loss - expected[step]) for step, loss in found),
        "losses": [expected[1], expected[args.steps]],
    }
    print(json.dumps(line), flush=True)


if __name__ == "__main__":
    main()
