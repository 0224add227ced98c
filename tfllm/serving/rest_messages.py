"""Requests and answers of TensorFlow Serving's REST, columnar, as JSON.

Source:
    https://www.tensorflow.org/tfx/serving/api_rest; protocol buffers as JSON:
    https://protobuf.dev/programming-guides/json
"""

from __future__ import annotations

import base64
import json
import math
from collections.abc import Mapping
from typing import Any

import numpy as np

from tfllm.serving.metadata import (
    INIT_OP,
    SIGNATURE_DEF,
    Metadata,
    SignatureInfo,
    TensorInfo,
    VersionStatus,
)
from tfllm.serving.status import Code

_NAMES = {"FLOAT": "float32", "DOUBLE": "float64", "HALF": "float16"}
# Where a TensorProto has the values of a dtype; of all others in `int_val`.
_FIELDS = {
    "string": "string_val",
    "float32": "float_val",
    "float64": "double_val",
    "int64": "int64_val",
    "uint32": "uint32_val",
    "uint64": "uint64_val",
    "bool": "bool_val",
}


def request(inputs: Mapping[str, np.ndarray], signature_name: str) -> bytes:
    """The body of a Predict."""
    columns = {name: _sendable(array.tolist()) for name, array in inputs.items()}
    return json.dumps({"signature_name": signature_name, "inputs": columns}).encode()


def _sendable(value: Any) -> Any:
    if isinstance(value, list):
        return [_sendable(each) for each in value]
    if not isinstance(value, bytes):
        return value
    try:
        return value.decode()
    except UnicodeDecodeError:
        return {"b64": base64.b64encode(value).decode()}


def outputs(told: Mapping[str, Any], known: Mapping[str, TensorInfo]) -> dict[str, np.ndarray]:
    """The arrays of a Predict's answer.

    Args:
        told: The answer. What is under "outputs" is an object with several names, or the only
            output.
        known: The outputs of the signature.
    """
    columns = told.get("outputs")
    if not isinstance(columns, dict) or columns.keys() == {"b64"}:
        columns = {name: columns for name in list(known)[:1]}
    return {
        name: _array(value, known[name].dtype if name in known else None)
        for name, value in columns.items()
    }


def _array(value: Any, dtype: str | None) -> np.ndarray:
    value = _received(value)
    if dtype == "string":
        return np.array(value, object)
    if dtype in (None, "bfloat16"):  # of which numpy knows nothing
        return np.asarray(value, None if dtype is None else np.float32)
    return np.asarray(value, dtype)


def _received(value: Any) -> Any:
    if isinstance(value, list):
        return [_received(each) for each in value]
    if isinstance(value, dict):
        return base64.b64decode(value["b64"])
    return value.encode() if isinstance(value, str) else value


def metadata(told: Mapping[str, Any]) -> Metadata:
    """The signatures in an answer about the metadata."""
    spec = told["model_spec"]
    signatures = told["metadata"][SIGNATURE_DEF][SIGNATURE_DEF]
    return Metadata(
        spec["name"],
        int(spec["version"]),
        {
            name: _signature(signature)
            for name, signature in sorted(signatures.items())
            if name != INIT_OP
        },
    )


def status(told: Mapping[str, Any]) -> list[VersionStatus]:
    """The versions in an answer about the status."""
    return [
        VersionStatus(
            int(version["version"]),
            version["state"],
            Code[version["status"]["error_code"]],
            version["status"].get("error_message", ""),
        )
        for version in told.get("model_version_status", ())
    ]


def _signature(told: Mapping[str, Any]) -> SignatureInfo:
    defaults = told.get("defaults", {})
    return SignatureInfo(
        {
            name: _tensor(info, defaults.get(name))
            for name, info in sorted(told.get("inputs", {}).items())
        },
        {name: _tensor(info, None) for name, info in sorted(told.get("outputs", {}).items())},
    )


def _tensor(told: Mapping[str, Any], default: Mapping[str, Any] | None) -> TensorInfo:
    sizes = _shape(told["tensor_shape"])
    dims = None if sizes is None else tuple(None if size < 0 else size for size in sizes)
    return TensorInfo(_dtype(told["dtype"]), dims, None if default is None else _values(default))


def _shape(told: Mapping[str, Any]) -> list[int] | None:
    if told.get("unknown_rank"):
        return None
    return [int(dim.get("size", 0)) for dim in told.get("dim", ())]


def _dtype(name: str) -> str:
    """DT_FLOAT is float32, DT_STRING string."""
    name = name.removeprefix("DT_")
    return _NAMES.get(name, name.lower())


def _values(told: Mapping[str, Any]) -> np.ndarray:
    """A TensorProto in JSON as an array; fewer values than its shape has repeat the last one."""
    dtype, shape = _dtype(told["dtype"]), _shape(told.get("tensor_shape", {})) or []
    if content := told.get("tensor_content"):
        return np.frombuffer(base64.b64decode(content), dtype).reshape(shape)
    sent = list(told.get(_FIELDS.get(dtype, "int_val"), ()))
    if dtype == "string":
        sent = [base64.b64decode(value) for value in sent]
    elif dtype.startswith("float"):
        sent = [float(value) for value in sent]  # a str for NaN and the infinities
    elif dtype != "bool":
        sent = [int(value) for value in sent]  # a str for 64 bits
    sent = sent or [b"" if dtype == "string" else 0]
    sent += sent[-1:] * (math.prod(shape) - len(sent))
    return np.array(sent, object if dtype == "string" else dtype).reshape(shape)
