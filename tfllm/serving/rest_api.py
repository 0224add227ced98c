"""The paths of the stock server's REST API, answered with what gRPC answers with.

Source:
    tensorflow_serving/model_servers/{http_rest_api_handler,http_rest_api_util,http_server}.cc, read
    for the behaviour and the texts.
"""

from __future__ import annotations

import logging
import re
import traceback
from collections.abc import Callable
from typing import Any, NamedTuple
from urllib.parse import unquote

from google.protobuf import json_format
from tensorflow_serving.apis import (
    classification_pb2,
    get_model_metadata_pb2,
    get_model_status_pb2,
    model_pb2,
    predict_pb2,
    regression_pb2,
)

from tfllm import contract
from tfllm.serving import metrics, monitoring
from tfllm.serving.classify import classify
from tfllm.serving.model_service import model_status
from tfllm.serving.predict import predict
from tfllm.serving.prediction_service import SIGNATURE_DEF, model_metadata
from tfllm.serving.regress import regress
from tfllm.serving.rest_examples import classes_body, input_of, values_body
from tfllm.serving.rest_json import invalid, parse, quoted, string, to_bytes
from tfllm.serving.rest_predict import body_of, tensors_of
from tfllm.serving.row_limit import check_rows
from tfllm.serving.rpc import sent
from tfllm.serving.status import Code, ServingError
from tfllm.serving.versions import Versions

log = logging.getLogger(__name__)

METRICS_PATH = "/monitoring/prometheus/metrics"

HTTP_STATUSES = {
    Code.OK: 200,
    Code.CANCELLED: 499,
    Code.UNKNOWN: 500,
    Code.INVALID_ARGUMENT: 400,
    Code.DEADLINE_EXCEEDED: 504,
    Code.NOT_FOUND: 404,
    Code.ALREADY_EXISTS: 409,
    Code.PERMISSION_DENIED: 403,
    Code.RESOURCE_EXHAUSTED: 429,
    Code.FAILED_PRECONDITION: 400,
    Code.ABORTED: 409,
    Code.OUT_OF_RANGE: 400,
    Code.UNIMPLEMENTED: 501,
    Code.INTERNAL: 500,
    Code.UNAVAILABLE: 503,
    Code.DATA_LOSS: 500,
    Code.UNAUTHENTICATED: 401,
}

_MODEL = r"/v1/models/([^/:]+)(?:/versions/(\d+)|/labels/([^/:]+))?"
_POST = re.compile(rf"{_MODEL}:(classify|regress|predict)", re.IGNORECASE | re.ASCII)
_GET = re.compile(
    r"/v1/models(?:/([^/:]+))?(?:/versions/(\d+)|/labels/([^/:]+))?(?:/(metadata))?",
    re.IGNORECASE | re.ASCII,
)


class Answer(NamedTuple):
    """An HTTP response."""

    status: int
    content_type: str
    body: bytes


