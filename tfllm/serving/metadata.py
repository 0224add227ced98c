"""What a server tells of its models, typed."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from tfllm.serving.status import Code

SIGNATURE_DEF = "signature_def"
INIT_OP = "__saved_model_init_op"  # in the map of signatures, but nothing to call


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


class VersionStatus(NamedTuple):
    """What one version is doing.

    Attributes:
        version: Its number.
        state: START, LOADING, AVAILABLE, UNLOADING or END.
        error_code: Why it ended: OK unless it failed.
        error: The server's words for that.
    """

    version: int
    state: str
    error_code: Code
    error: str
