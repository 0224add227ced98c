"""MultiInference: several signatures of one model on the same examples, in one run.

Source:
    tensorflow_serving/servables/tensorflow/multi_inference.cc, read for the behaviour and the
    texts.
"""

from __future__ import annotations

import numpy as np
from tensorflow_serving.apis import inference_pb2, model_pb2

from tfllm.serving import classify, regress
from tfllm.serving.examples import invalid, serialized_examples, signature_name
from tfllm.serving.servables import Servable
from tfllm.serving.status import Code, ServingError


def asked_model(request: inference_pb2.MultiInferenceRequest) -> model_pb2.ModelSpec:
    """Which model and version the request is for: the first task says it."""
    return request.tasks[0].model_spec if request.tasks else model_pb2.ModelSpec()


def multi_inference(
    servable: Servable, request: inference_pb2.MultiInferenceRequest
) -> inference_pb2.MultiInferenceResponse:
    """Runs one request; the `model_spec` of every result still lacks the version.

    Raises:
        ServingError: tasks that do not go together, a method that is neither Classify's nor
            Regress's (UNIMPLEMENTED), or what these two raise.
    """
    feed, fetches = _tensors_of(servable, request)
    examples = serialized_examples(request.input)
    values = servable.run([(feed, examples)], fetches)
    arrays = dict(zip(fetches, map(np.asarray, values), strict=True))
    response = inference_pb2.MultiInferenceResponse()
    for task in request.tasks:
        name = signature_name(task.model_spec)
        signature, added = servable.signatures[name], response.results.add()
        if task.method_name == classify.METHOD:
            found = classify.result(signature, arrays, len(examples))
            added.classification_result.CopyFrom(found)
        else:
            added.regression_result.CopyFrom(regress.result(signature, arrays, len(examples)))
        added.model_spec.name = task.model_spec.name
        added.model_spec.signature_name = name
    return response


def _tensors_of(servable: Servable, request) -> tuple[str, list[str]]:
    """The one tensor to feed and all to fetch."""
    feeds: list[str] = []
    fetches: set[str] = set()
    names: list[str] = []
    for task in request.tasks:
        if not task.model_spec.name:
            raise invalid("Found ModelSpec with an empty model name.")
        if task.model_spec.name != request.tasks[0].model_spec.name:
            raise invalid(
                "All ModelSpecs in a MultiInferenceRequest must access the same model name."
            )
        name = signature_name(task.model_spec)
        if name in names:
            raise invalid(f"Duplicate evaluation of signature: {name}")
        names.append(name)
        if name not in servable.signatures:
            raise invalid(f"Requested signature not found in model graph: {name}")
        if task.method_name == classify.METHOD:
            feed, outputs = classify.tensors_of(servable.signatures[name])
        elif task.method_name == regress.METHOD:
            feed, outputs = regress.tensors_of(servable.signatures[name])
        else:
            message = f"Unsupported signature method_name: {task.method_name}"
            raise ServingError(Code.UNIMPLEMENTED, message)
        if feeds and feed != feeds[0]:
            raise invalid("Input tensor must be the same for all Signatures.")
        feeds.append(feed)
        fetches.update(outputs)
    return feeds[0], sorted(fetches)
