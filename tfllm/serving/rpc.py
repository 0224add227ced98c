"""The border between handlers and gRPC: exceptions become status codes."""

from __future__ import annotations

import functools
import logging
import traceback

import grpc
from google.protobuf.message import DecodeError

from tfllm.serving.callers import answering
from tfllm.serving.status import Code, ServingError

log = logging.getLogger(__name__)
# What clients send, at the level DEBUG: nobody gets it who has not asked for this logger.
sent = logging.getLogger("tfllm.serving.requests")

GRPC_CODES = {code.value[0]: code for code in grpc.StatusCode}

# Bytes. Longer messages do not fit a client's limit on headers. Source: the stock server's
# model_servers/grpc_status_util.cc.
MAX_MESSAGE = 1024


def answered(handler):
    """Makes an RPC of a handler `(self, request, context) -> response` that raises `ServingError`.

    Anything else that it raises is a defect of the server: the client gets INTERNAL and the log the
    place, without the exception's message, which may hold what the client sent.
    """

    @functools.wraps(handler)
    def rpc(self, request, context):
        if sent.isEnabledFor(logging.DEBUG):
            sent.debug("%s %s", handler.__name__, " ".join(str(request).split()))
        try:
            with answering(context):
                return handler(self, request, context)
        except ServingError as error:
            code, message = error.code, error.message
        except Exception as error:  # noqa: BLE001  the outermost handler
            frames = "".join(traceback.format_tb(error.__traceback__))
            log.error("%s in %s\n%s", type(error).__name__, handler.__name__, frames)
            code, message = Code.INTERNAL, f"{type(error).__name__}: {error}"
        if len(encoded := message.encode()) > MAX_MESSAGE:
            message = encoded[:MAX_MESSAGE].decode(errors="ignore") + "...TRUNCATED"
        return context.abort(GRPC_CODES[code], message)

    return rpc


class Parsing(grpc.ServerInterceptor):
    """Answers INTERNAL, as the stock server does, to what is no message of the RPC's type.

    gRPC would, too, but it logs a traceback and keeps some kilobytes for each.
    """

    def intercept_service(self, continuation, handler_call_details):
        handler = continuation(handler_call_details)
        if handler is None or handler.unary_unary is None:
            return handler

        def parsed(data: bytes):
            try:
                return handler.request_deserializer(data)
            except DecodeError as error:
                return error

        def rpc(request, context):
            if isinstance(request, DecodeError):
                context.abort(grpc.StatusCode.INTERNAL, "the request cannot be parsed")
            return handler.unary_unary(request, context)

        return grpc.unary_unary_rpc_method_handler(rpc, parsed, handler.response_serializer)
