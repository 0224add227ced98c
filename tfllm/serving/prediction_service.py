"""The RPCs of `tensorflow.serving.PredictionService`.

Source:
    tensorflow_serving/servables/tensorflow/{predict,get_model_metadata}_impl.cc,
    {classification,regression}_service.cc and multi_inference_helper.cc, read for the behaviour.
"""

from __future__ import annotations

from tensorflow_serving.apis import get_model_metadata_pb2, prediction_service_pb2_grpc

from tfllm.serving import metrics
from tfllm.serving.classify import classify
from tfllm.serving.multi_inference import asked_model, multi_inference
from tfllm.serving.predict import predict
from tfllm.serving.regress import regress
from tfllm.serving.row_limit import check_rows
from tfllm.serving.rpc import answered
from tfllm.serving.status import Code, ServingError
from tfllm.serving.versions import Versions

SIGNATURE_DEF = "signature_def"


class PredictionService(prediction_service_pb2_grpc.PredictionServiceServicer):
    """Answers with the versions that are loaded.

    Args:
        versions: Where the loaded versions are found.
        max_rows: A request for more rows is refused; None takes any number.
    """

    def __init__(self, versions: Versions, max_rows: int | None = None):
        self._versions = versions
        self._max_rows = max_rows

    @answered
    def Predict(self, request, context):  # noqa: ARG002  the RPC's form
        return self._run(predict, request, "Predict")

    @answered
    def Classify(self, request, context):  # noqa: ARG002  the RPC's form
        return self._run(classify, request, "Classify")

    @answered
    def Regress(self, request, context):  # noqa: ARG002  the RPC's form
        return self._run(regress, request, "Regress")

    @answered
    def MultiInference(self, request, context):  # noqa: ARG002  the RPC's form
        spec = asked_model(request)
        name = self._versions.served_name(spec.name)
        with metrics.counted(name, "MultiInference", "GRPC"):
            check_rows(request, self._max_rows)
            with self._versions.lease(spec) as (version, servable):
                response = multi_inference(servable, request)
        for result in response.results:
            result.model_spec.version.value = version
        return response

    @answered
    def GetModelMetadata(self, request, context):  # noqa: ARG002  the RPC's form
        return model_metadata(self._versions, request)

    def _run(self, run, request, api: str):
        name = self._versions.served_name(request.model_spec.name)
        with metrics.counted(name, api, "GRPC") as started_at:
            if not request.HasField("model_spec"):
                raise ServingError(Code.INVALID_ARGUMENT, "Missing ModelSpec")
            check_rows(request, self._max_rows)
            with self._versions.lease(request.model_spec) as (version, servable):
                response = run(servable, request)
            response.model_spec.version.value = version
            if run is predict:
                metrics.count_predicted(request, response, started_at)
        return response


def model_metadata(
    versions: Versions, request: get_model_metadata_pb2.GetModelMetadataRequest
) -> get_model_metadata_pb2.GetModelMetadataResponse:
    """The signatures of a model.

    Raises:
        ServingError: INVALID_ARGUMENT for no model or another field than the signatures, NOT_FOUND
            for a model that is not there.
    """
    if not request.HasField("model_spec"):
        raise ServingError(Code.INVALID_ARGUMENT, "Missing ModelSpec")
    if not request.metadata_field:
        raise ServingError(
            Code.INVALID_ARGUMENT,
            "GetModelMetadataRequest must specify at least one metadata_field",
        )
    for field in request.metadata_field:
        if field != SIGNATURE_DEF:
            raise ServingError(Code.INVALID_ARGUMENT, f"Metadata field {field} is not supported")
    response = get_model_metadata_pb2.GetModelMetadataResponse()
    with versions.lease(request.model_spec) as (version, servable):
        signatures = get_model_metadata_pb2.SignatureDefMap()
        for name, signature in servable.signatures.items():
            signatures.signature_def[name].CopyFrom(signature)
    response.model_spec.name = request.model_spec.name
    response.model_spec.version.value = version
    response.metadata[SIGNATURE_DEF].Pack(signatures)
    return response
