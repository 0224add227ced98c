"""The `Input` of Classify, Regress and MultiInference: rows as `tf.Example` messages.

Source:
    tensorflow_serving/servables/tensorflow/util.cc and {classifier,regressor}.cc, read for the
    behaviour and the texts.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import numpy as np
from google.protobuf.message import Message
from tensorflow.core.framework import types_pb2
from tensorflow.core.protobuf import meta_graph_pb2
from tensorflow_serving.apis import input_pb2, model_pb2

from tfllm import contract
from tfllm.serving.metrics import model_run
from tfllm.serving.servables import Servable
from tfllm.serving.status import Code, ServingError
from tfllm.serving.tensors import dtype_number


class Method(NamedTuple):
    """What Classify and Regress differ in.

    Attributes:
        name: Of the RPC.
        tensors_of: The names of the tensor to feed and of those to fetch, by a signature.
        result: The message of a result, by a signature, the arrays by tensor name and the number
            of examples.
        response: The class of the response.
    """

    name: str
    tensors_of: Callable[[meta_graph_pb2.SignatureDef], tuple[str, list[str]]]
    result: Callable[[meta_graph_pb2.SignatureDef, Mapping[str, np.ndarray], int], Message]
    response: Callable[[], Any]

    def answer(self, servable: Servable, request: Any) -> Any:
        """Runs one request; the response's `model_spec` still lacks the version.

        Raises:
            ServingError: a signature of another form, no examples, outputs of another shape or
                dtype, or what the ops raised.
        """
        signature = signature_of(servable, request.model_spec)
        feed, fetches = self.tensors_of(signature)
        examples = serialized_examples(request.input)
        with model_run(request.model_spec.name, self.name):
            values = servable.run([(feed, examples)], fetches)
        response = self.response()
        arrays = dict(zip(fetches, map(np.asarray, values), strict=True))
        response.result.CopyFrom(self.result(signature, arrays, len(examples)))
        response.model_spec.name = request.model_spec.name
        response.model_spec.signature_name = signature_name(request.model_spec)
        return response


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
