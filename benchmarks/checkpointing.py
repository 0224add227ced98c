"""What checkpoints cost the steps of a run: how long the loop waits, and the CPU time of writing.

    python benchmarks/checkpointing.py --recipe gpt_10m --every 10 --steps 40

Trains on random tokens with a checkpoint every so many steps, then the same steps with none.
`blocked_percent` is the time that the loop waits (to copy the state, and where a checkpoint is not
on the disk in time), as a share of the steps' time; `blocked_percent_at_default` is the same at the
recipe's own interval. A variable that was copied is moved when the next step assigns it, and the
writing takes a core while the steps go on: `cpu_ms_per_save` has both, the CPU time of all threads
above that of the steps without checkpoints.

Prints a JSON line.
"""

import argparse
import json
import tempfile
import time
from pathlib import Path

import keras
import numpy as np
import tensorflow as tf

from tfllm.models import GPTBackbone, GPTCausalLM
from tfllm.optimizers import AdamW
from tfllm.trainers import load_recipe
from tfllm.trainers.callbacks import SaveCheckpoints
from tfllm.trainers.checkpoints import Checkpoints
from tfllm.trainers.writing import Writer

VOCABULARY, POSITIONS = 8000, 256
WARM_UP = 3  # steps before the first that counts


class TimedSaves(SaveCheckpoints):
    """Keeps how long the loop waited after each step, and how long each writing took, in s."""

    def __init__(self, *args):
        super().__init__(*args)
        self.blocked_s: list[float] = []
        self.written_s: list[float] = []

    def on_train_batch_end(self, *args, **kwargs):
        began = time.perf_counter()
        super().on_train_batch_end(*args, **kwargs)
        self.blocked_s.append(time.perf_counter() - began)

    def _save(self, *args):
        began = time.perf_counter()
        super()._save(*args)
        self.written_s.append(time.perf_counter() - began)


def fit(model, recipe, steps: int, callbacks) -> tuple[float, float]:
    """Trains. Returns the seconds of the clock and of the CPU, of all threads."""
    rows = np.random.default_rng(0).integers(
        1, VOCABULARY, (recipe.global_batch, POSITIONS + 1), dtype="int32"
    )
    inputs = {
        "token_ids": rows[:, :-1],
        "segment_ids": np.ones_like(rows[:, :-1]),
        "positions": np.tile(np.arange(POSITIONS, dtype="int32"), (len(rows), 1)),
    }
    batch = (inputs, rows[:, 1:], np.ones(rows[:, 1:].shape, "float32"))
    batches = tf.data.Dataset.from_tensors(batch).repeat(steps)
    clock, cpu = time.perf_counter(), time.process_time()
    model.fit(batches, shuffle=False, verbose=0, callbacks=callbacks)
    return time.perf_counter() - clock, time.process_time() - cpu


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--recipe", default="gpt_10m", help="of a GPT")
    parser.add_argument("--every", type=int, default=10, help="steps between checkpoints")
    parser.add_argument("--steps", type=int, default=40)
    args = parser.parse_args()
    recipe = load_recipe(args.recipe)
    default_every = recipe.checkpoint_every
    recipe = recipe.with_settings([f"checkpoint_every={args.every}"])
    keras.mixed_precision.set_global_policy(
        "mixed_bfloat16" if recipe.precision == "bfloat16" else "float32"
    )
    keras.utils.set_random_seed(0)
    backbone = GPTBackbone(
        vocabulary_size=VOCABULARY, max_sequence_length=POSITIONS, **recipe.model
    )
    model = GPTCausalLM(backbone)
    model.compile(AdamW(1e-4, global_clipnorm=1.0), jit_compile=False)
    model.optimizer.build(model.trainable_variables)
    fit(model, recipe, WARM_UP, [])
    model.optimizer.iterations.assign(0)
    with tempfile.TemporaryDirectory(dir=".") as folder:
        checkpoints = Checkpoints(Path(folder), model, keep=2)
        with Writer() as writer:
            saves = TimedSaves(checkpoints, recipe, writer)
            clock_s, cpu_s = fit(model, recipe, args.steps, [saves])
        newest = Path(folder) / f"step-{checkpoints.steps()[-1]:08d}"
        size = sum(file.stat().st_size for file in newest.iterdir())
    plain_s, plain_cpu_s = fit(model, recipe, args.steps, [])
    step_s, num_saves = plain_s / args.steps, len(saves.written_s)
    blocked_steps = sum(saves.blocked_s) / num_saves / step_s  # by one checkpoint
    line = {
        "recipe": args.recipe,
        "weights": model.count_params(),
        "checkpoint_mb": round(size / 1e6, 1),
        "every": args.every,
        "step_ms": round(1000 * step_s, 1),
        "step_ms_with_saves": round(1000 * clock_s / args.steps, 1),
        "saves": num_saves,
        "write_ms": round(1000 * sum(saves.written_s) / num_saves, 1),
        "blocked_ms_per_save": round(1000 * blocked_steps * step_s, 2),
        "blocked_percent": round(100 * blocked_steps / args.every, 3),
        "default_every": default_every,
        "blocked_percent_at_default": round(100 * blocked_steps / default_every, 4),
        "cpu_ms_per_save": round(1000 * (cpu_s - plain_cpu_s) / num_saves, 1),
    }
    print(json.dumps(line), flush=True)


if __name__ == "__main__":
    main()
