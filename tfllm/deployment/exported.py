"""What an export says that decides how it is served."""

from __future__ import annotations

import math
import os
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import tensorflow as tf
from tensorflow_serving.apis import prediction_log_pb2

from tfllm import contract
from tfllm.errors import UserError
from tfllm.export import inspect_export

# Signatures that multiply no matrix.
_LIGHT = {contract.TOKENIZE, contract.DETOKENIZE, contract.DESCRIBE}


@dataclass(frozen=True)
class Exported:
    """The newest version of a model.

    Attributes:
        name: Of the model: that of its folder.
        base: The folder of its versions.
        version: The newest.
        weights_bytes: On disk, as served.
        num_weights: Numbers in them.
        width: The model width: the dimension that most matrices have.
        precision: "float32", "bfloat16" or "int8".
        context_length: Tokens of a row at most.
        passes: Over the weights for one request by the defaults: a generator's new tokens, else 1.
        warm_rows: The most rows of a warm-up request.
        packed: Warmed-up signatures that keep the matrices once more, packed.
        ragged: Signatures with an input whose further dimensions may differ between requests.
        tensorflow: The version that wrote it.
        sessions: Texts that it keeps in the server from call to call; 0 = it has no such calls.
        session_bytes: Of their memory.
    """

    name: str
    base: Path
    version: int
    weights_bytes: int
    num_weights: int
    width: int
    precision: str
    context_length: int
    passes: int
    warm_rows: int
    packed: int
    ragged: tuple[str, ...]
    tensorflow: str
    sessions: int = 0
    session_bytes: int = 0


def read_export(base: str | os.PathLike) -> Exported:
    """What the newest version below a base path is.

    Raises:
        UserError: there is no version, or the newest one is no export of tfllm or damaged.
    """
    base = Path(os.path.abspath(base))
    versions = [int(path.name) for path in base.glob("*") if path.name.isdecimal()]
    if not versions:
        raise UserError(f"{base} has no versions: name the folder that holds them, as models/gpt.")
    folder = base / str(max(versions))
    told = inspect_export(folder)
    metadata, signatures = told["metadata"], told["signatures"]
    if not metadata:
        raise UserError(
            f"{folder} is no export of tfllm: it has no {contract.METADATA_FILE}, from which the "
            "values are chosen."
        )
    shapes = tf.train.load_checkpoint(folder / "variables" / "variables")
    shapes = list(shapes.get_variable_to_shape_map().values())
    precision = metadata["precision"]
    warmed = _warmed(folder)
    return Exported(
        name=base.name,
        base=base,
        version=max(versions),
        weights_bytes=sum(path.stat().st_size for path in (folder / "variables").iterdir()),
        num_weights=sum(math.prod(shape) for shape in shapes),
        width=_width(shapes),
        precision=precision,
        context_length=metadata.get("context_length", 1),
        passes=_passes(signatures),
        warm_rows=max(warmed.values(), default=1),
        packed=0 if precision == "float32" else len(set(warmed) - _LIGHT),
        ragged=tuple(
            name
            for name, signature in signatures.items()
            if any(-1 in tensor["shape"][1:] for tensor in signature["inputs"].values())
        ),
        tensorflow=metadata["tensorflow"],
        sessions=metadata.get("sessions", 0),
        session_bytes=metadata.get("session_bytes", 0),
    )


def _width(shapes: list[list[int]]) -> int:
    dims = Counter(dim for shape in shapes if len(shape) == 2 for dim in shape)
    return dims.most_common(1)[0][0] if dims else 1


def _passes(signatures: dict[str, Any]) -> int:
    inputs = signatures.get(contract.GENERATE, {"inputs": {}})["inputs"]
    (new_tokens,) = inputs.get("max_new_tokens", {}).get("default", [1])
    return new_tokens


def _warmed(folder: Path) -> dict[str, int]:
    """The most rows of a warm-up request, by signature."""
    path = folder / contract.WARMUP_FILE
    rows: dict[str, int] = {}
    if not path.is_file():
        return rows
    for record in tf.data.TFRecordDataset(str(path)).as_numpy_iterator():
        request = prediction_log_pb2.PredictionLog.FromString(record).predict_log.request
        most = max(tensor.tensor_shape.dim[0].size for tensor in request.inputs.values())
        name = request.model_spec.signature_name
        rows[name] = max(most, rows.get(name, 1))
    return rows
