"""Tensors as files hold them: shape, kind of numbers, place; and their way to float32."""

import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from math import prod
from typing import Any

import numpy as np

from tfllm.errors import UserError

ITEM_BYTES = {
    "float64": 8,
    "float32": 4,
    "float16": 2,
    "bfloat16": 2,
    "int64": 8,
    "int32": 4,
    "int16": 2,
    "int8": 1,
    "uint64": 8,
    "uint32": 4,
    "uint16": 2,
    "uint8": 1,
    "bool": 1,
}
FLOATS = ("float64", "float32", "float16", "bfloat16")

# Converting piece by piece keeps what is beside the model in memory small.
_PIECE_BYTES = 4 * 2**20


_MOST_DIMENSIONS = 32  # of the older NumPy
_MOST_NUMBERS = 2**60


def is_shape(values: Any) -> bool:
    """Whether a list or tuple from a file can be the shape of an array."""
    return (
        isinstance(values, list | tuple)
        and len(values) <= _MOST_DIMENSIONS
        and all(type(value) is int and value >= 0 for value in values)
        and prod(max(1, value) for value in values) <= _MOST_NUMBERS
    )


@dataclass(frozen=True)
class StoredTensor:
    """What a tensor of a file is, before anybody reads it.

    Args:
        shape: Its shape.
        dtype: One of `ITEM_BYTES`.
    """

    shape: tuple[int, ...]
    dtype: str

    @property
    def num_bytes(self) -> int:
        return prod(self.shape) * ITEM_BYTES[self.dtype]


def float32_rows(
    path: str | os.PathLike[str], offset: int, tensor: StoredTensor, byteorder: str = "<"
) -> Iterator[np.ndarray]:
    """Reads a tensor whose numbers lie one after the other, some rows at a time.

    Args:
        path: The file.
        offset: Where in it the tensor begins, in bytes.
        tensor: What it is, one of the `FLOATS`.
        byteorder: "<" for little-endian, ">" for big-endian.

    Yields:
        float32[rows, *tensor.shape[1:]], the next rows; about 4 MB at a time. A scalar is one row.

    Raises:
        UserError: the file has become shorter than it was.
    """
    if 0 in tensor.shape:
        return
    shape = tensor.shape or (1,)
    row_bytes = prod(shape[1:]) * ITEM_BYTES[tensor.dtype]
    rows = max(1, _PIECE_BYTES // row_bytes)
    with open(path, "rb") as file:
        file.seek(offset)
        for start in range(0, shape[0], rows):
            raw = np.empty(min(rows, shape[0] - start) * row_bytes, np.uint8)
            if file.readinto(raw) != raw.size:  # type: ignore[arg-type]
                raise UserError(f"{path} was changed while it was read: try again.")
            yield as_float32(raw, tensor.dtype, byteorder).reshape(-1, *shape[1:])


def joined(rows: Iterable[np.ndarray], shape: tuple[int, ...]) -> np.ndarray:
    """Puts the pieces of `float32_rows` into one array.

    Returns:
        float32[*shape].
    """
    whole = np.empty(shape or (1,), np.float32)
    start = 0
    for piece in rows:
        whole[start : start + len(piece)] = piece
        start += len(piece)
    return whole.reshape(shape)


def as_float32(raw: np.ndarray, dtype: str, byteorder: str = "<") -> np.ndarray:
    """Turns bytes into float32: exactly, and to the nearest from float64.

    Args:
        raw: uint8[n * item], little-endian or as `byteorder` says.
        dtype: One of the `FLOATS`.
        byteorder: "<" or ">".

    Returns:
        float32[n].
    """
    if dtype == "bfloat16":  # the upper half of a float32
        bits = raw.view(f"{byteorder}u2").astype(np.uint32)
        bits <<= 16
        return bits.view(np.float32)
    # A float64 beyond the range of float32 becomes infinite, as in torch.
    with np.errstate(over="ignore", invalid="ignore"):
        return raw.view(f"{byteorder}f{ITEM_BYTES[dtype]}").astype(np.float32, copy=False)
