"""Speed of training on batches of a budget of positions beside batches of so many rows, in one run.

    taskset -c 1 python benchmarks/token_budgets.py classifier_scratch --data data/reviews
    taskset -c 1 python benchmarks/token_budgets.py translation_lstm --data data/pairs --set ...

Trains the recipe with its rows and with `batch_tokens`, in turns, on one thread. The first step of
a turn and `--warm-up` steps before the first turn, in which graphs are made, do not count. Prints
one JSON line: tokens without padding per second of processor time of each, the share of the
positions that hold one, and how many times as many the budget has.
"""

import argparse
import itertools
import json
import time

import keras
import numpy as np
import tensorflow as tf

from tfllm.data import Records
from tfllm.trainers import load_recipe
from tfllm.trainers.compiled import compiled_model, schedule_of
from tfllm.trainers.feed import make_feed
from tfllm.trainers.tasks import begun_alike, objective_of


class Clock(keras.callbacks.Callback):
    """Processor time of the steps but the first, which sets the pipeline up."""

    cpu_s = 0.0

    def on_train_batch_end(self, batch, *_, **__):
        now = time.process_time()
        self.cpu_s += now - self._before if batch else 0.0
        self._before = now


class Run:
    """A model that trains by a recipe, some steps at a time."""

    def __init__(self, recipe, records):
        keras.utils.set_random_seed(recipe.seed)
        self.model = compiled_model(recipe, records, schedule_of(recipe))
        objective = begun_alike(objective_of(recipe, records), self.model)
        self.feed = make_feed(recipe, records, objective, self.model, 1)
        self.done = self.tokens = self.positions = 0
        self.cpu_s = 0.0

    def train(self, steps, *, counted=True):
        clock = Clock()
        batches = self.feed.train(self.done, steps)
        self.done += steps
        self.model.fit(batches, verbose=0, callbacks=[clock])
        if counted:
            self.cpu_s += clock.cpu_s
            for tokens, positions in map(self._size, batches.skip(1)):
                self.tokens += tokens
                self.positions += positions

    def _size(self, batch) -> tuple[int, int]:
        x, *_ = self.model.preprocess_samples(*batch)
        masks = [mask for name, mask in x.items() if name.endswith("padding_mask")]
        tokens = sum(np.count_nonzero(mask) for mask in masks)
        return tokens, sum(mask.shape.num_elements() for mask in masks)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("recipe")
    parser.add_argument("--data", required=True)
    parser.add_argument("--set", action="append", default=[], help="of both")
    parser.add_argument("--batch-tokens", type=int, default=4096)
    parser.add_argument("--warm-up", type=int, default=40)
    parser.add_argument("--turns", type=int, default=3)
    parser.add_argument("--steps", type=int, default=20, help="of a turn")
    args = parser.parse_args()
    tf.config.threading.set_intra_op_parallelism_threads(1)
    tf.config.threading.set_inter_op_parallelism_threads(1)

    recipe = load_recipe(args.recipe).with_settings(args.set)
    records = Records(args.data)
    budgets = {"rows": 0, "budget": args.batch_tokens}
    runs = {
        name: Run(recipe.with_settings([f"batch_tokens={budget}"]), records)
        for name, budget in budgets.items()
    }
    for run in runs.values():
        run.train(args.warm_up, counted=False)
    for _, run in itertools.product(range(args.turns), runs.values()):
        run.train(args.steps)
    rates = {name: run.tokens / run.cpu_s for name, run in runs.items()}
    print(
        json.dumps(
            {
                "recipe": args.recipe,
                "tokens_per_cpu_s": {name: round(rate) for name, rate in rates.items()},
                "filled": {
                    name: round(run.tokens / run.positions, 3) for name, run in runs.items()
                },
                "ratio": round(rates["budget"] / rates["rows"], 2),
            }
        )
    )


if __name__ == "__main__":
    main()
