"""TensorFlow Serving's gRPC as a client speaks it, over a channel that blocks or one that waits."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable, Mapping, Sequence
from typing import Any

import grpc
import grpc.aio
import numpy as np
from tensorflow.core.protobuf import meta_graph_pb2
from tensorflow_serving.apis import (
    get_model_metadata_pb2,
    get_model_status_pb2,
    model_management_pb2,
    model_pb2,
    model_service_pb2_grpc,
    predict_pb2,
    prediction_service_pb2_grpc,
)
from tensorflow_serving.config import model_server_config_pb2

from tfllm.serving.metadata import (
    INIT_OP,
    SIGNATURE_DEF,
    Metadata,
    SignatureInfo,
    TensorInfo,
    VersionStatus,
)
from tfllm.serving.status import Code, ServingError
from tfllm.serving.tensors import decode, dtype_name, encode
from tfllm.serving.text_generation import METHOD, SERVICE, GenerateReply, GenerateRequest
from tfllm.serving.trace_context import TRACEPARENT
from tfllm.serving.transport import (
    FIRST_BACKOFF_S,
    MAX_BACKOFF_S,
    Connection,
    Spec,
    Transport,
    place_of,
)


class Channel(Transport):
    """A gRPC connection; the arguments are those of `Transport`."""

    def __init__(self, connection: Connection, spec: Spec, waits: bool):
        super().__init__(connection, spec, waits)
        self._options = _options(connection)
        tls = connection.tls
        if tls is None:
            self._credentials = None
        else:
            roots, certificate, key = tls.read()
            self._credentials = grpc.ssl_channel_credentials(roots, key, certificate)
        self._headers = [(name.lower(), value) for name, value in connection.headers.items()]
        self._grpc: Any = None
        if not waits:  # one that waits is opened by its first call, in the loop that it belongs to
            self._open()

    def _open(self) -> None:
        kind: Any = grpc.aio if self.waits else grpc
        address = self.connection.address
        if self._credentials is None:
            self._grpc = kind.insecure_channel(address, self._options)
        else:
            self._grpc = kind.secure_channel(address, self._credentials, self._options)
        self._prediction = prediction_service_pb2_grpc.PredictionServiceStub(self._grpc)
        self._model = model_service_pb2_grpc.ModelServiceStub(self._grpc)

    async def predict(
        self,
        inputs: Mapping[str, np.ndarray],
        signature_name: str,
        output_filter: Sequence[str],
        timeout_s: float | None,
    ) -> dict[str, np.ndarray]:
        request = predict_pb2.PredictRequest(
            model_spec=self._model_spec(signature_name), output_filter=output_filter
        )
        for name, array in inputs.items():
            encode(array, into=request.inputs[name])
        response = await self._call(lambda: self._prediction.Predict, request, timeout_s)
        return {name: decode(proto) for name, proto in response.outputs.items()}

    async def metadata(self, timeout_s: float | None) -> Metadata:
        request = get_model_metadata_pb2.GetModelMetadataRequest(
            model_spec=self._model_spec(), metadata_field=[SIGNATURE_DEF]
        )
        response = await self._call(lambda: self._prediction.GetModelMetadata, request, timeout_s)
        signatures = get_model_metadata_pb2.SignatureDefMap()
        response.metadata[SIGNATURE_DEF].Unpack(signatures)
        return Metadata(
            response.model_spec.name,
            response.model_spec.version.value,
            {
                name: _signature(signature)
                for name, signature in sorted(signatures.signature_def.items())
                if name != INIT_OP
            },
        )

    async def status(self, timeout_s: float | None) -> list[VersionStatus]:
        request = get_model_status_pb2.GetModelStatusRequest(model_spec={"name": self.spec.model})
        response = await self._call(lambda: self._model.GetModelStatus, request, timeout_s)
        state = get_model_status_pb2.ModelVersionStatus.State
        return [
            VersionStatus(
                told.version,
                state.Name(told.state),
                Code(told.status.error_code),
                told.status.error_message,
            )
            for told in response.model_version_status
        ]

    async def reload(
        self, config: model_server_config_pb2.ModelServerConfig, timeout_s: float | None
    ) -> None:
        request = model_management_pb2.ReloadConfigRequest(config=config)
        response = await self._call(
            lambda: self._model.HandleReloadConfigRequest, request, timeout_s
        )
        if response.status.error_code:  # the API has a place for it beside the call's own
            raise ServingError(Code(response.status.error_code), response.status.error_message)

    async def generate(self, request: Any, timeout_s: float | None) -> AsyncGenerator[Any, None]:
        if self._grpc is None:
            self._open()
        rpc = self._grpc.unary_stream(
            f"/{SERVICE}/{METHOD}",
            request_serializer=GenerateRequest.SerializeToString,
            response_deserializer=GenerateReply.FromString,
        )
        call = rpc(request, timeout=timeout_s, metadata=self._metadata())
        try:
            if self.waits:
                async for reply in call:
                    yield reply
            else:
                for reply in call:
                    yield reply
        except grpc.RpcError as error:
            raise ServingError(Code(error.code().value[0]), error.details() or "") from None
        finally:
            call.cancel()

    async def close(self) -> None:
        self.is_closed = True
        if self._grpc is not None:
            ending = self._grpc.close()
            if self.waits:
                await ending

    def _metadata(self) -> list[tuple[str, str]]:
        traceparent = TRACEPARENT.get()
        return [*self._headers, ("traceparent", traceparent)] if traceparent else self._headers

    def _model_spec(self, signature_name: str = "") -> model_pb2.ModelSpec:
        spec = model_pb2.ModelSpec(name=self.spec.model, signature_name=signature_name)
        if self.spec.version is not None:
            spec.version.value = self.spec.version
        if self.spec.label is not None:
            spec.version_label = self.spec.label
        return spec

    async def _call(self, rpc: Callable[[], Any], request: Any, timeout_s: float | None) -> Any:
        async def attempt(left_s: float) -> Any:
            if self._grpc is None:
                self._open()
            try:
                response = rpc()(request, timeout=left_s, metadata=self._metadata())
                return await response if self.waits else response
            except grpc.RpcError as error:
                code, message = Code(error.code().value[0]), error.details() or ""
            if code == Code.CANCELLED and not self.is_closed:
                code = Code.UNAVAILABLE  # so says a server that is stopping to what comes too late
            raise ServingError(code, message)

        return await self.call(attempt, timeout_s)


def _options(connection: Connection) -> list[tuple[str, Any]]:
    most = connection.max_message_bytes or -1
    options: list[tuple[str, Any]] = [
        ("grpc.max_send_message_length", most),
        ("grpc.max_receive_message_length", most),
        # By default a server that restarts is looked for after a second, then ever more rarely.
        ("grpc.initial_reconnect_backoff_ms", int(1000 * FIRST_BACKOFF_S)),
        ("grpc.min_reconnect_backoff_ms", int(1000 * FIRST_BACKOFF_S)),
        ("grpc.max_reconnect_backoff_ms", int(1000 * MAX_BACKOFF_S)),
    ]
    host = place_of(connection.address).host
    if host in ("localhost", "[::1]") or host.startswith("127."):
        options.append(("grpc.enable_http_proxy", 0))  # a proxy has another localhost
    if connection.keepalive_s is not None:
        options += [
            ("grpc.keepalive_time_ms", int(1000 * connection.keepalive_s)),
            ("grpc.keepalive_permit_without_calls", 1),
        ]
    if connection.tls is not None and connection.tls.server_name is not None:
        options.append(("grpc.ssl_target_name_override", connection.tls.server_name))
    return options


def _signature(signature: meta_graph_pb2.SignatureDef) -> SignatureInfo:
    defaults = {name: decode(proto) for name, proto in signature.defaults.items()}
    return SignatureInfo(
        {
            name: _tensor(info, defaults.get(name))
            for name, info in sorted(signature.inputs.items())
        },
        {name: _tensor(info, None) for name, info in sorted(signature.outputs.items())},
    )


def _tensor(info: meta_graph_pb2.TensorInfo, default: np.ndarray | None) -> TensorInfo:
    shape = info.tensor_shape
    dims = tuple(None if dim.size < 0 else dim.size for dim in shape.dim)
    return TensorInfo(dtype_name(info.dtype), None if shape.unknown_rank else dims, default)
