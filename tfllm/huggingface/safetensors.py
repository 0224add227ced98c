"""Safetensors files: read a tensor at a time, written a tensor at a time.

The PyPI package was tried and is not used (0.8.0): by default it maps the whole file, which then
counts as memory; reading a bfloat16 needs `ml_dtypes` imported first; writing wants every tensor in
memory at once and takes the bytes of a transposed array in the wrong order without a word.

Source:
    https://github.com/huggingface/safetensors, README.md, "Format".
"""

import json
import os
import struct
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from tfllm.errors import UserError
from tfllm.huggingface.json_files import parse_json
from tfllm.huggingface.stored import StoredTensor, float32_rows, is_shape

_CODES = {
    "F64": "float64",
    "F32": "float32",
    "F16": "float16",
    "BF16": "bfloat16",
    "I64": "int64",
    "I32": "int32",
    "I16": "int16",
    "I8": "int8",
    "U64": "uint64",
    "U32": "uint32",
    "U16": "uint16",
    "U8": "uint8",
    "BOOL": "bool",
}
_CODE_OF = {dtype: code for code, dtype in _CODES.items()}
_LENGTH = struct.Struct("<Q")  # the file's first eight bytes: how long the header is
_LONGEST_HEADER = 100_000_000  # of the format


class SafetensorsFile:
    """A safetensors file whose header has been read and checked.

    Args:
        path: The file.

    Raises:
        UserError: it is cut off or damaged, or holds numbers of a kind that is not read.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = Path(path)
        size = self.path.stat().st_size
        with open(path, "rb") as file:
            start = file.read(_LENGTH.size)
            if len(start) < _LENGTH.size:
                raise UserError(f"{path} is cut off: it has {size} bytes.")
            (header_bytes,) = _LENGTH.unpack(start)
            self._data_at = _LENGTH.size + header_bytes
            if header_bytes > _LONGEST_HEADER or self._data_at > size:
                raise UserError(
                    f"{path} is cut off or no safetensors file: its header would take "
                    f"{header_bytes} bytes, the file has {size}. Fetch it again."
                )
            header = parse_json(file.read(header_bytes), f"The header of {path}")
        header.pop("__metadata__", None)
        self.tensors: dict[str, StoredTensor] = {}
        self._spans: dict[str, tuple[int, int]] = {}
        for name, entry in header.items():
            self.tensors[name], self._spans[name] = self._checked(name, entry)
        self._check_that_the_spans_fill(size - self._data_at)

    def float32_rows(self, name: str) -> Iterator[np.ndarray]:
        """Yields float32[rows, …], the rows of a tensor in order; it must be one of floats."""
        offset = self._data_at + self._spans[name][0]
        return float32_rows(self.path, offset, self.tensors[name])

    def _checked(self, name: str, entry: Any) -> tuple[StoredTensor, tuple[int, int]]:
        match entry:
            case {"dtype": str(code), "shape": shape, "data_offsets": [int(begin), int(end)]} if (
                is_shape(shape) and 0 <= begin <= end < 2**63
            ):
                pass
            case _:
                raise UserError(
                    f"The header of {self.path} is damaged: {name!r} has no dtype, shape and "
                    "data_offsets that can be."
                )
        if code not in _CODES:
            raise UserError(
                f"{name!r} in {self.path} is stored as {code!r}, which is not read. Save the model "
                "with one of " + ", ".join(_CODES) + "."
            )
        tensor = StoredTensor(tuple(shape), _CODES[code])
        if end - begin != tensor.num_bytes:
            raise UserError(
                f"The header of {self.path} is damaged: {name!r} takes {tensor.num_bytes} bytes by "
                f"its shape and dtype, {end - begin} by its data_offsets."
            )
        return tensor, (begin, end)

    def _check_that_the_spans_fill(self, num_bytes: int) -> None:
        end = 0
        for name, span in sorted(self._spans.items(), key=lambda item: item[1]):
            if span[0] != end:
                raise UserError(
                    f"The header of {self.path} is damaged: {name!r} begins at byte {span[0]}, "
                    f"the tensor before it ends at {end}."
                )
            end = span[1]
        if end != num_bytes:
            raise UserError(
                f"{self.path} is cut off or damaged: by its header the tensors take {end} bytes, "
                f"it holds {num_bytes}. Fetch it again."
            )


def write_safetensors(
    path: str | os.PathLike[str],
    layout: Mapping[str, StoredTensor],
    arrays: Iterator[tuple[str, np.ndarray]],
) -> None:
    """Writes one file, holding one array at a time.

    Args:
        path: The file, which `transformers` and `safetensors` read.
        layout: What will come, in this order.
        arrays: The names of `layout` in its order, each with its array. No more are taken than
            `layout` names, so the next file can go on with the rest.

    Raises:
        ValueError: an array is not what `layout` says.
    """
    header: dict[str, Any] = {"__metadata__": {"format": "pt"}}  # transformers asks for it
    end = 0
    for name, tensor in layout.items():
        start, end = end, end + tensor.num_bytes
        header[name] = {
            "dtype": _CODE_OF[tensor.dtype],
            "shape": list(tensor.shape),
            "data_offsets": [start, end],
        }
    text = json.dumps(header, separators=(",", ":")).encode("ascii")
    text += b" " * (-len(text) % 8)
    with open(path, "wb") as file:
        file.write(_LENGTH.pack(len(text)) + text)
        for name, tensor in layout.items():
            came, array = next(arrays, (None, np.empty(0)))
            if (name, tensor) != (came, StoredTensor(array.shape, array.dtype.name)):
                raise ValueError(
                    f"expected {name} as {tensor.dtype}{list(tensor.shape)}, came {came} as "
                    f"{array.dtype.name}{list(array.shape)}."
                )
            # By uint8, as the bfloat16 of ml_dtypes has no buffer that files take.
            little = array.astype(array.dtype.newbyteorder("<"), order="C", copy=False)
            file.write(little.reshape(-1).view(np.uint8).data)
