"""The border between handlers and gRPC: exceptions become status codes."""

from __future__ import annotations

import functools
import logging
import traceback

import grpc

from tfllm.serving.status import Code, ServingError

log = logging.getLogger(__name__)

GRPC_CODES = {code.value[0]: code for code in grpc.StatusCode}

# Longer messages do not fit a client's limit on headers. Source: the stock server's
# model_servers/grpc_status_util.cc.
MAX_MESSAGE = 1024


def answered(handler):
    """Makes an RPC of a handler `(self, request, context) -> response` that raises `ServingError`.

    Anything else that it raises is a defect of the server: the client gets INTERNAL and the log the
    place, without the exception's message, which may hold what the client sent.
    """

    @functools.wraps(handler)
    def rpc(self, request, context):
        try:
            return handler(self, request, context)
        except ServingError as error:
            code, message = error.code, error.message
        except Exception as error:  # noqa: BLE001  the outermost handler
            frames = "".join(traceback.format_tb(error.__traceback__))
            log.error("%s in %s\n%s", type(error).__name__, handler.__name__, frames)
            code, message = Code.INTERNAL, f"{type(error).__name__}: {error}"
        if len(message) > MAX_MESSAGE:
            message = message[:MAX_MESSAGE] + "...TRUNCATED"
        return context.abort(GRPC_CODES[code], message)

    return rpc
