"""What an export is and what it takes, read from its files without running it."""

import json
import os
from pathlib import Path
from typing import Any

import tensorflow as tf
from google.protobuf.message import DecodeError
from tensorflow.core.protobuf import saved_model_pb2

from tfllm import contract, rows
from tfllm.errors import UserError
from tfllm.export.precision import machines_for


def inspect_export(folder: str | os.PathLike) -> dict[str, Any]:
    """Describes a SavedModel, ours or another.

    Args:
        folder: A version folder.

    Returns:
        `metadata` (of `assets.extra/tfllm.json`; empty if it is not ours), `signatures` (inputs and
        outputs with dtype, shape and default), `ops` (names of all ops in the graph, sorted),
        `machines` (what can run it, for people to read; None if it is not ours) and `megabytes` on
        disk.

    Raises:
        UserError: there is no SavedModel, or it is damaged.
    """
    folder = Path(folder)
    path = folder / "saved_model.pb"
    if not path.is_file():
        raise UserError(
            f"No SavedModel in {folder}: expected saved_model.pb there. Name a version folder, as "
            "models/gpt/1."
        )
    saved_model = saved_model_pb2.SavedModel()
    try:
        saved_model.ParseFromString(path.read_bytes())
    except DecodeError as error:
        raise UserError(f"{path} is damaged: {error}") from None
    if not saved_model.meta_graphs:
        raise UserError(f"{path} is damaged: it holds no graph.")
    graph = saved_model.meta_graphs[0]
    ops = {node.op for node in graph.graph_def.node}
    for function in graph.graph_def.library.function:
        ops.update(node.op for node in function.node_def)
    size = sum(entry.stat().st_size for entry in folder.rglob("*") if entry.is_file())
    metadata = _metadata(folder / contract.METADATA_FILE)
    return {
        "metadata": metadata,
        "signatures": {
            name: _signature(signature)
            for name, signature in sorted(graph.signature_def.items())
            if not name.startswith("__")
        },
        "ops": sorted(ops),
        "machines": machines_for(ops) if metadata else None,
        "megabytes": round(size / 1e6, 3),
    }


def _metadata(path: Path) -> dict[str, Any]:
    if not path.is_file():
        return {}
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise UserError(f"{path} is damaged: {error}") from None


def _signature(signature) -> dict[str, Any]:
    def tensor(name, info):
        described = {
            "dtype": tf.as_dtype(info.dtype).name,
            "shape": [dim.size for dim in info.tensor_shape.dim],
        }
        if name in signature.defaults:
            default = tf.make_ndarray(signature.defaults[name]).tolist()
            described["default"] = rows.plain(default)
        return described

    return {
        "inputs": {name: tensor(name, info) for name, info in sorted(signature.inputs.items())},
        "outputs": {name: tensor(name, info) for name, info in sorted(signature.outputs.items())},
    }
