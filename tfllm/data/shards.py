"""Rows on disk: TFRecord shards of tf.train.Example, and an index for reading them in any order.

Anybody can read the shards with TensorFlow: each Example has the features that meta.json lists
under `columns`, with what they hold and how many of it. `{split}.index` is little-endian
int64[rows + 1]: row i lies in the bytes [index[i], index[i + 1]) of the shards put one after the
other, with TFRecord's framing around it (12 bytes before, 4 after).

Source: framing in tensorflow/core/lib/io/record_writer.h.
"""

from __future__ import annotations

import array
import bisect
import itertools
import os
import weakref
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf

from tfllm.errors import UserError

SHARD_BYTES = 256 << 20

_HEADER_BYTES, _FOOTER_BYTES = 12, 4
_INDEX_DTYPE = np.dtype("<i8")


class ShardWriter:
    """Writes the rows of one split.

    Memory: 8 bytes per row, for the index.

    Args:
        folder: Where the shards go.
        split: The start of their names: `train-00000.tfrecord`.
        shard_bytes: The size at which the next shard is begun.
    """

    def __init__(self, folder: Path, split: str, shard_bytes: int = SHARD_BYTES):
        self._folder = folder
        self._split = split
        self._shard_bytes = shard_bytes
        self._index = array.array("q", [0])
        self._writer: tf.io.TFRecordWriter | None = None
        self.shards: list[dict[str, Any]] = []

    @property
    def num_rows(self) -> int:
        """Rows written so far."""
        return len(self._index) - 1

    def write(self, row: dict[str, list]) -> None:
        """Appends a row: lists of int, bytes or float by column."""
        if self._writer is None:
            name = f"{self._split}-{len(self.shards):05d}.tfrecord"
            self._writer = tf.io.TFRecordWriter(str(self._folder / name))
            self.shards.append({"file": name, "rows": 0, "bytes": 0})
        data = _example(row)
        framed = _HEADER_BYTES + len(data) + _FOOTER_BYTES
        self._writer.write(data)
        self._index.append(self._index[-1] + framed)
        shard = self.shards[-1]
        shard["rows"] += 1
        shard["bytes"] += framed
        if shard["bytes"] >= self._shard_bytes:
            self._end_shard()

    def close(self) -> None:
        """Ends the last shard and writes the index."""
        self._end_shard()
        np.array(self._index, _INDEX_DTYPE).tofile(self._folder / index_name(self._split))

    def _end_shard(self) -> None:
        if self._writer is not None:
            self._writer.close()
            self._writer = None


class ShardReader:
    """The serialized rows of one split, in any order.

    The files are opened here and stay open, so that a reader keeps its data when the folder is
    replaced under it.

    Args:
        folder: Where the shards are.
        split: The start of their names.
        shards: The list that `ShardWriter.shards` had, from meta.json.

    Raises:
        UserError: if a shard or the index is missing or has another size than it was written with.
    """

    def __init__(self, folder: Path, split: str, shards: Iterable[dict[str, Any]]):
        shards = list(shards)
        self._ends = list(itertools.accumulate(shard["bytes"] for shard in shards))
        for shard in shards:
            _check_size(folder / shard["file"], shard["bytes"])
        path = folder / index_name(split)
        num_rows = sum(shard["rows"] for shard in shards)
        _check_size(path, _INDEX_DTYPE.itemsize * (num_rows + 1))
        self._index = np.memmap(path, _INDEX_DTYPE, "r")
        self._files = [os.open(folder / shard["file"], os.O_RDONLY) for shard in shards]
        weakref.finalize(self, _close_all, self._files)

    def read(self, rows: Iterable[int]) -> np.ndarray:
        """The serialized Examples of the rows: bytes[n], as objects."""
        return np.array([self._read_row(row) for row in rows], dtype=object)

    def _read_row(self, row: int) -> bytes:
        start, end = self._index[row], self._index[row + 1]
        shard = bisect.bisect_right(self._ends, start)
        start_in_shard = start - (self._ends[shard - 1] if shard else 0) + _HEADER_BYTES
        length = end - start - _HEADER_BYTES - _FOOTER_BYTES
        return os.pread(self._files[shard], length, start_in_shard)


def index_name(split: str) -> str:
    """The file name of a split's index."""
    return f"{split}.index"


def _close_all(files: list[int]) -> None:
    for file in files:
        os.close(file)


def _check_size(path: Path, expected: int) -> None:
    size = path.stat().st_size if path.is_file() else None
    if size != expected:
        came = "is missing" if size is None else f"has {size} bytes instead of {expected}"
        raise UserError(f"{path} {came}: prepare the data again.")


def _example(row: dict[str, list]) -> bytes:
    features = {name: _feature(values) for name, values in row.items()}
    return tf.train.Example(features=tf.train.Features(feature=features)).SerializeToString()


def _feature(values: list) -> tf.train.Feature:
    if isinstance(values[0], bytes):
        return tf.train.Feature(bytes_list=tf.train.BytesList(value=values))
    if isinstance(values[0], float):
        return tf.train.Feature(float_list=tf.train.FloatList(value=values))
    return tf.train.Feature(int64_list=tf.train.Int64List(value=values))
