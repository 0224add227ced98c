"""The gateway's HTTP: OpenAI's paths, health and metrics, in one event loop."""

from __future__ import annotations

import asyncio
import datetime
import json
import logging
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any

from aiohttp import web

from tfllm import contract
from tfllm.gateway import metrics, openai_requests
from tfllm.gateway.balancing import Replicas
from tfllm.gateway.keys import Client, Keys
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
from tfllm.gateway.streaming import merged, send_stream
from tfllm.gateway.texts import Piece, Refused, Text
from tfllm.serving import ServingError
from tfllm.serving.monitoring import CONTENT_TYPE, page

log = logging.getLogger(__name__)

_MAX_BODY_BYTES = 16 * 2**20


class Gateway:
    """Answers HTTP for models on other servers.

    Args:
        replicas: The models, by the names that clients use.
        keys: Who may ask.
    """

    def __init__(self, replicas: Mapping[str, Replicas], keys: Keys | None = None):
        self._replicas = replicas
        self._keys = keys or Keys()
        self._is_draining = False
        self._runner: web.AppRunner | None = None
        self._started_at = int(datetime.datetime.now(datetime.UTC).timestamp())
        self.port = 0

    async def start(self, host: str = "127.0.0.1", port: int = 0) -> None:
        """Listens, and looks for the servers; `port` says where, if 0 was asked for."""
        for replicas in self._replicas.values():
            for scheduler in replicas.schedulers:
                scheduler.start()
        self._runner = web.AppRunner(
            self._app(), handler_cancellation=True, access_log=None, shutdown_timeout=5.0
        )
        await self._runner.setup()
        site = web.TCPSite(self._runner, host, port)
        await site.start()
        self.port = self._runner.addresses[0][1]

    async def stop(self, grace_s: float = 30.0) -> None:
        """Refuses new texts, lets the running ones end for `grace_s`, then ends all."""
        self._is_draining = True
        end = time.monotonic() + grace_s
        while self.load and time.monotonic() < end:
            await asyncio.sleep(0.02)
        assert self._runner is not None
        for replicas in self._replicas.values():
            for scheduler in replicas.schedulers:
                await scheduler.stop()
        await self._runner.cleanup()

    @property
    def load(self) -> int:
        """Texts that run or wait."""
        schedulers = (s for replicas in self._replicas.values() for s in replicas.schedulers)
        return sum(scheduler.load for scheduler in schedulers)

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
        return app

    @web.middleware
    async def _answered(
        self,
        request: web.Request,
        handler: Callable[[web.Request], Awaitable[web.StreamResponse]],
    ) -> web.StreamResponse:
        """Counts a request and tells what is wrong with it in OpenAI's words."""
        resource = request.match_info.route.resource
        path = resource.canonical if resource else ""
        status, who = 499, ""  # unless it is answered, the client has gone
        started_at = time.monotonic()
        try:
            try:
                if path.startswith("/v1/"):
                    client = self._client(request)
                    who = client.name
                    with client.asking():
                        response = await handler(request)
                else:
                    response = await handler(request)
            except Refused as refused:
                response = _refusal(refused)
            except web.HTTPException as error:
                response = _refusal(Refused(error.status, f"{request.path}: {error.reason}."))
            except ServingError as error:
                response = _refusal(
                    Refused(503, f"The model server failed: {error.message}", retry_after_s=2)
                )
            status = response.status
            return response
        finally:
            metrics.REQUESTS.add(path, str(status))
            log.info(
                "%s",
                json.dumps(
                    {
                        "path": path,
                        "status": status,
                        "client": who,
                        "ms": round(1000 * (time.monotonic() - started_at), 1),
                    }
                ),
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
        if contract.GENERATE not in replicas.any().backend.signatures:
            raise Refused(400, f"{replicas.name} writes no texts.", param="model")
        groups = [_texts(asked) for asked in writing.prompts]
        texts = [text for group in groups for text in group]
        try:
            for group in groups:
                replicas.add(group)
            await groups[0][0].begun()  # what is wrong with the request is its status
            if writing.stream:
                return await send_stream(request, shape, groups, writing.include_usage)
            pieces: list[list[Piece]] = [[] for _ in texts]
            async for index, piece in merged(texts):
                pieces[index].append(piece)
        finally:
            for text in texts:
                text.leave()
        usage = usage_of(groups, sum(piece.num_tokens for each in pieces for piece in each))
        choices = [shape.choice(index, each) for index, each in enumerate(pieces)]
        return _json(shape.answer(choices, usage))

    async def _embeddings(self, request: web.Request) -> web.Response:
        body, replicas = await self._asked(request)
        texts, in_base64 = openai_requests.embedding(body)
        backend = replicas.any().backend
        if contract.EMBED not in backend.signatures:
            raise Refused(400, f"{replicas.name} makes no embeddings.", param="model")
        found = await backend.embed(texts)
        for one in found:
            if one.error:
                raise Refused(400, f"The model cannot read this: {one.error}.", param="input")
        num_tokens = sum(await backend.num_tokens(texts))
        return _json(embeddings(replicas.name, found, in_base64, num_tokens))

    async def _models(self, _request: web.Request) -> web.Response:
        return _json({"object": "list", "data": [self._card(name) for name in self._replicas]})

    async def _model(self, request: web.Request) -> web.Response:
        return _json(self._card(self._replicas_of(request.match_info["model"]).name))

    def _card(self, name: str) -> dict[str, Any]:
        return {"id": name, "object": "model", "created": self._started_at, "owned_by": "tfllm"}

    async def _health(self, _request: web.Request) -> web.Response:
        up = {name: replicas.is_up for name, replicas in self._replicas.items()}
        is_fine = all(up.values()) and not self._is_draining
        body = {"status": "draining" if self._is_draining else "ok" if is_fine else "down"}
        return _json({**body, "models": up}, 200 if is_fine else 503)

    async def _metrics(self, _request: web.Request) -> web.Response:
        return web.Response(body=page().encode(), headers={"Content-Type": CONTENT_TYPE})

    def _client(self, request: web.Request) -> Client:
        return self._keys.client(request.headers.get("Authorization"))

    async def _asked(self, request: web.Request) -> tuple[dict[str, Any], Replicas]:
        try:
            body = json.loads(await request.read())
        except (ValueError, RecursionError) as error:
            raise Refused(400, f"The body must be JSON: {error}.") from None
        if not isinstance(body, dict):
            raise Refused(400, "The body must be an object.")
        if self._is_draining:
            raise Refused(503, "The gateway is being stopped.", retry_after_s=5)
        return body, self._replicas_of(body.get("model"))

    def _replicas_of(self, name: Any) -> Replicas:
        if not isinstance(name, str) or name not in self._replicas:
            known = ", ".join(self._replicas)
            raise Refused(
                404,
                f"There is no model {name!r} here, but {known}.",
                param="model",
                code="model_not_found",
            )
        return self._replicas[name]


def _texts(asked: Sequence[Any]) -> list[Text]:
    """Texts of one prompt: the first reads it."""
    first = Text(asked[0])
    return [first, *(Text(each, leader=first) for each in asked[1:])]


def _json(body: Any, status: int = 200, headers: Mapping[str, str] | None = None) -> web.Response:
    text = json.dumps(body, ensure_ascii=False)
    return web.json_response(text=text, status=status, headers=headers)


def _refusal(refused: Refused) -> web.Response:
    headers = {}
    if refused.retry_after_s is not None:
        headers["Retry-After"] = str(max(1, round(refused.retry_after_s)))
    return _json(error_body(refused), refused.status, headers)
