"""Predict: a request's tensors through a signature and back.

Checks come in the stock server's order, with its codes and texts.

Source:
    tensorflow_serving/servables/tensorflow/predict_util.cc and tensorflow/cc/saved_model/util.cc,
    read for the behaviour.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import numpy as np
from tensorflow.core.framework import tensor_pb2
from tensorflow.core.protobuf import meta_graph_pb2
from tensorflow_serving.apis import predict_pb2

from tfllm import contract
from tfllm.serving.metrics import model_run
from tfllm.serving.servables import Servable
from tfllm.serving.status import Code, ServingError
from tfllm.serving.tensors import decode, encode


def predict(servable: Servable, request: predict_pb2.PredictRequest) -> predict_pb2.PredictResponse:
    """Runs one request; the response's `model_spec` still lacks the version.

    Raises:
        ServingError: FAILED_PRECONDITION for an unknown signature, INVALID_ARGUMENT for inputs or
            outputs that do not fit it, or what the ops raised.
    """
    name = request.model_spec.signature_name or contract.SERVING_DEFAULT
    if name not in servable.signatures:
        message = f'Serving signature key "{name}" not found.'
        raise ServingError(Code.FAILED_PRECONDITION, message)
    signature = servable.signatures[name]
    feeds = _feeds(signature, request.inputs)
    aliases = _fetched(signature, request.output_filter)
    with model_run(request.model_spec.name, "Predict"):
        values = servable.run(feeds, [signature.outputs[alias].name for alias in aliases])
    response = predict_pb2.PredictResponse()
    response.model_spec.name = request.model_spec.name
    response.model_spec.signature_name = name
    for alias, value in zip(aliases, values, strict=True):
        encode(value, into=response.outputs[alias])
    return response


def _feeds(
    signature: meta_graph_pb2.SignatureDef, sent: Mapping[str, tensor_pb2.TensorProto]
) -> list[tuple[str, np.ndarray]]:
    """Tensor names and arrays: what was sent, and the signature's defaults."""
    wanted = set(signature.inputs)
    if len(sent) > len(wanted) or (len(sent) < len(wanted) and not signature.defaults):
        raise ServingError(
            Code.INVALID_ARGUMENT,
            f"input size does not match signature: {len(sent)}!={len(wanted)} "
            f"len({_names(sent)}) != len({_names(wanted)}). "
            f"Sent extra: {_names(set(sent) - wanted)}. "
            f"Missing but required: {_names(wanted - set(sent))}.",
        )
    feeds = []
    for alias, info in sorted(signature.inputs.items()):
        if alias in sent:
            proto = sent[alias]
        elif alias in signature.defaults:
            proto = signature.defaults[alias]
        else:
            raise ServingError(
                Code.INVALID_ARGUMENT,
                f"Signature input alias: {alias}(feed name: {info.name}) not found in request and "
                "no default value provided. Inputs expected to be in the request "
                f"{_names(sent)}, or default input alias set: {_joined(signature.defaults)}",
            )
        try:
            feeds.append((info.name, decode(proto)))
        except (ValueError, MemoryError) as error:
            message = f"tensor parsing error: {alias}"
            raise ServingError(Code.INVALID_ARGUMENT, message) from error
    used = wanted & set(sent)
    if len(used) != len(sent):
        raise ServingError(
            Code.INVALID_ARGUMENT,
            f"Inputs contains invalid name. Used request inputs: {_joined(used)}, "
            f"request input: {_joined(sent)}",
        )
    return feeds


def _fetched(signature: meta_graph_pb2.SignatureDef, output_filter: Iterable[str]) -> list[str]:
    """The aliases of the outputs to compute: those of the filter, or all."""
    aliases: list[str] = []
    for alias in output_filter:
        if alias not in signature.outputs:
            raise ServingError(
                Code.INVALID_ARGUMENT,
                f"output tensor alias not found in signature: {alias} "
                f"Outputs expected to be in the set {_names(signature.outputs)}.",
            )
        if alias in aliases:
            raise ServingError(Code.INVALID_ARGUMENT, f"duplicate output tensor alias: {alias}")
        aliases.append(alias)
    return aliases or sorted(signature.outputs)


def _joined(names: Iterable[str]) -> str:
    return ",".join(sorted(names))


def _names(names: Iterable[str]) -> str:
    return "{" + _joined(names) + "}"
