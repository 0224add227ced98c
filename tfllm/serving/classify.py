"""Classify: examples in, for each of them classes with a label, a score or both.

Source:
    tensorflow_serving/servables/tensorflow/classifier.cc, read for the behaviour and the texts.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from tensorflow.core.protobuf import meta_graph_pb2
from tensorflow_serving.apis import classification_pb2

from tfllm.serving.examples import Method, dtype_text, invalid, shape_text
from tfllm.serving.servables import Servable
from tfllm.serving.status import Code, ServingError

METHOD = "tensorflow/serving/classify"
INPUTS, CLASSES, SCORES = "inputs", "classes", "scores"


def classify(
    servable: Servable, request: classification_pb2.ClassificationRequest
) -> classification_pb2.ClassificationResponse:
    """Runs one request; the response's `model_spec` still lacks the version.

    Raises:
        ServingError: INVALID_ARGUMENT for a signature that is no classifier or outputs of another
            shape, FAILED_PRECONDITION for one with other names, or what the ops raised.
    """
    return Method("Classify", tensors_of, result, classification_pb2.ClassificationResponse).answer(
        servable, request
    )


def tensors_of(signature: meta_graph_pb2.SignatureDef) -> tuple[str, list[str]]:
    """The names of the tensor to feed and of the one or two to fetch.

    The method that the signature names is not looked at, as in the stock server by default.

    Raises:
        ServingError: the signature is not of the form of a classifier.
    """
    if len(signature.inputs) != 1:
        raise invalid("Expected one input Tensor.")
    if len(signature.outputs) not in (1, 2):
        raise invalid(f"Expected one or two output Tensors, found {len(signature.outputs)}")
    if INPUTS not in signature.inputs:
        message = f"No classification inputs found in SignatureDef: {signature}"
        raise ServingError(Code.FAILED_PRECONDITION, message)
    fetches = [
        signature.outputs[name].name for name in (CLASSES, SCORES) if name in signature.outputs
    ]
    if not fetches:
        raise ServingError(
            Code.FAILED_PRECONDITION,
            "Expected classification signature outputs to contain at least one of "
            f'"{CLASSES}" or "{SCORES}". Signature was: {signature}',
        )
    return signature.inputs[INPUTS].name, fetches


def result(
    signature: meta_graph_pb2.SignatureDef, arrays: Mapping[str, np.ndarray], num_examples: int
) -> classification_pb2.ClassificationResult:
    """The classes of every example.

    Args:
        signature: One that `tensors_of` accepts.
        arrays: By tensor name: classes string[b, c], scores float32[b, c].
        num_examples: b.

    Raises:
        ServingError: an output of another shape or dtype.
    """
    classes = _output(signature, arrays, CLASSES, num_examples)
    scores = _output(signature, arrays, SCORES, num_examples)
    if classes is not None and scores is not None and classes.shape != scores.shape:
        raise invalid(
            "Tensors class and score should match in dim_size(1). Got "
            f"{classes.shape[1]} vs. {scores.shape[1]}"
        )
    found = classification_pb2.ClassificationResult()
    num_classes = next(a.shape[1] for a in (classes, scores) if a is not None)
    labels = None if classes is None else classes.tolist()
    numbers = None if scores is None else scores.tolist()
    for row in range(num_examples):
        added = found.classifications.add().classes
        for c in range(num_classes):
            one = added.add()
            if labels is not None:
                one.label = _text(labels[row][c])
            if numbers is not None:
                one.score = numbers[row][c]
    return found


def _output(signature, arrays, name: str, num_examples: int) -> np.ndarray | None:
    if name not in signature.outputs:
        return None
    array = arrays[signature.outputs[name].name]
    if array.ndim != 2:
        raise invalid(
            f"Expected Tensor shape: [batch_size num_classes] but got {shape_text(array)}"
        )
    expected = "DT_STRING" if name == CLASSES else "DT_FLOAT"
    if (got := dtype_text(array)) != expected:
        raise invalid(f"Expected {name} Tensor of {expected}. Got: {got}")
    if len(array) != num_examples:
        raise invalid(f"Expected {name} output batch size of {num_examples}. Got: {len(array)}")
    return array


def _text(label: bytes) -> str:
    # The field is a proto3 string: bytes that are no UTF-8 cannot be sent in it.
    return label.decode(errors="replace")
