"""Which tensor of a checkpoint is which variable: one table for reading and for writing."""

from collections.abc import Iterable, Iterator
from typing import NamedTuple

import keras
import numpy as np
import tensorflow as tf

from tfllm.huggingface.checkpoint import Checkpoint


class Entry(NamedTuple):
    """One tensor of a checkpoint.

    Attributes:
        name: Its name there.
        variables: What it holds; several lie side by side in its last dimension, as the query, key
            and value of GPT-2 do.
        transposed: Whether it is [out, in], as a linear layer of torch has it; ours are [in, out].
    """

    name: str
    variables: tuple[keras.Variable, ...]
    transposed: bool = False

    @property
    def shape(self) -> tuple[int, ...]:
        """Of the tensor in the checkpoint."""
        *rest, _ = self.variables[0].shape
        shape = (*rest, sum(variable.shape[-1] for variable in self.variables))
        return shape[::-1] if self.transposed else shape


def same(name: str, variable: keras.Variable) -> Entry:
    """A tensor that is laid out as the variable is."""
    return Entry(name, (variable,))


def linear(name: str, layer) -> Iterator[Entry]:
    """The weight and, if there is one, the bias of a linear layer of torch.

    Args:
        name: Without `.weight` and `.bias`.
        layer: A `tfllm.layers.Linear`.
    """
    yield Entry(f"{name}.weight", (layer.kernel,), transposed=True)
    if layer.use_bias:
        yield same(f"{name}.bias", layer.bias)


def norm(name: str, layer) -> Iterator[Entry]:
    """The weight and bias of a layer norm.

    Args:
        name: Without `.weight` and `.bias`.
        layer: A `keras.layers.LayerNormalization`.
    """
    yield same(f"{name}.weight", layer.gamma)
    yield same(f"{name}.bias", layer.beta)


def load(checkpoint: Checkpoint, entries: Iterable[Entry]) -> None:
    """Reads every tensor into its variables, one at a time.

    Raises:
        UserError: one is missing, or has another shape.
    """
    for entry in entries:
        if len(entry.variables) == 1 and not entry.transposed:
            _load_rows(checkpoint, entry)
            continue
        array = checkpoint.take(entry.name, entry.shape)
        array = array.T if entry.transposed else array
        ends = np.cumsum([variable.shape[-1] for variable in entry.variables])
        for variable, part in zip(
            entry.variables, np.split(array, ends[:-1], axis=-1), strict=True
        ):
            _assign_rows(variable, 0, part)


def _load_rows(checkpoint: Checkpoint, entry: Entry) -> None:
    """A few rows at a time: an embedding is a large part of a small model."""
    start = 0
    for rows in checkpoint.take_rows(entry.name, entry.shape):
        _assign_rows(entry.variables[0], start, rows)
        start += len(rows)


def _assign_rows(variable: keras.Variable, start: int, rows: np.ndarray) -> None:
    """In place, and without the read of `variable[…].assign`, which would make a copy of it all."""
    tf.raw_ops.ResourceStridedSliceAssign(
        ref=variable.value.handle,
        begin=[start],
        end=[start + len(rows)],
        strides=[1],
        value=rows,
    )


def stored(entries: Iterable[Entry]) -> Iterator[tuple[str, np.ndarray]]:
    """The tensors of a checkpoint, float32, by name, one at a time."""
    for entry in entries:
        array = np.concatenate([np.asarray(v) for v in entry.variables], axis=-1)
        yield entry.name, np.ascontiguousarray(array.T if entry.transposed else array)
