"""The gateway's gRPC: texts piece by piece, health and reflection, in the same event loop.

Source:
    tfllm/serving/text_generation.proto, and https://grpc.io/docs/guides/health-checking/
"""

from __future__ import annotations

import asyncio
from typing import Any

import grpc
import grpc.aio
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection

from tfllm import contract, rows
from tfllm.chat import ChatTemplate
from tfllm.errors import UserError
from tfllm.gateway.models import Models, written
from tfllm.gateway.records import Record, Records
from tfllm.gateway.texts import Asked, Piece, Refused
from tfllm.serving.text_generation import METHOD, SERVICE, GenerateReply, GenerateRequest

_HEALTH = health_pb2.DESCRIPTOR.services_by_name["Health"].full_name
_Status = health_pb2.HealthCheckResponse
_LOOK_S = 0.2  # between two looks of who watches the health
_MAX_MESSAGE_BYTES = 16 * 2**20
_SETTINGS = [field.name for field in contract.SAMPLING if not field.shape]
_CODES = {
    400: grpc.StatusCode.INVALID_ARGUMENT,
    401: grpc.StatusCode.UNAUTHENTICATED,
    404: grpc.StatusCode.NOT_FOUND,
    429: grpc.StatusCode.RESOURCE_EXHAUSTED,
    503: grpc.StatusCode.UNAVAILABLE,
}


class GrpcPort:
    """A port of gRPC.

    Args:
        models: What is asked there.
        records: What is told of requests.
    """

    def __init__(self, models: Models, records: Records):
        self._server = grpc.aio.server(
            options=[
                ("grpc.max_receive_message_length", _MAX_MESSAGE_BYTES),
                ("grpc.so_reuseport", 0),
            ]
        )
        generate = grpc.unary_stream_rpc_method_handler(
            _TextGeneration(models, records).generate,
            request_deserializer=GenerateRequest.FromString,
            response_serializer=GenerateReply.SerializeToString,
        )
        handler = grpc.method_handlers_generic_handler(SERVICE, {METHOD: generate})
        self._server.add_generic_rpc_handlers((handler,))
        health_pb2_grpc.add_HealthServicer_to_server(_Health(models), self._server)
        names = (SERVICE, _HEALTH, reflection.SERVICE_NAME)
        reflection.enable_server_reflection(names, self._server)

    async def start(self, host: str, port: int) -> int:
        """Listens; returns the port.

        Raises:
            OSError: it cannot be had.
        """
        try:
            found = self._server.add_insecure_port(f"{host}:{port}")
        except RuntimeError as error:
            raise OSError(0, str(error)) from None
        await self._server.start()
        return found

    async def stop(self) -> None:
        """Ends all calls."""
        await self._server.stop(None)


class _TextGeneration:
    def __init__(self, models: Models, records: Records):
        self._models = models
        self._records = records

    async def generate(self, request: Any, context: grpc.aio.ServicerContext) -> None:
        headers = {key: str(value) for key, value in context.invocation_metadata() or ()}
        record = Record(
            f"/{SERVICE}/{METHOD}",
            headers.get("x-request-id"),
            "CANCELLED",
            traceparent=headers.get("traceparent", ""),
        )
        with self._records.kept(record):
            await context.send_initial_metadata((("x-request-id", record.id),))
            try:
                client = self._models.client(headers.get("authorization"))
                record.client = client.name
                with client.asking():
                    await self._write(request, context, record)
                record.status = "OK"
            except Refused as refused:
                code = _CODES.get(refused.status, grpc.StatusCode.INTERNAL)
                record.status = code.name
                when = refused.retry_after_s
                trailing = (("retry-after", str(max(1, round(when)))),) if when is not None else ()
                await context.abort(code, refused.message, trailing)

    async def _write(self, request: Any, context: grpc.aio.ServicerContext, record: Record) -> None:
        self._models.check_open()
        replicas = self._models.named(request.model)
        record.model = replicas.name
        asked = _asked(request, replicas.chat_template, record.client)
        num_told = 0
        async with written(replicas, [[asked]], record) as ((text,),):
            async for piece in text.pieces():
                token_ids = text.token_ids[num_told : num_told + piece.num_tokens]
                num_told += piece.num_tokens
                reply = _reply(piece, token_ids)
                if piece.finish_reason:
                    reply.usage.prompt_tokens = text.num_prompt_tokens
                    reply.usage.reused_tokens = text.num_reused
                    reply.usage.completion_tokens = num_told
                if piece.text or token_ids or piece.finish_reason:
                    await context.write(reply)


def _asked(request: Any, template: ChatTemplate | None, client: str) -> Asked:
    """What the request wants of the model.

    Raises:
        Refused: 400, naming the field.
    """
    has_prompt, messages = request.HasField("prompt"), request.messages
    if has_prompt == bool(messages):
        raise Refused(400, "Send a prompt or messages, and not both.")
    if request.num_alternatives and not request.wants_logprobs:
        raise Refused(400, "num_alternatives needs wants_logprobs.")
    if not 0 <= request.num_alternatives <= contract.MAX_ALTERNATIVES:
        raise Refused(400, f"num_alternatives must be from 0 to {contract.MAX_ALTERNATIVES}.")
    prompt, stop = request.prompt, list(request.stop)
    settings = {name: getattr(request, name) for name in _SETTINGS if request.HasField(name)}
    try:
        if messages:
            if template is None:
                raise UserError("This model has no chat template: send a prompt.")
            turns = [{"role": each.role, "content": each.content} for each in messages]
            prompt = template.render(turns)
            stop = [*dict.fromkeys([*stop, *template.stop])]
        columns = rows.setting_columns(contract.GENERATE, 1, {**settings, "stop": stop})
    except UserError as error:
        raise Refused(400, str(error)) from None
    return Asked(
        prompt,
        {name: column[0] for name, column in columns.items()},
        request.wants_logprobs,
        request.num_alternatives,
        client=client,
    )


def _reply(piece: Piece, token_ids: list[int]) -> Any:
    reply = GenerateReply(text=piece.text, token_ids=token_ids, finish_reason=piece.finish_reason)
    for token in piece.tokens:
        reply.logprobs.append(token.logprob)
        if token.alternatives:
            raw, logprobs = zip(*token.alternatives, strict=True)
            reply.alternatives.add(tokens=raw, logprobs=logprobs)
    return reply


class _Health(health_pb2_grpc.HealthServicer):
    """SERVING while every model has a server that answers and new requests are taken."""

    def __init__(self, models: Models):
        self._models = models

    async def Check(self, request, context):
        if request.service not in ("", SERVICE):
            await context.abort(grpc.StatusCode.NOT_FOUND, f"there is no service {request.service}")
        return _Status(status=self._status)

    async def Watch(self, request, context):
        told = None
        while True:
            status = self._status if request.service in ("", SERVICE) else _Status.SERVICE_UNKNOWN
            if status != told:
                await context.write(_Status(status=status))
                told = status
            await asyncio.sleep(_LOOK_S)

    @property
    def _status(self) -> int:
        return _Status.SERVING if self._models.is_fine else _Status.NOT_SERVING
