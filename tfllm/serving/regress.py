"""Regress: examples in, one number for each of them out.

Source:
    tensorflow_serving/servables/tensorflow/regressor.cc, read for the behaviour and the texts.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from tensorflow.core.protobuf import meta_graph_pb2
from tensorflow_serving.apis import regression_pb2

from tfllm.serving.examples import Method, dtype_text, invalid, shape_text
from tfllm.serving.servables import Servable
from tfllm.serving.status import Code, ServingError

METHOD = "tensorflow/serving/regress"
INPUTS, OUTPUTS = "inputs", "outputs"


def regress(
    servable: Servable, request: regression_pb2.RegressionRequest
) -> regression_pb2.RegressionResponse:
    """Runs one request; the response's `model_spec` still lacks the version.

    Raises:
        ServingError: INVALID_ARGUMENT for a signature that is no regressor or an output of another
            shape, FAILED_PRECONDITION for one with other names, or what the ops raised.
    """
    return Method("Regress", tensors_of, result, regression_pb2.RegressionResponse).answer(
        servable, request
    )


def tensors_of(signature: meta_graph_pb2.SignatureDef) -> tuple[str, list[str]]:
    """The names of the tensor to feed and of the one to fetch.

    The method that the signature names is not looked at, as in the stock server by default.

    Raises:
        ServingError: the signature is not of the form of a regressor.
    """
    if len(signature.inputs) != 1:
        raise invalid("Expected one input Tensor.")
    if len(signature.outputs) != 1:
        raise invalid("Expected one output Tensor.")
    for kind, name, infos in (
        ("inputs", INPUTS, signature.inputs),
        ("outputs", OUTPUTS, signature.outputs),
    ):
        if name not in infos:
            message = f"No regression {kind} found in SignatureDef: {signature}"
            raise ServingError(Code.FAILED_PRECONDITION, message)
    return signature.inputs[INPUTS].name, [signature.outputs[OUTPUTS].name]


def result(
    signature: meta_graph_pb2.SignatureDef, arrays: Mapping[str, np.ndarray], num_examples: int
) -> regression_pb2.RegressionResult:
    """The number of every example.

    Args:
        signature: One that `tensors_of` accepts.
        arrays: By tensor name: float32[b] or float32[b, 1].
        num_examples: b.

    Raises:
        ServingError: an output of another shape or dtype.
    """
    array = arrays[signature.outputs[OUTPUTS].name]
    if not (array.ndim == 1 or (array.ndim == 2 and array.shape[1] == 1)):
        raise invalid(
            "Expected output Tensor shape to be either [batch_size] or [batch_size, 1] but got "
            + shape_text(array)
        )
    if len(array) != num_examples:
        raise invalid(
            f"Input batch size did not match output batch size: {num_examples} vs. {len(array)}"
        )
    if (got := dtype_text(array)) != "DT_FLOAT":
        raise invalid(f"Expected output Tensor of DT_FLOAT.  Got: {got}")
    found = regression_pb2.RegressionResult()
    for value in array.ravel().tolist():
        found.regressions.add(value=value)
    return found
