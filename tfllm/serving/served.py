"""The calls of a served model, the same for a client that blocks and for one that waits."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from tfllm import contract, rows
from tfllm.calls import (
    ClassifierCalls,
    EmbedderCalls,
    MaskedLMCalls,
    SpanQACalls,
)
from tfllm.chat import ChatTemplate
from tfllm.errors import UserError
from tfllm.serving import columns
from tfllm.serving.metadata import Metadata, TensorInfo, VersionStatus
from tfllm.serving.status import Code, ServingError
from tfllm.serving.streaming import StreamCalls
from tfllm.serving.transport import TLS, Connection, Spec, Transport, place_of

POLL_S = 0.1
# What a server says while it starts, or before a label is given to a version.
_MAY_PASS = (Code.UNAVAILABLE, Code.NOT_FOUND, Code.DEADLINE_EXCEEDED, Code.INVALID_ARGUMENT)


class _FailedToLoad(ServingError):
    """Of the newest version, when no other is loaded or being loaded."""


class Served(StreamCalls, ClassifierCalls, MaskedLMCalls, EmbedderCalls, SpanQACalls):
    """What both clients are: calls of one model, by way of a transport."""

    waits = False

    def __init__(
        self,
        address: str,
        model: str,
        *,
        version: int | None = None,
        version_label: str | None = None,
        timeout_s: float = 60.0,
        retries: int = 3,
        tls: TLS | None = None,
        headers: Mapping[str, str] | None = None,
        keepalive_s: float | None = None,
        max_message_bytes: int | None = None,
    ):
        if version is not None and version_label is not None:
            raise UserError("Ask for a version or for a version_label, not for both.")
        self.address = address
        self.model = model
        self.version = version
        self.version_label = version_label
        self._known_inputs: dict[str, Mapping[str, TensorInfo] | None] = {}
        self._known_template: ChatTemplate | None = None
        connection = Connection(
            address,
            timeout_s,
            retries,
            tls,
            dict(headers or {}),
            keepalive_s,
            max_message_bytes,
        )
        self._transport = _transport(connection, Spec(model, version, version_label), self.waits)

    def predict(
        self,
        inputs: Mapping[str, Any],
        signature_name: str = contract.SERVING_DEFAULT,
        *,
        output_filter: Sequence[str] = (),
        timeout_s: float | None = None,
    ) -> Any:
        """Calls any signature.

        Args:
            inputs: Arrays, sent as they are, or Python values and lists, sent as the dtype that the
                signature has (asked for before the call). Strings are str or bytes.
            signature_name: Which signature.
            output_filter: The outputs to compute; all if empty.
            timeout_s: Seconds for this call.

        Returns:
            dict[str, np.ndarray], arrays by name; strings as bytes objects in object arrays.
        """
        return self._run(self._predict(inputs, signature_name, output_filter, timeout_s))

    def metadata(self, *, timeout_s: float | None = None) -> Any:
        """The `Metadata` of the model: names, dtypes, shapes and defaults of its signatures."""
        return self._run(self._metadata(timeout_s))

    def describe(self, key: str, *, timeout_s: float | None = None) -> Any:
        """What the export says of itself: an entry of `assets.extra/tfllm.json`.

        Args:
            key: Such as "context_length" or "chat_template".
            timeout_s: Seconds for this call.

        Returns:
            The value; None if there is none, as of every export without a chat template.
        """
        return self._run(self._describe(key, timeout_s))

    def status(self, *, timeout_s: float | None = None) -> Any:
        """list[VersionStatus], every version that the server has seen, the highest first."""
        return self._run(self._transport.status(timeout_s))

    def wait_until_available(self, timeout_s: float = 60.0, *, version: int | None = None) -> Any:
        """Returns when the model can answer.

        Args:
            timeout_s: Seconds to wait.
            version: The version that is waited for; default that of the client.

        Raises:
            ServingError: DEADLINE_EXCEEDED with what was seen last, or why the newest version
                failed if nothing else is loaded or being loaded.
        """
        wanted = self.version if version is None else version
        return self._run(self._wait_until_available(timeout_s, wanted))

    def reload(self, config: Any, *, timeout_s: float | None = None) -> Any:
        """Has the server serve other models, over gRPC: all that it is told, and no others.

        Args:
            config: A `tensorflow_serving.config.model_server_config_pb2.ModelServerConfig`.
            timeout_s: Seconds for this call, which waits for models that are new.

        Raises:
            UserError: the client speaks REST, which cannot do this.
        """
        return self._run(self._transport.reload(config, timeout_s))

    def close(self) -> Any:
        """Closes the connection; calls that are running end with CANCELLED."""
        return self._run(self._transport.close())

    async def _predict(
        self,
        inputs: Mapping[str, Any],
        signature_name: str,
        output_filter: Sequence[str] = (),
        timeout_s: float | None = None,
    ) -> dict[str, np.ndarray]:
        known = None
        arrays = {}
        for name, value in inputs.items():
            if not isinstance(value, np.ndarray | np.generic) and known is None:
                signature = (await self._metadata(timeout_s)).signatures.get(signature_name)
                known = signature.inputs if signature else {}
            dtype = known[name].dtype if known and name in known else None
            arrays[name] = columns.tensor(value, dtype, name)
        try:
            return await self._transport.predict(arrays, signature_name, output_filter, timeout_s)
        except ServingError as error:
            raise await self._explained(error) from error

    async def _metadata(self, timeout_s: float | None = None) -> Metadata:
        try:
            return await self._transport.metadata(timeout_s)
        except ServingError as error:
            raise await self._explained(error) from error

    async def _describe(self, key: str, timeout_s: float | None = None) -> Any:
        if contract.DESCRIBE not in (await self._metadata(timeout_s)).signatures:
            return None
        out = await self._ask(contract.DESCRIBE, {"key": [key]}, timeout_s=timeout_s)
        value = rows.plain(out["value"].tolist()[0])
        return json.loads(value) if value else None

    async def _template(self) -> ChatTemplate:
        if self._known_template is None:  # asked for once
            self._known_template = ChatTemplate.of(await self._describe(contract.CHAT_TEMPLATE))
        if self._known_template is None:
            raise UserError(
                f"{self.model} has no chat template: export a model whose tokenizer has one."
            )
        return self._known_template

    async def _wait_until_available(self, timeout_s: float, version: int | None) -> None:
        end = time.monotonic() + timeout_s
        seen = None
        while (left_s := end - time.monotonic()) > 0:
            try:
                versions = [
                    told
                    for told in await self._transport.status(left_s)
                    if version in (None, told.version)
                ]
                seen = self._seen(versions, version)
                if any(version.state == "AVAILABLE" for version in versions):
                    if self.version_label is not None:  # which status does not know
                        await self._transport.metadata(left_s)
                    return
            except ServingError as error:
                if error.code not in _MAY_PASS or isinstance(error, _FailedToLoad):
                    raise
                if seen is None or error.code != Code.DEADLINE_EXCEEDED:
                    seen = error.message
            await self._transport.pause(POLL_S)
        raise ServingError(
            Code.DEADLINE_EXCEEDED,
            f"{self.model} is not available after {timeout_s:g} s: "
            f"{seen or 'there was no time to ask'}",
        )

    def _seen(self, versions: Sequence[VersionStatus], wanted: int | None) -> str:
        """What to say of versions none of which is available.

        Raises:
            ServingError: why the newest one failed, if none is being loaded.
        """
        if not versions:
            return f"the server has not seen version {wanted}"
        newest = versions[0]
        if newest.error_code and all(version.state == "END" for version in versions):
            message = f"version {newest.version} of {self.model} failed to load: {newest.error}"
            raise _FailedToLoad(newest.error_code, message)
        return f"version {newest.version} is in state {newest.state}"

    async def _ask(
        self,
        signature: str,
        inputs: Mapping[str, list],
        *,
        timeout_s: float | None = None,
        **options: Any,
    ) -> dict[str, np.ndarray]:
        if options:
            raise UserError(f"A client has the option timeout_s, not {', '.join(options)}.")
        arrays = columns.arrays(signature, inputs)
        outputs = await self._predict(arrays, signature, timeout_s=timeout_s)
        wanted = {field.name for field in contract.SIGNATURES[signature].outputs}
        if missing := sorted(wanted - set(outputs)):
            raise UserError(
                f"{self.model} is no export of tfllm: its signature {signature} has no output "
                f"{', '.join(missing)}. Use predict()."
            )
        return outputs

    async def _defaults(self, signature: str) -> dict[str, Any]:
        # Sent with every row, which server-side batching needs.
        optional = rows.optional_inputs(signature)
        found = {name: field.default for name, field in optional.items()}
        for name, info in (await self._inputs(signature) or {}).items():
            if name in found and info.default is not None:
                found[name] = rows.plain(info.default.tolist()[0])
        return found

    async def _columns(
        self, signature: str, num_rows: int, settings: Mapping[str, Any]
    ) -> dict[str, list]:
        found = await super()._columns(signature, num_rows, settings)
        there = await self._inputs(signature)
        return found if there is None else rows.known_columns(found, there, self.model)

    async def _inputs(self, signature: str) -> Mapping[str, TensorInfo] | None:
        """Those that the server tells; None if it has no such signature. Asked for once."""
        if signature not in self._known_inputs:
            there = (await self._metadata()).signatures.get(signature)
            self._known_inputs[signature] = there and there.inputs
        return self._known_inputs[signature]

    async def _explained(self, error: ServingError) -> ServingError:
        """`error` with what the server has instead of what was asked for, where it tells."""
        try:
            if error.message.startswith("Serving signature"):
                there = ", ".join((await self._transport.metadata(None)).signatures)
                return ServingError(error.code, f"{error.message} {self.model} has: {there}.")
            if error.message.startswith("Servable not found"):
                versions = await self._transport.status(None)
                there = ", ".join(f"{v.version} ({v.state})" for v in versions)
                return ServingError(
                    error.code, f"{error.message}. There are the versions: {there}."
                )
        except ServingError as silence:
            if silence.code == Code.NOT_FOUND:
                return ServingError(
                    error.code,
                    f"{error.message}. The server at {self.address} knows no version of "
                    f"{self.model!r}: is that the model's name there?",
                )
        return error


def _transport(connection: Connection, spec: Spec, waits: bool) -> Transport:
    if place_of(connection.address).scheme:
        from tfllm.serving.rest_client import Rest

        return Rest(connection, spec, waits)
    try:
        from tfllm.serving.channel import Channel
    except ModuleNotFoundError as error:
        raise UserError(
            f"gRPC needs tensorflow-serving-api ({error}): install it, or ask the server's REST "
            "port by an address like http://host:8501."
        ) from None
    return Channel(connection, spec, waits)
