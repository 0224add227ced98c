"""A run in TensorBoard's table of hyperparameters: its recipe, and what it came to."""

import dataclasses
from pathlib import Path
from typing import Any

import tensorflow as tf
from tensorboard.plugins.hparams import api

from tfllm.trainers.event_file import EventFile
from tfllm.trainers.recipe import Recipe


def write_recipe(folder: Path, recipe: Recipe) -> None:
    """Writes the recipe for the plugin HParams.

    Args:
        folder: Of the run's logs. Their numbers, in the folders below it, are the run's metrics.
        recipe: Its values, as `optimizer.beta_1`.
    """
    with EventFile(folder).at(0):
        api.hparams(dict(flat(dataclasses.asdict(recipe))))


def write_result(folder: Path, step: int, metrics: dict[str, float]) -> None:
    """Writes what the finished run reached on the whole validation split, beside its recipe."""
    with EventFile(folder).at(step):
        for name, value in metrics.items():
            tf.summary.scalar(f"final/{name}", value)


def flat(values: dict[str, Any], prefix: str = "") -> list[tuple[str, Any]]:
    """Names with dots and plain values, as the plugin and tables take them."""
    found = []
    for name, value in values.items():
        if isinstance(value, dict):
            found += flat(value, f"{prefix}{name}.")
        else:
            is_plain = isinstance(value, bool | int | float | str)
            found.append((prefix + name, value if is_plain else str(value)))
    return found
