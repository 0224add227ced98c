"""The RPCs of `tensorflow.serving.ModelService`: GetModelStatus and HandleReloadConfigRequest.

Source:
    tensorflow_serving/model_servers/{get_model_status,model_service}_impl.cc, read for the
    behaviour.
"""

from __future__ import annotations

from tensorflow_serving.apis import (
    get_model_status_pb2,
    model_management_pb2,
    model_service_pb2_grpc,
)

from tfllm.serving.model_config import models_of
from tfllm.serving.reloading import Reloader
from tfllm.serving.rpc import answered
from tfllm.serving.status import Code, ServingError
from tfllm.serving.versions import Versions


class ModelService(model_service_pb2_grpc.ModelServiceServicer):
    """Tells what the versions are doing and changes which there are.

    Args:
        versions: The versions it tells of.
        reloader: What changes them.
    """

    def __init__(self, versions: Versions, reloader: Reloader):
        self._versions = versions
        self._reloader = reloader

    @answered
    def GetModelStatus(self, request, context):  # noqa: ARG002  the RPC's form
        return model_status(self._versions, request)

    @answered
    def HandleReloadConfigRequest(self, request, context):
        if request.config.WhichOneof("config") != "model_config_list":
            raise ServingError(
                Code.INVALID_ARGUMENT,
                "ServerModelConfig type not supported by HandleReloadConfigRequest. Only "
                "ModelConfigList is currently supported",
            )
        context.add_callback(self._versions.ask_again)  # else a client that leaves is waited for
        models = models_of(request.config, self._versions.models.keys())
        self._reloader.reload(models, lambda: not context.is_active())
        response = model_management_pb2.ReloadConfigResponse()
        response.status.SetInParent()
        return response


def model_status(
    versions: Versions, request: get_model_status_pb2.GetModelStatusRequest
) -> get_model_status_pb2.GetModelStatusResponse:
    """What the versions of a model are doing, or one of them.

    Raises:
        ServingError: INVALID_ARGUMENT for no model, NOT_FOUND for one that is not there.
    """
    if not request.HasField("model_spec"):
        raise ServingError(Code.INVALID_ARGUMENT, "Missing ModelSpec")
    spec = request.model_spec
    statuses = versions.statuses(spec.name)
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
        told = response.model_version_status.add(version=status.version, state=int(status.state))
        told.status.SetInParent()
        if status.error is not None:
            told.status.error_code = int(status.error.code)
            told.status.error_message = status.error.message
    return response
