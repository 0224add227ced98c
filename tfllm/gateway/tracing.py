"""Traces of requests for OpenTelemetry: a span for each, and in it the stages of its texts.

Nothing of this is imported, and nothing is done for it, unless traces are wanted.

Source:
    https://opentelemetry.io/docs/specs/semconv/gen-ai/ for the names of attributes, and
    https://www.w3.org/TR/trace-context/ for what is taken from clients and sent to servers.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from tfllm._version import __version__
from tfllm.errors import UserError
from tfllm.gateway.backend import Backend, Decoded, Prefilled
from tfllm.gateway.records import Follower, Record
from tfllm.gateway.texts import Text
from tfllm.serving.text_generation import METHOD, SERVICE
from tfllm.serving.trace_context import TRACEPARENT

_OPERATIONS = {
    "/v1/completions": "text_completion",
    "/v1/chat/completions": "chat",
    "/v1/embeddings": "embeddings",
    f"/{SERVICE}/{METHOD}": "text_completion",
}
_HEADER = "traceparent"


class Tracing:
    """Where spans go.

    Args:
        provider: An `opentelemetry.sdk.trace.TracerProvider`.
    """

    def __init__(self, provider: Any):
        from opentelemetry.trace import SpanKind
        from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

        self._provider = provider
        self._tracer = provider.get_tracer("tfllm.gateway", __version__)
        self._kind = SpanKind.SERVER
        self._propagator = TraceContextTextMapPropagator()

    @classmethod
    def to(cls, endpoint: str) -> Tracing:
        """Sends spans in the background to a collector that speaks OTLP over HTTP.

        Args:
            endpoint: As "http://localhost:4318".

        Raises:
            UserError: the packages are not installed, or an address of another form.
        """
        if not endpoint.startswith(("http://", "https://")):
            raise UserError(f"Traces go to http://HOST:PORT of a collector, got {endpoint!r}.")
        try:
            from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
            from opentelemetry.sdk.resources import Resource
            from opentelemetry.sdk.trace import TracerProvider
            from opentelemetry.sdk.trace.export import BatchSpanProcessor
        except ModuleNotFoundError as error:
            raise UserError(
                f"Traces need more packages ({error}): install tfllm[tracing]."
            ) from None
        provider = TracerProvider(resource=Resource.create({"service.name": "tfllm-gateway"}))
        exporter = OTLPSpanExporter(endpoint=f"{endpoint.rstrip('/')}/v1/traces")
        provider.add_span_processor(BatchSpanProcessor(exporter))
        return cls(provider)

    def close(self) -> None:
        """Sends what is not sent yet."""
        self._provider.shutdown()

    @contextmanager
    def of_request(self, record: Record) -> Iterator[None]:
        """The span of a request that is answered inside the `with`."""
        from opentelemetry import trace

        parent = self._propagator.extract({_HEADER: record.traceparent})
        # Not the current one of this context: that would be of all that is begun in it.
        span = self._tracer.start_span(record.path, parent, kind=self._kind)
        context = trace.set_span_in_context(span)
        texts: list[TracedText] = []

        def follow(keeps_text: bool) -> TracedText:
            texts.append(TracedText(self, context, keeps_text))
            return texts[-1]

        record.new_follower = follow
        try:
            yield
        finally:
            for text in texts:
                text.end()
            self._describe(span, record)
            span.end()

    def _describe(self, span: Any, record: Record) -> None:
        told = record.line()
        span.set_attribute("tfllm.request.id", record.id)
        if record.status.isdecimal():
            span.set_attribute("http.route", record.path)
            span.set_attribute("http.response.status_code", int(record.status))
        else:
            span.set_attribute("rpc.response.status_code", record.status)
        if operation := _OPERATIONS.get(record.path):
            span.update_name(f"{operation} {record.model}".rstrip())
            span.set_attribute("gen_ai.operation.name", operation)
            span.set_attribute("gen_ai.request.model", record.model)
        if "prompt_tokens" in told:
            span.set_attribute("gen_ai.usage.input_tokens", told["prompt_tokens"])
            span.set_attribute("gen_ai.usage.output_tokens", told["completion_tokens"])
            span.set_attribute("gen_ai.response.finish_reasons", told["finish_reasons"])

    def stage(self, name: str, context: Any) -> tuple[Any, str]:
        """A span that is begun, and the header by which others name it as their parent."""
        from opentelemetry import trace

        span = self._tracer.start_span(name, context)
        carrier: dict[str, str] = {}
        self._propagator.inject(carrier, trace.set_span_in_context(span))
        return span, carrier.get(_HEADER, "")


class TracedText(Follower):
    """One text, whose stages are spans: `queue`, `prefill` and `decode`.

    Attributes:
        traceparent: Of the stage that it is in.
    """

    def __init__(self, tracing: Tracing, context: Any, keeps_text: bool):
        super().__init__(keeps_text)
        self._tracing = tracing
        self._context = context
        self._is_over = False
        self._stage = "queue"
        self._span, self.traceparent = tracing.stage(self._stage, context)

    def _enter(self, stage: str) -> None:
        self._span.end()
        self._stage = stage
        self._span, self.traceparent = self._tracing.stage(stage, self._context)

    def reading(self, server: str) -> None:
        """A call that reads the prompt begins."""
        if self._stage == "queue":
            self._enter("prefill")
        elif self._stage == "decode":
            self._span.add_event("begun again")
            return
        self._span.set_attribute("server.address", server)

    def was_read(self, told: Prefilled) -> None:
        """The prompt was read whole."""
        if self._stage == "prefill" and not self._is_over:
            self._span.set_attribute("tfllm.prompt_tokens", told.num_prompt_tokens)
            self._span.set_attribute("tfllm.reused_tokens", told.num_reused)
            self._enter("decode")

    def take(self, piece):
        super().take(piece)
        if piece.finish_reason:
            self.end()

    def end(self) -> None:
        """Nothing comes any more."""
        if self._is_over:
            return
        self._is_over = True
        if self._stage == "queue" and self.num_tokens:
            self._span.update_name("generate")  # of a server without sessions: all in one call
        if self.num_tokens:
            self._span.set_attribute("gen_ai.usage.output_tokens", self.num_tokens)
        self._span.end()


class TracedBackend(Backend):
    """A `Backend` whose calls are told of the trace they are part of.

    A call for several texts can have one parent only: it is the stage of the first that is traced.
    """

    async def prefill(self, texts: Sequence[Text], most: Sequence[int]) -> list[Prefilled]:
        followers = [text.follower for text in texts]
        for follower in followers:
            if isinstance(follower, TracedText):
                follower.reading(self.address)
        with _part_of(followers):
            told = await super().prefill(texts, most)
        for follower, one in zip(followers, told, strict=True):
            if isinstance(follower, TracedText) and one.is_ready:
                follower.was_read(one)
        return told

    async def decode(self, texts: Sequence[Text], num_tokens: int) -> list[Decoded]:
        with _part_of([text.follower for text in texts]):
            return await super().decode(texts, num_tokens)


@contextmanager
def _part_of(followers: Sequence[Any]) -> Iterator[None]:
    traced = (each.traceparent for each in followers if isinstance(each, TracedText))
    token = TRACEPARENT.set(next(traced, ""))
    try:
        yield
    finally:
        TRACEPARENT.reset(token)
