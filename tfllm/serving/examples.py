"""The `Input` of Classify, Regress and MultiInference: rows as `tf.Example` messages.

Source:
    tensorflow_serving/servables/tensorflow/util.cc and {classifier,regressor}.cc, read for the
    behaviour and the texts.
"""

from __future__ import annotations

import numpy as np
from tensorflow.core.framework import types_pb2
from tensorflow.core.protobuf import meta_graph_pb2
from tensorflow_serving.apis import input_pb2, model_pb2

from tfllm import contract
from tfllm.serving.servables import Servable
from tfllm.serving.status import Code, ServingError
from tfllm.serving.tensors import dtype_number


def invalid(message: str) -> ServingError:
    """What most of the checks answer with."""
    return ServingError(Code.INVALID_ARGUMENT, message)


def signature_name(spec: model_pb2.ModelSpec) -> str:
    """The name that is asked for, or that of the default signature."""
    return spec.signature_name or contract.SERVING_DEFAULT


def signature_of(servable: Servable, spec: model_pb2.ModelSpec) -> meta_graph_pb2.SignatureDef:
    """The signature that is asked for.

    Raises:
        ServingError: INVALID_ARGUMENT where Predict answers FAILED_PRECONDITION.
    """
    name = signature_name(spec)
    if name not in servable.signatures:
        raise invalid(f"No signature was found with the name: {name}")
    return servable.signatures[name]


def serialized_examples(sent: input_pb2.Input) -> np.ndarray:
    """bytes[b], each row as one serialized `tf.Example`.

    The context stands before each example: of two messages in a row, the fields of the second win.

    Raises:
        ServingError: there is no row.
    """
    context, examples = b"", sent.example_list.examples
    if sent.WhichOneof("kind") == "example_list_with_context":
        context = sent.example_list_with_context.context.SerializeToString()
        examples = sent.example_list_with_context.examples
    if not examples:
        raise invalid("Input is empty.")
    rows = np.empty(len(examples), object)
    rows[:] = [context + example.SerializeToString() for example in examples]
    return rows


def shape_text(array: np.ndarray) -> str:
    """The shape as the stock server writes it: `[2,3]`."""
    return "[" + ",".join(map(str, array.shape)) + "]"


def dtype_text(array: np.ndarray) -> str:
    """The dtype as the stock server writes it: `DT_INT64`."""
    return types_pb2.DataType.Name(dtype_number(array.dtype))
