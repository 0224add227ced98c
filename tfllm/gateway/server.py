"""The gateway's HTTP: OpenAI's paths, health and metrics, in one event loop."""

from __future__ import annotations

import contextvars
import datetime
import json
from collections.abc import Awaitable, Callable, Mapping
from typing import Any

from aiohttp import web

from tfllm import contract
from tfllm.gateway import openai_requests
from tfllm.gateway.balancing import Replicas
from tfllm.gateway.grpc_service import GrpcPort
from tfllm.gateway.keys import Client, Keys
from tfllm.gateway.models import Models, written
from tfllm.gateway.openai_answers import (
    Chat,
    Completions,
    Shape,
    embeddings,
    error_body,
    usage_of,
)
from tfllm.gateway.openai_requests import Writing
from tfllm.gateway.page_files import page_routes
from tfllm.gateway.records import Record, Records
from tfllm.gateway.streaming import merged, send_stream
from tfllm.gateway.texts import Piece, Refused
from tfllm.serving import ServingError
from tfllm.serving.monitoring import CONTENT_TYPE, page

_MAX_BODY_BYTES = 16 * 2**20
_API = "/v1/"  # needs a key
_REQUEST_ID = "X-Request-Id"
_RECORD: contextvars.ContextVar[Record] = contextvars.ContextVar("record")


