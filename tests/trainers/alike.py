"""The features that must train alike under every strategy, and one of two processes that try them.

The process trains each row of the table on its part of every batch, then a run of `fit` that is
asked to stop, one that goes on, and one in which it kills itself or sees the other die.
"""

import dataclasses
import json
import os
import signal
import sys
from pathlib import Path
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from tfllm.errors import Failure
from tfllm.models import GPTBackbone, GPTCausalLM, LSTMBackbone, LSTMCausalLM
from tfllm.optimizers import AdamW
from tfllm.trainers import Recipe, fit, make_strategy

VOCABULARY, LENGTH, WIDTH = 48, 12, 16


@dataclasses.dataclass(frozen=True)
class Row:
    """A feature: how a small language model with it is made and trained for six steps.

    Attributes:
        tolerance: Relative, of losses; of weights it is absolute.
        optimizer: Arguments of AdamW.
        compile: Arguments of `compile`.
        backbone: Of the backbone.
        batches: Rows of each batch; the default's are whole.
        lora: Whether only LoRA's weights and biases train.
        scaled: The first scale of the loss; 0 is none.
        lstm: Whether it is one.
    """

    tolerance: float = 2e-6
    optimizer: dict[str, Any] = dataclasses.field(default_factory=dict)
    compile: dict[str, Any] = dataclasses.field(default_factory=dict)
    backbone: dict[str, Any] = dataclasses.field(default_factory=dict)
    batches: tuple[int, ...] = (4,) * 6
    lora: bool = False
    scaled: float = 0
    lstm: bool = False


# Several features share a row, which costs the tracing of one step. 2e-6 is what another order of
# summing does to a loss in float32; bfloat16 keeps 8 bits and float16 11.
ROWS = {
    "sample weights, accumulation, dropout, clipping by norm, metrics": Row(
        optimizer={"clipnorm": 0.05},
        compile={"microbatches": 2, "weighted_metrics": ["accuracy"]},
        backbone={"dropout": 0.3},
    ),
    "clipping by global norm, moving averages, uneven last batch": Row(
        optimizer={"global_clipnorm": 0.05, "use_ema": True, "ema_momentum": 0.5},
        batches=(4, 4, 3),
    ),
    "a last batch of one row, in parts, of an LSTM": Row(
        lstm=True,
        compile={"microbatches": 2},
        backbone={"dropout": 0.3},
        batches=(4, 4, 1),
    ),
    "bfloat16, LoRA": Row(tolerance=2e-3, backbone={"dtype": "mixed_bfloat16"}, lora=True),
    "float16, loss scaling from a scale that overflows": Row(
        tolerance=2e-3, backbone={"dtype": "mixed_float16"}, scaled=2.0**19
    ),
}


def batches_of(row: Row) -> tf.data.Dataset:
    """Batches that are the same wherever they are made."""
    draw = np.random.default_rng(0)
    count = sum(row.batches)
    ids = draw.integers(1, VOCABULARY, (count, LENGTH)).astype("int32")
    # The replicas' weights differ, and some rows have none.
    weights = draw.integers(0, 3, (count, LENGTH)) * (np.arange(count) % 4 > 0)[:, None]
    x = {
        "token_ids": ids,
        "segment_ids": np.ones_like(ids),
        "positions": np.broadcast_to(np.arange(LENGTH, dtype="int32"), ids.shape),
    }
    dataset = tf.data.Dataset.from_tensor_slices((x, ids * 3 % VOCABULARY, weights))
    options = tf.data.Options()
    options.experimental_distribute.auto_shard_policy = tf.data.experimental.AutoShardPolicy.DATA
    whole = len(set(row.batches)) == 1
    return dataset.batch(row.batches[0], drop_remainder=whole).with_options(options)


class Steps(keras.callbacks.Callback):
    """Keeps what each step logs."""

    def __init__(self):
        super().__init__()
        self.logs = []

    def on_train_batch_begin(self, *_, **__):
        self.model.reset_metrics()

    def on_train_batch_end(self, _, logs=None):
        self.logs.append({name: float(value) for name, value in logs.items()})


def trained(row: Row, strategy: tf.distribute.Strategy) -> dict[str, np.ndarray]:
    """What a row comes to under a strategy: logs of the steps and of the end, and weights."""
    keras.utils.set_random_seed(3)
    with strategy.scope():
        sizes = {"num_layers": 1, "hidden_dim": WIDTH, "max_sequence_length": LENGTH}
        if row.lstm:
            model = LSTMCausalLM(LSTMBackbone(VOCABULARY, **sizes, **row.backbone))
        else:
            model = GPTCausalLM(GPTBackbone(VOCABULARY, num_heads=2, **sizes, **row.backbone))
        if row.lora:
            model.backbone.enable_lora(2)
        optimizer = AdamW(1e-2, weight_decay=0.1, **row.optimizer)
        if row.scaled:
            optimizer = keras.optimizers.LossScaleOptimizer(optimizer, initial_scale=row.scaled)
        model.compile(optimizer, jit_compile=False, **row.compile)
    steps = Steps()
    history = model.fit(batches_of(row), shuffle=False, verbose=0, callbacks=[steps]).history
    found = {f"step {name}": [log[name] for log in steps.logs] for name in steps.logs[0]}
    found |= {f"end {name}": values for name, values in history.items()}
    found["steps made"] = [int(model.optimizer.iterations.numpy())]
    if "weighted_metrics" in row.compile:
        shown = model.evaluate(batches_of(row), verbose=0, return_dict=True)
        found |= {f"validation {name}": [float(value)] for name, value in shown.items()}
    for place, variable in enumerate(model.trainable_variables):
        found[f"weight {place}"] = variable.numpy()
    return {name: np.asarray(values) for name, values in found.items()}


class At(keras.callbacks.Callback):
    """Sends this process a signal while a step runs."""

    def __init__(self, step, sent):
        super().__init__()
        self.step, self.sent = step, sent

    def on_train_batch_begin(self, batch, **_):
        if batch + 1 == self.step:
            os.kill(os.getpid(), self.sent)


def main(folder: Path, worker: int) -> None:
    """What one of two workers does, and writes down beside the others."""
    strategy = make_strategy("auto")
    for place, row in enumerate(ROWS.values()):
        np.savez(folder / f"row-{place}-worker-{worker}.npz", **trained(row, strategy))

    recipe = Recipe.from_json((folder / "recipe.json").read_text())
    told: dict[str, Any] = {}

    def run(name, *callbacks):
        steps = Steps()
        folders = {"run": folder / name, "tensorboard": folder / "logs" / name}
        try:
            told[name] = fit(recipe, **folders, callbacks=[steps, *callbacks])._asdict()
        except SystemExit as stopped:
            told["exit code"] = stopped.code
        except Failure as failure:
            told["failure"] = str(failure)
        told.setdefault("losses", []).append([log["loss"] for log in steps.logs])
        (folder / f"told-by-{worker}.json").write_text(json.dumps(told))

    run("stopped", *([At(3, signal.SIGTERM)] if worker == 1 else []))
    run("stopped")
    run("stopped")
    run("killed", *([At(6, signal.SIGKILL)] if worker == 1 else []))


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]))
