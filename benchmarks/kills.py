"""Whether a run that is killed a hundred times ends with the weights of one that was not.

    python benchmarks/kills.py --kills 100 --steps 200 --out kills

Trains a small GPT with dropout, microbatches, moving averages and bfloat16 twice: once undisturbed,
once with a SIGKILL at a random moment of each process but the last: while it trains, while it
writes a checkpoint, while TensorFlow starts. A folder that has a part of it goes on.

Prints a JSON line: `equal` says whether every tensor of the last checkpoint (weights, moments,
averages, step) and of the preset is the same to the bit; `most_lost_steps` is the most steps that
were done before a kill and came again after it, where a checkpoint is due every
`checkpoint_every` steps.
"""

import argparse
import dataclasses
import json
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

from fitting.small_gpt import write_recipe

EVERY = 2  # steps between checkpoints; a kill comes after two steps in the mean
STARTING = 0.1  # share of the kills that come before the first step


def train(folder: Path) -> None:
    """Trains in this process, with a line on stdout when it is ready and after each step."""
    import keras

    from tfllm.trainers import fit, load_recipe

    class Tell(keras.callbacks.Callback):
        def on_train_begin(self, *_):
            self._tell()

        def on_train_batch_end(self, *_, **__):
            self._tell()

        def _tell(self):
            print(int(self.model.optimizer.iterations.numpy()), flush=True)

    fit(
        load_recipe(str(folder.parent / "recipe.json")),
        run=folder / "run",
        tensorboard=folder / "logs",
        strategy="one",
        callbacks=[Tell()],
    )


def start(folder: Path) -> subprocess.Popen:
    return subprocess.Popen(
        [sys.executable, __file__, "--train", str(folder)],
        stdout=subprocess.PIPE,
        stderr=(folder / "stderr.txt").open("ab"),
        text=True,
    )


@dataclasses.dataclass
class Killed:
    """What one process did.

    Attributes:
        began: The step it went on from; None if it was killed before.
        done: The last step that it finished.
    """

    began: int | None
    done: int | None


def kill_at(folder: Path, moment: float, step_s: float, starting_s: float) -> Killed:
    """Starts a process and kills it.

    Args:
        folder: Its folder.
        moment: The steps it may do, with a part of the next one; below 0 a part of its start.
        step_s: How long a step takes, in seconds.
        starting_s: How long it takes to start, in seconds.
    """
    process = start(folder)
    steps = []
    if moment < 0:
        time.sleep(-moment * starting_s)
    else:
        for line in process.stdout:
            steps.append(int(line))
            if len(steps) > int(moment):
                break
        time.sleep(moment % 1 * step_s)
    process.kill()
    rest, _ = process.communicate()
    if process.returncode != -signal.SIGKILL:
        raise SystemExit(f"A process ended by itself: {folder}/stderr.txt says why.")
    steps += [int(line) for line in rest.split()]
    return Killed(steps[0], steps[-1]) if steps else Killed(None, None)


def tensors(folder: Path) -> dict:
    """{name: array} of the newest checkpoint and of the preset."""
    import tensorflow as tf

    from tfllm.models import CausalLM

    newest = max((folder / "run" / "checkpoints").glob("step-*"))
    reader = tf.train.load_checkpoint(str(newest / "checkpoint"))
    names = [name for name in reader.get_variable_to_shape_map() if name[0] != "_"]
    preset = CausalLM.from_preset(str(folder / "run" / "preset"))
    return {name: reader.get_tensor(name) for name in names} | {
        f"preset/{i}": weight for i, weight in enumerate(preset.get_weights())
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--kills", type=int, default=100)
    parser.add_argument("--steps", type=int, default=200)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, default=Path("kills"))
    parser.add_argument("--train", type=Path, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.train:
        train(args.train)
        return
    from tfllm.trainers import Optimizer

    folders = {name: args.out / name for name in ("whole", "killed")}
    for folder in folders.values():
        folder.mkdir(parents=True, exist_ok=True)
    write_recipe(
        args.out,
        global_batch=32,
        steps=args.steps,
        precision="bfloat16",
        optimizer=Optimizer(peak_learning_rate=3e-3, warmup_steps=20),
        validate_every=args.steps,
        checkpoint_every=EVERY,
    )

    began = time.perf_counter()
    whole = start(folders["whole"])
    times = [time.perf_counter() for _ in whole.stdout]
    if whole.wait():
        raise SystemExit(f"The undisturbed run failed: {folders['whole']}/stderr.txt says why.")
    starting_s = times[0] - began
    step_s = sorted(b - a for a, b in zip(times[1:], times[2:], strict=False))[len(times) // 2]

    draw = random.Random(args.seed)
    done, lost, while_writing, while_starting = 0, [], 0, 0
    for kill in range(args.kills):
        # Uniform with the mean that lets the run last until the last kill.
        mean = (args.steps - done) / (args.kills - kill)
        moment = draw.uniform(0, min(2 * mean + 1, args.steps - done - 1))
        if draw.random() < STARTING:
            moment = -draw.random()
        killed = kill_at(folders["killed"], moment, step_s, starting_s)
        while_starting += killed.began is None
        while_writing += any((folders["killed"] / "run" / "checkpoints").glob(".writing-*"))
        if killed.began is not None:
            lost.append(done - killed.began)
            done = killed.done
        print(f"kill {kill + 1}: {moment:.2f}, {killed}", file=sys.stderr, flush=True)
    last = start(folders["killed"])
    steps = [int(line) for line in last.stdout]
    lost.append(done - steps[0])
    if last.wait() or steps[-1] != args.steps:
        raise SystemExit(f"The last process failed: {folders['killed']}/stderr.txt says why.")

    ours, theirs = (tensors(folder) for folder in folders.values())
    equal = ours.keys() == theirs.keys() and all(
        ours[name].tobytes() == theirs[name].tobytes() for name in ours
    )
    line = {
        "kills": args.kills,
        "while_writing": while_writing,
        "while_starting": while_starting,
        "steps": args.steps,
        "checkpoint_every": EVERY,
        "step_ms": round(1000 * step_s, 1),
        "tensors": len(ours),
        "equal": equal,
        "most_lost_steps": max(lost),
        "mean_lost_steps": round(sum(lost) / len(lost), 2),
    }
    print(json.dumps(line), flush=True)


if __name__ == "__main__":
    main()
