"""Rows of several requests merged into the inputs of one call, and its outputs cut again.

Source:
    tensorflow_serving/batching/batching_session.cc and batching_util.cc, read for the behaviour
    and the texts.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from tfllm.serving.status import Code, ServingError
from tfllm.serving.tensors import MAX_TENSOR_BYTES

Feeds = Sequence[tuple[str, np.ndarray]]


def num_rows(feeds: Feeds) -> int:
    """Dimension 0, which all inputs share.

    Raises:
        ServingError: INVALID_ARGUMENT for a scalar or for different sizes.
    """
    if not feeds:
        message = "Batching Run() must have at least one input tensor"
        raise ServingError(Code.INVALID_ARGUMENT, message)
    for _, array in feeds:
        if array.ndim == 0:
            message = "Batching Run() input tensors must have at least one dimension"
            raise ServingError(Code.INVALID_ARGUMENT, message)
        if array.shape[0] != feeds[0][1].shape[0]:
            message = "Batching Run() input tensors must have equal 0th-dimension size"
            raise ServingError(Code.INVALID_ARGUMENT, message)
    return feeds[0][1].shape[0]


def merged(tasks: Sequence[Feeds], padding: int, *, pad_lengths: bool) -> list:
    """One call's inputs: the rows of all tasks in turn, then `padding` copies of a row.

    Args:
        tasks: Inputs of equal names, in equal order, and dtypes.
        padding: How often the first row of the last task is repeated at the end.
        pad_lengths: Whether tasks that differ beyond dimension 0 are made equal.

    Raises:
        ServingError: FAILED_PRECONDITION for different shapes that are not to be padded, else
            INVALID_ARGUMENT for what cannot be padded or gets larger than a tensor may be.
    """
    inputs = []
    for column in zip(*tasks, strict=True):
        name, arrays = column[0][0], [array for _, array in column]
        if any(array.shape[1:] != arrays[0].shape[1:] for array in arrays):
            if not pad_lengths:
                raise ServingError(
                    Code.FAILED_PRECONDITION,
                    f"Tensors with name '{name}' from different tasks have different shapes and "
                    "padding is turned off. Set pad_variable_length_inputs to true, or ensure that "
                    "all tensors with the same name have equal dimensions starting with the first "
                    "dim.",
                )
            arrays = _equally_long(name, arrays)
        if padding:
            arrays.append(np.repeat(arrays[-1][:1], padding, axis=0))
        inputs.append((name, np.concatenate(arrays) if len(arrays) > 1 else arrays[0]))
    return inputs


def cut(output, rows: Sequence[int], padding: int) -> list[np.ndarray]:
    """Each task's rows of one output of the call.

    Args:
        output: What the call gave.
        rows: How many rows each task has.
        padding: Rows at the end that nobody asked for.

    Raises:
        ServingError: FAILED_PRECONDITION for an output that has not a row for each row.
    """
    if np.ndim(output) == 0:
        message = "Batched output tensor has 0 dimensions"
        raise ServingError(Code.FAILED_PRECONDITION, message)
    if output.shape[0] != sum(rows) + padding:
        raise ServingError(
            Code.FAILED_PRECONDITION,
            "Batched output tensor's 0th dimension does not equal the sum of the 0th dimension "
            "sizes of the input tensors",
        )
    return np.split(output, np.cumsum(rows))[: len(rows)]


def _equally_long(name: str, arrays: list[np.ndarray]) -> list[np.ndarray]:
    """Arrays made as long as the longest in every dimension but 0, with their first element."""
    if len({array.ndim for array in arrays}) > 1:
        message = f"Tensors with name '{name}' from different tasks have different ranks."
        raise ServingError(Code.INVALID_ARGUMENT, message)
    longest = np.max([array.shape[1:] for array in arrays], axis=0).tolist()
    size = math.prod(longest) * sum(array.shape[0] for array in arrays) * arrays[0].itemsize
    if size > MAX_TENSOR_BYTES:
        message = f"Tensors with name '{name}' would be padded to {size} bytes."
        raise ServingError(Code.INVALID_ARGUMENT, message)
    padded = []
    for array in arrays:
        if array.size == 0:
            message = "Got empty tensor in batch of non-empty tensors."
            raise ServingError(Code.INVALID_ARGUMENT, message)
        filled = np.full((array.shape[0], *longest), array.flat[0], array.dtype)
        filled[tuple(map(slice, array.shape))] = array
        padded.append(filled)
    return padded
