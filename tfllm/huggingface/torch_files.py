"""Files of `torch.save`, read without torch: the zip format, and the one before torch 1.6.

Source:
    torch/serialization.py: `_save`, `_legacy_save`. A zip file holds ROOT/data.pkl, ROOT/byteorder
    and one entry ROOT/data/KEY per storage, none compressed. The older format is a row of pickles
    (magic number, version, system, the object, the keys of its storages), then each storage: how
    many numbers as an int64, and the numbers, little-endian on every machine.
"""

import io
import os
import struct
import zipfile
from collections.abc import Iterator
from math import prod
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from tfllm.errors import UserError
from tfllm.huggingface.pickles import View, read_pickle
from tfllm.huggingface.stored import ITEM_BYTES, StoredTensor, float32_rows, joined

_LEGACY_MAGIC = 0x1950A86A20F9469CFC6C
_LEGACY_VERSION = 1001
_LONGEST_PICKLE = 256 * 2**20
_WRAPPERS = ("state_dict", "model", "model_state_dict")


class TorchFile:
    """A file of `torch.save` that holds a dictionary of tensors.

    Args:
        path: The file.

    Raises:
        UserError: it is no such file, cut off or damaged, or holds something else than tensors.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = Path(path)
        self._byteorder = "<"
        # Where the bytes of each storage are: offset in the file, number.
        self._places: dict[str, tuple[int, int]] = {}
        self._size = self.path.stat().st_size
        with open(path, "rb") as file:
            start = file.read(4)
            file.seek(0)
            if start == b"PK\x03\x04":
                found = self._read_zip(file)
            elif start[:1] == b"\x80":
                found = self._read_legacy(file)
            else:
                raise UserError(
                    f"{path} is no file of torch.save: it begins with {start!r}. Fetch it again, "
                    "or save the model as safetensors."
                )
        self._views = self._tensors_of(found)
        for name, view in self._views.items():
            self._check(name, view)
        self.tensors = {
            name: StoredTensor(view.shape, view.storage.dtype) for name, view in self._views.items()
        }

    def float32_rows(self, name: str) -> Iterator[np.ndarray]:
        """Yields float32[rows, …], the rows of a tensor in order; it must be one of floats."""
        view, tensor = self._views[name], self.tensors[name]
        begin = self._places[view.storage.key][0] + view.offset * ITEM_BYTES[tensor.dtype]
        if _is_contiguous(view):
            yield from float32_rows(self.path, begin, tensor, self._byteorder)
        else:
            # Transposed, as a rule: all that it spans is read, then seen through its strides.
            span = StoredTensor((_span(view),), tensor.dtype)
            numbers = joined(float32_rows(self.path, begin, span, self._byteorder), span.shape)
            strides = [4 * stride for stride in view.strides]
            yield np.ndarray(view.shape, np.float32, numbers, strides=strides)

    def _read_zip(self, file: BinaryIO) -> Any:
        try:
            entries = zipfile.ZipFile(file).infolist()
        except (zipfile.BadZipFile, NotImplementedError, ValueError, struct.error) as error:
            raise self._cut_off(str(error)) from None
        places = {entry.filename: self._place(file, entry) for entry in entries}
        pickles = [name for name in places if name.endswith("/data.pkl") and name.count("/") == 1]
        if len(pickles) != 1:
            raise UserError(
                f"{self.path} is a zip file without the data.pkl of torch.save: expected the "
                "weights of a model, save it as safetensors."
            )
        root = pickles[0].removesuffix("data.pkl")
        if self._content(file, places.get(f"{root}byteorder", (0, 0))) == b"big":
            self._byteorder = ">"
        prefix = f"{root}data/"
        self._places = {
            name.removeprefix(prefix): place
            for name, place in places.items()
            if name.startswith(prefix)
        }
        pickle = io.BytesIO(self._content(file, places[pickles[0]]))
        return read_pickle(pickle, self.path).content

    def _place(self, file: BinaryIO, entry: zipfile.ZipInfo) -> tuple[int, int]:
        """Where the bytes of an entry are: what lies there is read without `zipfile`."""
        if entry.compress_type != zipfile.ZIP_STORED or entry.file_size != entry.compress_size:
            raise UserError(
                f"{self.path} is compressed, which torch.save never does. Save the model as "
                "safetensors."
            )
        # Its central entry does not say how long the local header is.
        file.seek(min(max(0, entry.header_offset), self._size))
        header = file.read(30)
        if len(header) < 30 or header[:4] != b"PK\x03\x04":
            raise self._cut_off("the place of an entry is wrong")
        begin = file.tell() + sum(struct.unpack("<HH", header[26:]))
        if begin + entry.file_size > self._size:
            raise self._cut_off("an entry ends behind its end")
        return begin, entry.file_size

    def _content(self, file: BinaryIO, place: tuple[int, int]) -> bytes:
        begin, size = place
        if size > _LONGEST_PICKLE:
            raise self._cut_off(f"an entry beside the weights has {size} bytes")
        file.seek(begin)
        return file.read(size)

    def _read_legacy(self, file: BinaryIO) -> Any:
        magic, version, _ = (read_pickle(file, self.path).content for _ in range(3))
        if (magic, version) != (_LEGACY_MAGIC, _LEGACY_VERSION):
            raise UserError(
                f"{self.path} is a pickle, but none of torch.save: expected the weights of a "
                "model, save it as safetensors."
            )
        found, storages = read_pickle(file, self.path)
        keys = read_pickle(file, self.path).content
        named = [key for key in keys if isinstance(key, str)] if isinstance(keys, list) else []
        if sorted(named) != sorted(storages):
            raise self._cut_off("it does not hold the storages that its tensors name")
        for key in named:
            length = int.from_bytes(file.read(8), "little")
            begin, num_bytes = file.tell(), length * ITEM_BYTES[storages[key].dtype]
            if length != storages[key].length or begin + num_bytes > self._size:
                raise self._cut_off(f"storage {key!r} is not all there")
            self._places[key] = (begin, num_bytes)
            file.seek(begin + num_bytes)
        return found

    def _tensors_of(self, found: Any) -> dict[str, View]:
        if isinstance(found, dict):
            wrapped = [found[name] for name in _WRAPPERS if isinstance(found.get(name), dict)]
            if wrapped:
                found = wrapped[0]
        if not isinstance(found, dict):
            raise UserError(
                f"{self.path} must hold a dictionary of tensors, not a {type(found).__name__}."
            )
        for name, view in found.items():
            if not (isinstance(name, str) and isinstance(view, View)):
                raise UserError(
                    f"{self.path} must hold tensors by their names: its entry {name!r} is a "
                    f"{type(view).__name__}. Save the state_dict of the model alone."
                )
        return found

    def _check(self, name: str, view: View) -> None:
        if view.storage.key not in self._places:
            raise self._cut_off(f"the storage of {name!r} is missing")
        items = self._places[view.storage.key][1] // ITEM_BYTES[view.storage.dtype]
        if view.offset + _span(view) > min(items, view.storage.length):
            raise self._cut_off(f"{name!r} goes beyond its storage")
        if prod(view.shape) > _span(view):
            raise UserError(
                f"{name!r} in {self.path} repeats its numbers (an expanded tensor), which is not "
                "read: save the model as safetensors."
            )

    def _cut_off(self, why: str) -> UserError:
        return UserError(f"{self.path} is cut off or damaged: {why}. Fetch it again.")


def _span(view: View) -> int:
    """How many items of the storage lie between the first and the last of a tensor, with both."""
    if 0 in view.shape:
        return 0
    return 1 + sum(
        (length - 1) * stride for length, stride in zip(view.shape, view.strides, strict=True)
    )


def _is_contiguous(view: View) -> bool:
    expected = 1
    for length, stride in zip(view.shape[::-1], view.strides[::-1], strict=True):
        if length != 1 and stride != expected:
            return False
        expected *= length
    return True