class RestApi:
    """Answers requests with the versions that are loaded; threads may call at once.

    Args:
        versions: Where the loaded versions are found.
        metrics_path: Where Prometheus finds the metrics; None has none.
        max_rows: A request for more rows is refused with 400; None takes any number.
    """

    def __init__(
        self,
        versions: Versions,
        metrics_path: str | None = METRICS_PATH,
        max_rows: int | None = None,
    ):
        self._versions = versions
        self._max_rows = max_rows
        self._metrics_path = metrics_path

    def answer(self, method: str, path: str, body: bytes) -> Answer:
        """What a request is answered with; raises nothing.

        Args:
            method: "GET" or "POST"; others are refused.
            path: As it was sent, percent-encoded, without the query.
            body: As it was sent.
        """
        if body and sent.isEnabledFor(logging.DEBUG):
            text = body.decode(errors="replace")
            sent.debug("%s %s %s", method, path, " ".join(text.split()))
        if path == self._metrics_path:
            return Answer(200, monitoring.CONTENT_TYPE, monitoring.page().encode())
        if not path.lower().startswith("/v1/"):
            return Answer(404, "application/json", error_body(f"Not Found: {path}"))
        try:
            return Answer(200, "application/json", to_bytes(self._answer(method, path, body)))
        except ServingError as error:
            return refusal(error.code, error.message)
        except Exception as error:  # noqa: BLE001  the outermost handler
            frames = "".join(traceback.format_tb(error.__traceback__))
            log.error("%s in %s %s\n%s", type(error).__name__, method, path, frames)
            return refusal(Code.INTERNAL, type(error).__name__)

    def _answer(self, method: str, path: str, body: bytes) -> str:
        pattern = {"POST": _POST, "GET": _GET}.get(method)
        found = pattern.fullmatch(path) if pattern else None
        name = unquote(found[1] or "") if found else ""
        call = found[4].lower() if found and method == "POST" else ""
        with metrics.counted(self._versions.served_name(name), call, "REST") as started_at:
            if found is None:
                raise invalid(f"Malformed request: {method} {path}")
            if not name:
                raise invalid("Missing model name in request.")
            spec = _spec(name, found[2], found[3])
            if call:
                return self._calls[call](self, spec, body, started_at)
            return self._metadata(spec) if found[4] else self._status(spec)

    def _predict(self, spec: model_pb2.ModelSpec, body: bytes, started_at: float) -> str:
        document = parse(body)
        _set_signature(spec, document)
        with self._versions.lease(spec) as (version, servable):
            name = spec.signature_name or contract.SERVING_DEFAULT
            if name not in servable.signatures:
                raise invalid(f'Serving signature name: "{name}" not found in signature def')
            infos = servable.signatures[name].inputs
            if not infos:
                wanted = spec.signature_name or "DEFAULT"
                raise invalid(f"Failed to get input map for signature: {wanted}")
            inputs, form = tensors_of(document, infos)
            request = predict_pb2.PredictRequest(model_spec=spec, inputs=inputs)
            check_rows(request, self._max_rows)
            response = predict(servable, request)
        response.model_spec.version.value = version
        metrics.count_predicted(request, response, started_at)
        return body_of(response.outputs, form)

    def _classify(self, spec: model_pb2.ModelSpec, body: bytes, _started_at: float) -> str:
        document = parse(body)
        _set_signature(spec, document)
        request = classification_pb2.ClassificationRequest(input=input_of(document))
        request.model_spec.CopyFrom(spec)
        check_rows(request, self._max_rows)
        with self._versions.lease(spec) as (_, servable):
            return classes_body(classify(servable, request).result)

    def _regress(self, spec: model_pb2.ModelSpec, body: bytes, _started_at: float) -> str:
        document = parse(body)
        _set_signature(spec, document)
        request = regression_pb2.RegressionRequest(input=input_of(document))
        request.model_spec.CopyFrom(spec)
        check_rows(request, self._max_rows)
        with self._versions.lease(spec) as (_, servable):
            return values_body(regress(servable, request).result)

    def _status(self, spec: model_pb2.ModelSpec) -> str:
        request = get_model_status_pb2.GetModelStatusRequest(model_spec=spec)
        return _message_text(model_status(self._versions, request))

    def _metadata(self, spec: model_pb2.ModelSpec) -> str:
        request = get_model_metadata_pb2.GetModelMetadataRequest(
            model_spec=spec, metadata_field=[SIGNATURE_DEF]
        )
        response = model_metadata(self._versions, request)
        signatures = get_model_metadata_pb2.SignatureDefMap()
        response.metadata[SIGNATURE_DEF].Unpack(signatures)
        # Not the message as it is: an `Any` would add its "@type".
        return (
            f'{{\n"model_spec":{_message_text(response.model_spec)},\n'
            f'"metadata": {{"signature_def": {_message_text(signatures)}}}\n}}\n'
        )

    _calls: dict[str, Callable[[RestApi, model_pb2.ModelSpec, bytes, float], str]] = {
        "predict": _predict,
        "classify": _classify,
        "regress": _regress,
    }


def refusal(code: Code, message: str) -> Answer:
    """The answer to a request that is refused."""
    return Answer(HTTP_STATUSES[code], "application/json", error_body(message))


def error_body(message: str) -> bytes:
    # An error may quote what is no Unicode.
    return f'{{\n    "error": {string(message)}\n}}'.encode(errors="replace")


def _spec(name: str, version: str | None, label: str | None) -> model_pb2.ModelSpec:
    spec = model_pb2.ModelSpec(name=name)
    if version is not None:
        if int(version) >= 2**63:
            raise invalid(f"Failed to convert version: {version} to numeric.")
        spec.version.value = int(version)
    if label is not None:
        spec.version_label = unquote(label)
    return spec


def _set_signature(spec: model_pb2.ModelSpec, document: dict[str, Any]) -> None:
    name = document.get("signature_name", "")
    if not isinstance(name, str):
        raise invalid(
            f"JSON Value: {quoted(document)} not formatted correctly. 'signature_name' key must be "
            "a string value."
        )
    spec.signature_name = name.encode(errors="replace").decode()


def _message_text(message) -> str:
    return json_format.MessageToJson(
        message,
        indent=1,
        always_print_fields_with_no_presence=True,
        preserving_proto_field_name=True,
        ensure_ascii=False,
    )
