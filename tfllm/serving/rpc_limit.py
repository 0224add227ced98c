"""How many RPCs may run or wait, and which are answered under any load."""

from __future__ import annotations

import threading
from concurrent import futures

import grpc

# Load balancers and probes ask these: a server that is busy is not one that is ill.
QUESTIONS = ("/grpc.health.v1.Health/Check", "/tensorflow.serving.ModelService/GetModelStatus")


class CountedThreads:
    """The threads that answer RPCs.

    Args:
        threads: What they are; others may use them, too, and are not counted.

    Attributes:
        num_rpcs: How many run or wait for a thread.
    """

    def __init__(self, threads: futures.Executor):
        self.num_rpcs = 0
        self._threads = threads
        self._lock = threading.Lock()

    def submit(self, function, /, *args, **kwargs) -> futures.Future:
        """As of an executor, which is all that gRPC asks it for."""
        self._add(1)
        future = self._threads.submit(function, *args, **kwargs)
        future.add_done_callback(lambda _: self._add(-1))
        return future

    def _add(self, number: int) -> None:
        with self._lock:
            self.num_rpcs += number


class RpcLimit(grpc.ServerInterceptor):
    """Refuses at once what is one RPC too many, and has `QUESTIONS` answered beside the others.

    gRPC's own limit would count and refuse those, too.

    Args:
        counted: What answers the others.
        max_rpcs: How many of them may run or wait.
        threads: What refuses, and answers the questions.
    """

    def __init__(self, counted: CountedThreads, max_rpcs: int, threads: futures.ThreadPoolExecutor):
        self._counted = counted
        self._max_rpcs = max_rpcs
        self._threads = threads
        self._refusal = self._beside(_refuse)

    def intercept_service(self, continuation, handler_call_details):
        handler = continuation(handler_call_details)
        if handler is None or handler.unary_unary is None:
            return handler
        if handler_call_details.method in QUESTIONS:
            return self._beside(
                handler.unary_unary, handler.request_deserializer, handler.response_serializer
            )
        return self._refusal if self._counted.num_rpcs >= self._max_rpcs else handler

    def _beside(self, behaviour, *serializers) -> grpc.RpcMethodHandler:
        def rpc(request, context):
            return behaviour(request, context)

        rpc.experimental_thread_pool = self._threads  # type: ignore[attr-defined]
        return grpc.unary_unary_rpc_method_handler(rpc, *serializers)


def _refuse(_request, context) -> None:
    context.abort(grpc.StatusCode.RESOURCE_EXHAUSTED, "Concurrent RPC limit exceeded!")
