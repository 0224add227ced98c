"""Which files of a folder hold the weights: one or several, safetensors or of torch, in and out."""

import json
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Protocol

import numpy as np

from tfllm.errors import UserError
from tfllm.huggingface.json_files import read_json
from tfllm.huggingface.safetensors import SafetensorsFile, write_safetensors
from tfllm.huggingface.stored import StoredTensor
from tfllm.huggingface.torch_files import TorchFile

# In the order in which transformers looks for them.
_NAMES = (
    "model.safetensors",
    "model.safetensors.index.json",
    "pytorch_model.bin",
    "pytorch_model.bin.index.json",
)
_OTHERS = {
    ".h5": "TensorFlow 2 of transformers 4",
    ".msgpack": "Flax",
    ".gguf": "llama.cpp",
    ".onnx": "ONNX",
    ".ot": "rust-bert",
    ".ckpt": "TensorFlow 1 or Lightning",
    ".npz": "Marian itself",
    ".bin": "not the whole model",
    ".safetensors": "not the whole model",
}


class WeightFile(Protocol):
    """A file of either format.

    Args:
        path: Where it is.
        tensors: What it holds, by name.
    """

    path: Path
    tensors: dict[str, StoredTensor]

    def float32_rows(self, name: str) -> Iterator[np.ndarray]:
        """Yields float32[rows, …], the rows of a tensor in order; it must be one of floats."""


def open_weights(folder: str | os.PathLike[str]) -> dict[str, WeightFile]:
    """Finds the weights of a checkpoint and reads what they are, not the numbers.

    Returns:
        The file of each tensor, by the tensor's name.

    Raises:
        UserError: there are none, a part of them is missing or damaged, or two parts hold the same.
    """
    folder = Path(folder)
    found = [folder / name for name in _NAMES if (folder / name).exists()]
    if not found:
        raise UserError(_nothing_found(folder))
    if found[0].suffix != ".json":
        file = _open(found[0])
        return dict.fromkeys(file.tensors, file)
    index = read_json(found[0]).get("weight_map")
    if not (isinstance(index, dict) and index and all(map(_is_file_name, index.values()))):
        raise UserError(f"{found[0]} is damaged: it has no weight_map of tensors to files.")
    files: dict[str, WeightFile] = {}
    for part in sorted(set(index.values())):
        if not (folder / part).exists():
            raise UserError(f"{folder / part} is missing: {found[0].name} names it. Fetch it.")
        file = _open(folder / part)
        for name in file.tensors:
            if name in files:
                raise UserError(f"{name!r} is in {files[name].path} and in {file.path}.")
            files[name] = file
    for name, part in index.items():
        if name not in files:
            raise UserError(f"{folder / part} has no {name!r}: {found[0].name} says it has.")
    return files


def _open(path: Path) -> WeightFile:
    try:
        with open(path, "rb") as file:
            start = file.read(200)
    except OSError as error:
        raise UserError(f"Cannot read {path}: {error.strerror}.") from None
    if not start:
        raise UserError(f"{path} is empty. Fetch it again.")
    if start.startswith(b"version https://git-lfs"):
        raise UserError(
            f"{path} is a pointer of Git LFS, not the weights: run `git lfs pull` in its folder."
        )
    if start.lstrip().lower().startswith((b"<!doctype", b"<html", b"<?xml")):
        raise UserError(f"{path} is a web page, not the weights. Fetch it again.")
    return SafetensorsFile(path) if path.suffix == ".safetensors" else TorchFile(path)


def _is_file_name(name: object) -> bool:
    return isinstance(name, str) and name not in ("", ".", "..") and Path(name).name == name


def _nothing_found(folder: Path) -> str:
    others = [
        f"{path.name} ({_OTHERS[path.suffix]})"
        for path in sorted(folder.iterdir())
        if path.suffix in _OTHERS
    ]
    return (
        f"No weights in {folder}: expected {' or '.join(_NAMES[::2])}, found "
        f"{', '.join(others) or 'neither'}. Save the model there with save_pretrained of "
        "transformers for PyTorch."
    )


def write_weights(
    folder: str | os.PathLike[str],
    layout: Mapping[str, StoredTensor],
    arrays: Iterator[tuple[str, np.ndarray]],
    max_file_bytes: int = 5_000_000_000,
) -> None:
    """Writes model.safetensors; or several files of at most some size and their index.

    Args:
        folder: An existing folder; see `tfllm.aside.write_folder`.
        layout: What will come, in this order.
        arrays: The names of `layout` in its order, each with its array. One is held at a time.
        max_file_bytes: As many bytes of tensors a file may have, unless one alone has more.

    Raises:
        ValueError: an array is not what `layout` says.
    """
    parts: list[dict[str, StoredTensor]] = [{}]
    for name, tensor in layout.items():
        taken = sum(other.num_bytes for other in parts[-1].values())
        if parts[-1] and taken + tensor.num_bytes > max_file_bytes:
            parts.append({})
        parts[-1][name] = tensor
    if len(parts) == 1:
        write_safetensors(Path(folder) / _NAMES[0], layout, arrays)
        return
    index = {}
    for number, part in enumerate(parts, start=1):
        file = f"model-{number:05}-of-{len(parts):05}.safetensors"
        write_safetensors(Path(folder) / file, part, arrays)
        index.update(dict.fromkeys(part, file))
    total = sum(tensor.num_bytes for tensor in layout.values())
    text = json.dumps({"metadata": {"total_size": total}, "weight_map": index}, indent=2)
    (Path(folder) / _NAMES[1]).write_text(text + "\n", encoding="ascii")
