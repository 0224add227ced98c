"""Classify and Regress as JSON: `tf.Example`s as objects of features, results as lists.

Source:
    tensorflow_serving/util/json_tensor.cc, read for the behaviour and the texts.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from tensorflow.core.example import example_pb2, feature_pb2
from tensorflow_serving.apis import classification_pb2, input_pb2, regression_pb2

from tfllm.serving.rest_json import decimals, invalid, nested, quoted, string, type_name, utf8
from tfllm.serving.rest_tensors import from_base64, is_base64

CONTEXT, EXAMPLES, RESULTS = "context", "examples", "results"

_KINDS = {"bytes_list": "bytes", "float_list": "float", "int64_list": "int64"}
_MAX_FLOAT = float(np.finfo(np.float32).max)


def input_of(document: Mapping[str, Any]) -> input_pb2.Input:
    """The examples of a request, with their common context if there is one.

    Raises:
        ServingError: INVALID_ARGUMENT for what is not of this form.
    """
    found = input_pb2.Input()
    if CONTEXT in document:
        _fill(document[CONTEXT], found.example_list_with_context.context)
    if EXAMPLES not in document:
        raise invalid(
            f"JSON Value: {quoted(document)} When method is classify, key '{EXAMPLES}' is expected "
            "and was not found"
        )
    examples = document[EXAMPLES]
    if not isinstance(examples, list):
        message = f"JSON Value: {quoted(document)} Expecting '{EXAMPLES}' value to be an list/array"
        raise invalid(message)
    if not examples:
        raise invalid(f"JSON Value: {quoted(document)} '{EXAMPLES}' value is an empty array")
    filled = found.example_list_with_context if CONTEXT in document else found.example_list
    for example in examples:
        _fill(example, filled.examples.add())
    return found


def classes_body(result: classification_pb2.ClassificationResult) -> str:
    """A list of [label, score] for each example.

    Raises:
        ServingError: INVALID_ARGUMENT for no classes at all.
    """
    if not result.classifications:
        raise invalid("Cannot convert empty ClassificationResults to JSON")
    rows = []
    for classifications in result.classifications:
        classes = classifications.classes
        scores = decimals(np.array([one.score for one in classes], np.float32))
        pairs = zip(classes, scores, strict=True)
        rows.append("[" + ", ".join(f"[{string(one.label)}, {s}]" for one, s in pairs) + "]")
    return _body(rows)


def values_body(result: regression_pb2.RegressionResult) -> str:
    """A number for each example.

    Raises:
        ServingError: INVALID_ARGUMENT for no numbers at all.
    """
    if not result.regressions:
        raise invalid("Cannot convert empty RegressionResults to JSON")
    return _body(decimals(np.array([one.value for one in result.regressions], np.float32)))


def _body(rows: list[str]) -> str:
    return f'{{\n    "{RESULTS}": {nested(rows, [len(rows)])[0]}\n}}'


def _fill(value: Any, example: example_pb2.Example) -> None:
    if not isinstance(value, dict):
        raise invalid(f"Example must be JSON object but got JSON {type_name(value)}")
    for name, content in value.items():
        # A proto3 string has no place for half of a surrogate pair or bytes that are no UTF-8.
        name = name.encode(errors="replace").decode()
        feature = example.features.feature[name]
        for item in content if isinstance(content, list) else [content]:
            _add(item, name, feature)


def _add(value: Any, name: str, feature: feature_pb2.Feature) -> None:
    """Adds a value; the first one decides the feature's kind."""
    if (
        value is None
        or isinstance(value, list)
        or (isinstance(value, dict) and not is_base64(value))
    ):
        type_text = type_name(value)
        raise invalid(f"Feature: {name} has element with unexpected JSON type: {type_text}")
    is_whole = isinstance(value, int) and -(2**63) <= value < 2**64
    kind = "float_list"
    if isinstance(value, str | dict):
        kind = "bytes_list"
    elif is_whole:
        kind = "int64_list"
    if (current := feature.WhichOneof("kind")) not in (None, kind):
        expected = _KINDS[str(current)]
        raise invalid(f"Unexpected element type in feature: {name} expecting type: {expected}")
    if kind == "bytes_list":
        data = utf8(value) if isinstance(value, str) else from_base64(value)
        feature.bytes_list.value.append(data)
    elif kind == "int64_list":
        if value >= 2**63:
            message = f"Feature: {name} has uint64 element. Only int64 is supported."
            raise invalid(message)
        feature.int64_list.value.append(int(value))
    else:
        if abs(value) > _MAX_FLOAT and abs(value) != float("inf"):
            message = f"Cannot convert JSON value: {quoted(value)} to float"
            raise invalid(message + " without loss of precision.")
        feature.float_list.value.append(value)
