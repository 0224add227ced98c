"""A checkpoint of Hugging Face as a folder on disk: its configuration, and its tensors by name."""

import difflib
import os
import re
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from tfllm.errors import UserError
from tfllm.huggingface.json_files import read_json
from tfllm.huggingface.stored import FLOATS, StoredTensor, joined
from tfllm.huggingface.weight_files import WeightFile, open_weights


class Checkpoint:
    """What a folder of Hugging Face holds. No tensor is read before it is asked for.

    It keeps account of what was taken, so that an import can say what it left.

    Args:
        folder: With config.json and the weights.

    Attributes:
        folder: Its path.
        config: What config.json says.
        generation_config: What generation_config.json says; empty if there is none.

    Raises:
        UserError: it is no such folder, or a file in it is missing, cut off or damaged.
    """

    def __init__(self, folder: str | os.PathLike[str]) -> None:
        self.folder = Path(folder)
        if not (self.folder / "config.json").exists():
            raise UserError(
                f"No checkpoint at {folder}: expected a folder with config.json, as "
                "save_pretrained of transformers writes it. Checkpoints are read from disk, never "
                "downloaded."
            )
        self.config = read_json(self.folder / "config.json")
        if "registered_name" in self.config:
            raise UserError(f"{folder} is a preset already, not a checkpoint of Hugging Face.")
        generation = self.folder / "generation_config.json"
        self.generation_config = read_json(generation) if generation.exists() else {}
        files = open_weights(folder)
        for name in files:
            if not name.isprintable():
                raise UserError(f"{files[name].path} names a tensor {ascii(name)}: it is damaged.")
        # By the name that the caller uses: the file and the name in it.
        self._places = {name: (file, name) for name, file in files.items()}
        self._done: set[str] = set()

    def __contains__(self, name: str) -> bool:
        return name in self._places

    def names(self) -> list[str]:
        """The names of all tensors."""
        return list(self._places)

    def stored(self, name: str) -> StoredTensor:
        """The shape and dtype of a tensor in the file.

        Raises:
            UserError: there is none of this name.
        """
        if name not in self._places:
            near = difflib.get_close_matches(name, self._places, cutoff=0.5)
            raise UserError(
                f"{self.folder} has no tensor {name}"
                + (f" (it has {', '.join(near)})" if near else "")
                + ": config.json does not describe these weights, or a part of them is missing."
            )
        file, inside = self._places[name]
        return file.tensors[inside]

    def take(self, name: str, shape: tuple[int, ...]) -> np.ndarray:
        """Reads a tensor.

        Args:
            name: Its name.
            shape: What it must have.

        Returns:
            float32[*shape]: exact from all floats but float64, which is rounded to the nearest.

        Raises:
            UserError: there is none of this name, of another shape, or stored as integers.
        """
        return joined(self.take_rows(name, shape), shape)

    def take_rows(self, name: str, shape: tuple[int, ...]) -> Iterator[np.ndarray]:
        """Reads a tensor some rows at a time: for embeddings, a third of a small model's memory.

        Args:
            name: Its name.
            shape: What it must have.

        Returns:
            float32[rows, *shape[1:]], the next rows; about 4 MB at a time.

        Raises:
            UserError: as `take`.
        """
        tensor = self.stored(name)
        file, inside = self._places[name]
        if tensor.shape != tuple(shape):
            raise UserError(
                f"{inside} in {file.path} has the shape {list(tensor.shape)}, expected "
                f"{list(shape)}: config.json does not describe these weights."
            )
        if tensor.dtype not in FLOATS:
            raise UserError(
                f"{inside} in {file.path} is stored as {tensor.dtype}: quantised weights are not "
                "read. Save the model in float32, float16 or bfloat16."
            )
        self._done.add(inside)
        return file.float32_rows(inside)

    def rename(self, pattern: str, replacement: str) -> None:
        """Gives tensors other names from here on, as `re.sub` does: `rename(r"^bert\\.", "")`.

        So one mapping reads what was saved with or without a head, and old names.

        Raises:
            UserError: two tensors would have the same name.
        """
        places: dict[str, tuple[WeightFile, str]] = {}
        for name, place in self._places.items():
            new = re.sub(pattern, replacement, name)
            if new in places:
                raise UserError(
                    f"{self.folder} has both {places[new][1]} and {place[1]}: expected one of them."
                )
            places[new] = place
        self._places = places

    def ignore(self, *patterns: str) -> None:
        """Counts tensors as read whose whole name matches: tied copies, buffers of torch."""
        for name, (_, inside) in self._places.items():
            if any(re.fullmatch(pattern, name) for pattern in patterns):
                self._done.add(inside)

    def unused(self) -> list[str]:
        """The names in the file of what was neither taken nor ignored."""
        return sorted({inside for _, inside in self._places.values()} - self._done)
