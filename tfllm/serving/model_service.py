"""The RPC of `tensorflow.serving.ModelService`: GetModelStatus.

Source:
    tensorflow_serving/model_servers/get_model_status_impl.cc, read for the behaviour.
"""

from __future__ import annotations

from tensorflow_serving.apis import get_model_status_pb2, model_service_pb2_grpc

from tfllm.serving.rpc import answered
from tfllm.serving.status import Code, ServingError
from tfllm.serving.versions import Versions


class ModelService(model_service_pb2_grpc.ModelServiceServicer):
    """Tells what the versions are doing.

    Args:
        versions: The versions it tells of.
    """

    def __init__(self, versions: Versions):
        self._versions = versions

    @answered
    def GetModelStatus(self, request, context):  # noqa: ARG002  the RPC's form
        if not request.HasField("model_spec"):
            raise ServingError(Code.INVALID_ARGUMENT, "Missing ModelSpec")
        spec = request.model_spec
        statuses = self._versions.statuses(spec.name)
        if spec.HasField("version"):
            statuses = [status for status in statuses if status.version == spec.version.value]
            if not statuses:
                message = f"Could not find version {spec.version.value} of model {spec.name}"
                raise ServingError(Code.NOT_FOUND, message)
        if not statuses:
            message = f"Could not find any versions of model {spec.name}"
            raise ServingError(Code.NOT_FOUND, message)
        response = get_model_status_pb2.GetModelStatusResponse()
        for status in statuses:
            told = response.model_version_status.add(
                version=status.version, state=int(status.state)
            )
            told.status.SetInParent()
            if status.error is not None:
                told.status.error_code = int(status.error.code)
                told.status.error_message = status.error.message
        return response
