"""A typed client for any server that speaks TensorFlow Serving's gRPC."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from tensorflow_serving.apis import (
    get_model_metadata_pb2,
    get_model_status_pb2,
    model_pb2,
    model_service_pb2_grpc,
    predict_pb2,
    prediction_service_pb2_grpc,
)

from tfllm import contract, rows
from tfllm.calls import (
    ClassifierCalls,
    EmbedderCalls,
    GeneratorCalls,
    MaskedLMCalls,
    SpanQACalls,
)
from tfllm.chat import ChatTemplate
from tfllm.errors import UserError
from tfllm.serving import columns, metadata
from tfllm.serving.channel import Channel
from tfllm.serving.status import Code, ServingError
from tfllm.serving.tensors import decode, encode

POLL_S = 0.1


class VersionStatus(NamedTuple):
    """What one version is doing.

    Attributes:
        version: Its number.
        state: START, LOADING, AVAILABLE, UNLOADING or END.
        error_code: Why it ended: OK unless it failed.
        error: The server's words for that.
    """

    version: int
    state: str
    error_code: Code
    error: str


class Client(GeneratorCalls, ClassifierCalls, MaskedLMCalls, EmbedderCalls, SpanQACalls):
    """Calls one model of a server; may be used by many threads at once. A context manager.

    Where a text is wanted, one str gives one answer and a list of str a list of answers. What is
    wrong with one row is said in its `Generation.finish_reason` or `Score.error`, never raised.

    Args:
        address: "host:port".
        model: The name the server knows it by.
        version: A version number; default the newest one available.
        timeout_s: Seconds for one call, unless the call says otherwise.
        retries: How often a call is repeated while no server answers. Calls only read, so none
            of them does anything twice.

    Raises:
        UserError: an address of another form; from every call, arguments that cannot be sent.
        ServingError: from every call, a status other than OK, with its code.
    """

    def __init__(
        self,
        address: str,
        model: str,
        *,
        version: int | None = None,
        timeout_s: float = 60.0,
        retries: int = 3,
    ):
        self.model = model
        self.version = version
        self._spec = model_pb2.ModelSpec(name=model)
        if version is not None:
            self._spec.version.value = version
        self.address = address
        self._known_defaults: dict[str, dict[str, Any]] = {}
        self._known_template: ChatTemplate | None = None
        self._channel = Channel(address, timeout_s, retries)
        self._prediction = prediction_service_pb2_grpc.PredictionServiceStub(self._channel.grpc)
        self._model = model_service_pb2_grpc.ModelServiceStub(self._channel.grpc)

    def predict(
        self,
        inputs: Mapping[str, Any],
        signature_name: str = contract.SERVING_DEFAULT,
        *,
        output_filter: Sequence[str] = (),
        timeout_s: float | None = None,
    ) -> dict[str, np.ndarray]:
        """Calls any signature.

        Args:
            inputs: Arrays, sent as they are, or Python values and lists, sent as the dtype that the
                signature has (asked for before the call). Strings are str or bytes.
            signature_name: Which signature.
            output_filter: The outputs to compute; all if empty.
            timeout_s: Seconds for this call.

        Returns:
            Arrays by name; strings as bytes objects in object arrays.
        """
        request = predict_pb2.PredictRequest(model_spec=self._spec, output_filter=output_filter)
        request.model_spec.signature_name = signature_name
        known = None
        for name, value in inputs.items():
            if not isinstance(value, np.ndarray | np.generic) and known is None:
                signature = self.metadata(timeout_s=timeout_s).signatures.get(signature_name)
                known = signature.inputs if signature else {}
            dtype = known[name].dtype if known and name in known else None
            encode(columns.tensor(value, dtype, name), into=request.inputs[name])
        try:
            response = self._channel.call(self._prediction.Predict, request, timeout_s)
        except ServingError as error:
            raise self._explained(error) from error
        return {name: decode(proto) for name, proto in response.outputs.items()}

    def metadata(self, *, timeout_s: float | None = None) -> metadata.Metadata:
        """The signatures of the model: names, dtypes, shapes and defaults."""
        request = get_model_metadata_pb2.GetModelMetadataRequest(
            model_spec=self._spec, metadata_field=[metadata.SIGNATURE_DEF]
        )
        try:
            response = self._channel.call(self._prediction.GetModelMetadata, request, timeout_s)
        except ServingError as error:
            raise self._explained(error) from error
        return metadata.parse(response)

    def describe(self, key: str, *, timeout_s: float | None = None) -> Any:
        """What the export says of itself: an entry of `assets.extra/tfllm.json`.

        Args:
            key: Such as "context_length" or "chat_template".
            timeout_s: Seconds for this call.

        Returns:
            The value; None if there is none, as of every export without a chat template.
        """
        if contract.DESCRIBE not in self.metadata(timeout_s=timeout_s).signatures:
            return None
        out = self._ask(contract.DESCRIBE, {"key": [key]}, timeout_s=timeout_s)
        value = rows.plain(out["value"].tolist()[0])
        return json.loads(value) if value else None

    def chat_template(self) -> ChatTemplate:
        """How conversations are written for the model; asked for once.

        Raises:
            UserError: it was not made for conversations.
        """
        if self._known_template is None:
            self._known_template = ChatTemplate.of(self.describe(contract.CHAT_TEMPLATE))
        if self._known_template is None:
            raise UserError(
                f"{self.model} has no chat template: export a model whose tokenizer has one."
            )
        return self._known_template

    def status(self, *, timeout_s: float | None = None) -> list[VersionStatus]:
        """Every version that the server has seen, the highest first."""
        request = get_model_status_pb2.GetModelStatusRequest(model_spec={"name": self.model})
        response = self._channel.call(self._model.GetModelStatus, request, timeout_s)
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

    def wait_until_available(self, timeout_s: float = 60.0) -> None:
        """Blocks until the model can answer.

        Raises:
            ServingError: DEADLINE_EXCEEDED with what was seen last, or why the newest version
                failed if nothing else is loaded or being loaded.
        """
        end = time.monotonic() + timeout_s
        seen = "there was no time to ask"
        while (left_s := end - time.monotonic()) > 0:
            try:
                versions = [
                    told
                    for told in self.status(timeout_s=left_s)
                    if self.version in (None, told.version)
                ]
            except ServingError as error:
                if error.code not in (Code.UNAVAILABLE, Code.NOT_FOUND, Code.DEADLINE_EXCEEDED):
                    raise
                seen = error.message
            else:
                if any(version.state == "AVAILABLE" for version in versions):
                    return
                seen = self._seen(versions)
            time.sleep(POLL_S)
        raise ServingError(
            Code.DEADLINE_EXCEEDED,
            f"{self.model} is not available after {timeout_s:g} s: {seen}",
        )

    def close(self) -> None:
        """Closes the connection; calls that are running end with CANCELLED."""
        self._channel.close()

    def __enter__(self) -> Client:
        return self

    def __exit__(self, *_) -> None:
        self.close()

    def _seen(self, versions: Sequence[VersionStatus]) -> str:
        """What to say of versions none of which is available.

        Raises:
            ServingError: why the newest one failed, if none is being loaded.
        """
        if not versions:
            return f"the server has not seen version {self.version}"
        newest = versions[0]
        if newest.error_code and all(version.state == "END" for version in versions):
            message = f"version {newest.version} of {self.model} failed to load: {newest.error}"
            raise ServingError(newest.error_code, message)
        return f"version {newest.version} is in state {newest.state}"

    def _ask(
        self, signature: str, inputs: Mapping[str, list], **options: Any
    ) -> dict[str, np.ndarray]:
        outputs = self.predict(columns.arrays(signature, inputs), signature, **options)
        wanted = {field.name for field in contract.SIGNATURES[signature].outputs}
        if missing := sorted(wanted - set(outputs)):
            raise UserError(
                f"{self.model} is no export of tfllm: its signature {signature} has no output "
                f"{', '.join(missing)}. Use predict()."
            )
        return outputs

    def _defaults(self, signature: str) -> dict[str, Any]:
        # Sent with every row, which server-side batching needs; asked for once.
        if signature not in self._known_defaults:
            found = {
                field.name: field.default
                for field in contract.SIGNATURES[signature].inputs
                if field.default is not None
            }
            if there := self.metadata().signatures.get(signature):
                for name, info in there.inputs.items():
                    if name in found and info.default is not None:
                        found[name] = rows.plain(info.default.tolist()[0])
            self._known_defaults[signature] = found
        return self._known_defaults[signature]

    def _explained(self, error: ServingError) -> ServingError:
        """`error` with what the server has instead of what was asked for, where it tells."""
        try:
            if error.message.startswith("Serving signature key"):
                there = ", ".join(self.metadata().signatures)
                return ServingError(error.code, f"{error.message} {self.model} has: {there}.")
            if error.message.startswith("Servable not found"):
                there = ", ".join(f"{v.version} ({v.state})" for v in self.status())
                return ServingError(
                    error.code, f"{error.message}. There are the versions: {there}."
                )
        except ServingError as silence:
            if silence.code == Code.NOT_FOUND:
                return ServingError(
                    error.code,
                    f"{error.message}. The server at {self._channel.address} knows no version of "
                    f"{self.model!r}: is that the model's name there?",
                )
        return error
