"""gRPC's own services: health for load balancers and probes, reflection for grpcurl.

Source:
    https://grpc.io/docs/guides/health-checking/ and https://grpc.io/docs/guides/reflection/
"""

from __future__ import annotations

import contextlib
import importlib
import threading
from collections.abc import Callable

import grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection

from tfllm.serving.versions import Versions

SERVICES = ("tensorflow.serving.PredictionService", "tensorflow.serving.ModelService")
_HEALTH = health_pb2.DESCRIPTOR.services_by_name["Health"].full_name
_Response = health_pb2.HealthCheckResponse

for _name in ("prediction_service_pb2", "model_service_pb2"):
    # They tell reflection what the services are. Before 2.21 they end with an error: they set what
    # protobuf no longer has, after that is done.
    with contextlib.suppress(AttributeError):
        importlib.import_module(f"tensorflow_serving.apis.{_name}")


class Health:
    """SERVING while every model has a version that answers, NOT_SERVING otherwise.

    Args:
        versions: The versions of the models.
        server: What answers; reflection is added, too.
    """

    def __init__(self, versions: Versions, server: grpc.Server):
        self._versions = versions
        self._servicer = _Servicer()
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._follow, name="tfllm-health", daemon=True)
        health_pb2_grpc.add_HealthServicer_to_server(self._servicer, server)
        reflection.enable_server_reflection((*SERVICES, _HEALTH, reflection.SERVICE_NAME), server)

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        """NOT_SERVING from now on, for those who choose where to send new requests."""
        self._stopping.set()
        self._versions.ask_again()
        self._thread.join()
        self._servicer.close()

    def _follow(self) -> None:
        while not self._stopping.is_set():
            self._versions.wait_until(self._has_changed, None)
            self._servicer.tell(is_ready=self._versions.are_all_available())

    def _has_changed(self) -> bool:
        is_ready = self._versions.are_all_available()
        return self._stopping.is_set() or is_ready != self._servicer.is_ready


class _Servicer(health_pb2_grpc.HealthServicer):
    """The ready-made servicer of grpcio-health-checking never ends a Watch, and a server that stops
    would wait for it as for any request that runs."""

    def __init__(self) -> None:
        self.is_ready = False
        self._watching: set[Callable] = set()
        self._lock = threading.Lock()

    def tell(self, *, is_ready: bool) -> None:
        with self._lock:
            if is_ready == self.is_ready:
                return
            self.is_ready = is_ready
            for send in self._watching:
                send(self._response())

    def close(self) -> None:
        self.tell(is_ready=False)
        with self._lock:
            watching, self._watching = self._watching, set()
        for send in watching:
            send(None)  # the end of the stream

    def Check(self, request, context):
        if request.service not in ("", *SERVICES):
            context.abort(grpc.StatusCode.NOT_FOUND, f"there is no service {request.service}")
        return self._response()

    def Watch(self, request, context, send):
        if request.service not in ("", *SERVICES):
            send(_Response(status=_Response.SERVICE_UNKNOWN))
            return
        with self._lock:
            self._watching.add(send)
            send(self._response())
        context.add_callback(lambda: self._forget(send))

    # Else each client that watches would hold one of the server's threads.
    Watch.experimental_non_blocking = True  # type: ignore[attr-defined]

    def _forget(self, send: Callable) -> None:
        with self._lock:
            self._watching.discard(send)

    def _response(self) -> health_pb2.HealthCheckResponse:
        return _Response(status=_Response.SERVING if self.is_ready else _Response.NOT_SERVING)
