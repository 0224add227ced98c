"""The RPCs of `tensorflow.serving.PredictionService`: Predict and GetModelMetadata.

Source:
    tensorflow_serving/servables/tensorflow/{predict,get_model_metadata}_impl.cc, read for the
    behaviour.
"""

from __future__ import annotations

from tensorflow_serving.apis import get_model_metadata_pb2, prediction_service_pb2_grpc

from tfllm.serving.predict import predict
from tfllm.serving.rpc import answered
from tfllm.serving.status import Code, ServingError
from tfllm.serving.versions import Versions

SIGNATURE_DEF = "signature_def"


class PredictionService(prediction_service_pb2_grpc.PredictionServiceServicer):
    """Answers with the versions that are loaded.

    Args:
        versions: Where the loaded versions are found.
    """

    def __init__(self, versions: Versions):
        self._versions = versions

    @answered
    def Predict(self, request, context):  # noqa: ARG002  the RPC's form
        if not request.HasField("model_spec"):
            raise ServingError(Code.INVALID_ARGUMENT, "Missing ModelSpec")
        with self._versions.lease(request.model_spec) as (version, servable):
            response = predict(servable, request)
        response.model_spec.version.value = version
        return response

    @answered
    def GetModelMetadata(self, request, context):  # noqa: ARG002  the RPC's form
        if not request.HasField("model_spec"):
            raise ServingError(Code.INVALID_ARGUMENT, "Missing ModelSpec")
        if not request.metadata_field:
            raise ServingError(
                Code.INVALID_ARGUMENT,
                "GetModelMetadataRequest must specify at least one metadata_field",
            )
        for field in request.metadata_field:
            if field != SIGNATURE_DEF:
                raise ServingError(
                    Code.INVALID_ARGUMENT, f"Metadata field {field} is not supported"
                )
        response = get_model_metadata_pb2.GetModelMetadataResponse()
        with self._versions.lease(request.model_spec) as (version, servable):
            signatures = get_model_metadata_pb2.SignatureDefMap()
            for name, signature in servable.signatures.items():
                signatures.signature_def[name].CopyFrom(signature)
        response.model_spec.name = request.model_spec.name
        response.model_spec.version.value = version
        response.metadata[SIGNATURE_DEF].Pack(signatures)
        return response
