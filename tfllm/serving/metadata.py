"""What a served model takes and gives: the answer of GetModelMetadata, typed."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from tensorflow.core.protobuf import meta_graph_pb2
from tensorflow_serving.apis import get_model_metadata_pb2

from tfllm.serving.tensors import decode, dtype_name

SIGNATURE_DEF = "signature_def"
_INIT_OP = "__saved_model_init_op"  # in the map of signatures, but nothing to call


class TensorInfo(NamedTuple):
    """One input or output.

    Attributes:
        dtype: "float32", "string", …
        shape: None for a free dimension; None altogether when even the rank is free.
        default: What an input is when a gRPC client leaves it out; None = required.
    """

    dtype: str
    shape: tuple[int | None, ...] | None
    default: np.ndarray | None = None


class SignatureInfo(NamedTuple):
    """The inputs and outputs of one signature by name."""

    inputs: dict[str, TensorInfo]
    outputs: dict[str, TensorInfo]


class Metadata(NamedTuple):
    """A model's name, the version that answered, and its signatures by name."""

    name: str
    version: int
    signatures: dict[str, SignatureInfo]


def parse(response: get_model_metadata_pb2.GetModelMetadataResponse) -> Metadata:
    """The response of a request for the field `signature_def`, typed."""
    signatures = get_model_metadata_pb2.SignatureDefMap()
    response.metadata[SIGNATURE_DEF].Unpack(signatures)
    return Metadata(
        response.model_spec.name,
        response.model_spec.version.value,
        {
            name: _signature(signature)
            for name, signature in sorted(signatures.signature_def.items())
            if name != _INIT_OP
        },
    )


def _signature(signature: meta_graph_pb2.SignatureDef) -> SignatureInfo:
    defaults = {name: decode(proto) for name, proto in signature.defaults.items()}
    return SignatureInfo(
        {
            name: _tensor(info, defaults.get(name))
            for name, info in sorted(signature.inputs.items())
        },
        {name: _tensor(info, None) for name, info in sorted(signature.outputs.items())},
    )


def _tensor(info: meta_graph_pb2.TensorInfo, default: np.ndarray | None) -> TensorInfo:
    shape = info.tensor_shape
    dims = tuple(None if dim.size < 0 else dim.size for dim in shape.dim)
    return TensorInfo(dtype_name(info.dtype), None if shape.unknown_rank else dims, default)