class Gateway:
    """Answers HTTP, and gRPC if it is wanted, for models on other servers.

    Args:
        replicas: The models, by the names that clients use.
        keys: Who may ask.
        records: What is told of requests.

    Attributes:
        port: Of HTTP.
        grpc_port: None if there is none.
    """

    def __init__(
        self,
        replicas: Mapping[str, Replicas],
        keys: Keys | None = None,
        records: Records | None = None,
    ):
        self._served = Models(replicas, keys or Keys())
        self._records = records or Records()
        self._runner: web.AppRunner | None = None
        self._grpc: GrpcPort | None = None
        self._started_at = int(datetime.datetime.now(datetime.UTC).timestamp())
        self.port = 0
        self.grpc_port: int | None = None

    async def start(
        self, host: str = "127.0.0.1", port: int = 0, grpc_port: int | None = None
    ) -> None:
        """Listens, and looks for the servers; `port` says where, if 0 was asked for.

        Raises:
            OSError: a port cannot be had.
        """
        self._served.start()
        self._runner = web.AppRunner(
            self._app(), handler_cancellation=True, access_log=None, shutdown_timeout=5.0
        )
        await self._runner.setup()
        site = web.TCPSite(self._runner, host, port)
        await site.start()
        self.port = self._runner.addresses[0][1]
        if grpc_port is not None:
            self._grpc = GrpcPort(self._served, self._records)
            self.grpc_port = await self._grpc.start(host, grpc_port)

    async def stop(self, grace_s: float = 30.0) -> None:
        """Refuses new texts, lets the running ones end for `grace_s`, then ends all."""
        await self._served.drain(grace_s)
        await self._served.stop()
        if self._grpc is not None:
            await self._grpc.stop()
        assert self._runner is not None
        await self._runner.cleanup()

    @property
    def load(self) -> int:
        """Texts that run or wait."""
        return self._served.load

    def _app(self) -> web.Application:
        app = web.Application(client_max_size=_MAX_BODY_BYTES, middlewares=[self._answered])
        app.router.add_post("/v1/completions", self._completions)
        app.router.add_post("/v1/chat/completions", self._chat)
        app.router.add_post("/v1/embeddings", self._embeddings)
        app.router.add_get("/v1/models", self._models)
        app.router.add_get("/v1/models/{model}", self._model)
        app.router.add_get("/healthz", self._health)
        app.router.add_get("/metrics", self._metrics)
        app.router.add_routes(page_routes())
        app.on_response_prepare.append(_tell_request_id)
        return app

    @web.middleware
    async def _answered(
        self,
        request: web.Request,
        handler: Callable[[web.Request], Awaitable[web.StreamResponse]],
    ) -> web.StreamResponse:
        """Keeps the record of a request and tells what is wrong with it in OpenAI's words."""
        resource = request.match_info.route.resource
        path = resource.canonical if resource else ""
        is_told = path.startswith(_API)
        record = Record(
            path,
            request.headers.get(_REQUEST_ID),
            "499",
            is_told=is_told,
            traceparent=request.headers.get("traceparent", ""),
        )
        with self._records.kept(record):
            _RECORD.set(record)
            response = await self._answer(request, handler)
            record.status = str(response.status)
            return response

    async def _answer(
        self,
        request: web.Request,
        handler: Callable[[web.Request], Awaitable[web.StreamResponse]],
    ) -> web.StreamResponse:
        try:
            if not _RECORD.get().path.startswith(_API):
                return await handler(request)
            client = self._client(request)
            _RECORD.get().client = client.name
            with client.asking():
                return await handler(request)
        except Refused as refused:
            return _refusal(refused)
        except web.HTTPException as error:
            return _refusal(Refused(error.status, f"{request.path}: {error.reason}."))
        except ServingError as error:
            return _refusal(
                Refused(503, f"The model server failed: {error.message}", retry_after_s=2)
            )

    async def _completions(self, request: web.Request) -> web.StreamResponse:
        body, replicas = await self._asked(request)
        writing = openai_requests.completion(body, self._client(request).name)
        shape = Completions(replicas.name, writing.wants_logprobs)
        return await self._write(request, replicas, writing, shape)

    async def _chat(self, request: web.Request) -> web.StreamResponse:
        body, replicas = await self._asked(request)
        writing = openai_requests.chat(body, replicas.chat_template, self._client(request).name)
        shape = Chat(replicas.name, writing.wants_logprobs)
        return await self._write(request, replicas, writing, shape)

    async def _write(
        self, request: web.Request, replicas: Replicas, writing: Writing, shape: Shape
    ) -> web.StreamResponse:
        async with written(replicas, writing.prompts, _RECORD.get()) as groups:
            if writing.stream:
                return await send_stream(request, shape, groups, writing.include_usage)
            texts = [text for group in groups for text in group]
            pieces: list[list[Piece]] = [[] for _ in texts]
            async for index, piece in merged(texts):
                pieces[index].append(piece)
        usage = usage_of(groups, sum(piece.num_tokens for each in pieces for piece in each))
        choices = [shape.choice(index, each) for index, each in enumerate(pieces)]
        return _json(shape.answer(choices, usage))

    async def _embeddings(self, request: web.Request) -> web.Response:
        body, replicas = await self._asked(request)
        texts, in_base64 = openai_requests.embedding(body)
        async with replicas.asking() as backend:
            if contract.EMBED not in backend.signatures:
                raise Refused(400, f"{replicas.name} makes no embeddings.", param="model")
            found = await backend.embed(texts)
            for one in found:
                if one.error:
                    raise Refused(400, f"The model cannot read this: {one.error}.", param="input")
            num_tokens = sum(await backend.num_tokens(texts))
        return _json(embeddings(replicas.name, found, in_base64, num_tokens))

    async def _models(self, _request: web.Request) -> web.Response:
        return _json({"object": "list", "data": [self._card(name) for name in self._served]})

    async def _model(self, request: web.Request) -> web.Response:
        return _json(self._card(self._served.named(request.match_info["model"]).name))

    def _card(self, name: str) -> dict[str, Any]:
        return {
            "id": name,
            "object": "model",
            "created": self._started_at,
            "owned_by": "tfllm",
            "can_chat": self._served.named(name).can_chat,  # ours, for the page
        }

    async def _health(self, _request: web.Request) -> web.Response:
        served = self._served
        body = {"status": "ok" if served.is_fine else "draining" if served.is_draining else "down"}
        return _json({**body, "models": served.up}, 200 if served.is_fine else 503)

    async def _metrics(self, _request: web.Request) -> web.Response:
        return web.Response(body=page().encode(), headers={"Content-Type": CONTENT_TYPE})

    def _client(self, request: web.Request) -> Client:
        return self._served.client(request.headers.get("Authorization"))

    async def _asked(self, request: web.Request) -> tuple[dict[str, Any], Replicas]:
        try:
            body = json.loads(await request.read())
        except (ValueError, RecursionError) as error:
            raise Refused(400, f"The body must be JSON: {error}.") from None
        if not isinstance(body, dict):
            raise Refused(400, "The body must be an object.")
        self._served.check_open()
        replicas = self._served.named(body.get("model"))
        _RECORD.get().model = replicas.name
        return body, replicas


async def _tell_request_id(_request: web.Request, response: web.StreamResponse) -> None:
    if (record := _RECORD.get(None)) is not None:
        response.headers[_REQUEST_ID] = record.id


def _json(body: Any, status: int = 200, headers: Mapping[str, str] | None = None) -> web.Response:
    text = json.dumps(body, ensure_ascii=False)
    return web.json_response(text=text, status=status, headers=headers)


def _refusal(refused: Refused) -> web.Response:
    headers = {}
    if refused.retry_after_s is not None:
        headers["Retry-After"] = str(max(1, round(refused.retry_after_s)))
    return _json(error_body(refused), refused.status, headers)
