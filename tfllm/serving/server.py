"""The embedded server: gRPC in this process, speaking as `tensorflow_model_server` does."""

from __future__ import annotations

import contextlib
import logging
import os
import signal
import sys
import threading
from concurrent import futures

import grpc
from tensorflow_serving.apis import model_service_pb2_grpc, prediction_service_pb2_grpc

from tfllm.errors import UserError
from tfllm.serving.model_service import ModelService
from tfllm.serving.models import Models, served_models
from tfllm.serving.prediction_service import PredictionService
from tfllm.serving.versions import Versions

log = logging.getLogger(__name__)


class Server:
    """Serves models over gRPC until it is stopped; also a context manager.

    Args:
        models: Base paths by name, or a list of base paths named for their folders.
        port: TCP port; 0 takes a free one.
        host: Address to listen on. The default is reachable from this machine only: there is no
            authentication.
        poll_s: Seconds between two looks at the base paths.
        num_threads: Requests that run at the same time; more wait for their turn.

    Attributes:
        port: The port it listens on, after `start`.
        versions: What the models' versions are doing.

    Raises:
        UserError: a base path that does not exist, or from `start` a port that is taken.
    """

    def __init__(
        self,
        models: Models,
        port: int = 8500,
        host: str = "127.0.0.1",
        *,
        poll_s: float = 1.0,
        num_threads: int | None = None,
    ):
        self.port = port
        self._host = f"[{host}]" if ":" in host else host
        self.versions = Versions(served_models(models), poll_s)
        # Status and metadata share the threads, so a few more than there is work for.
        self._threads = futures.ThreadPoolExecutor(num_threads or 8 + 4 * (os.cpu_count() or 1))
        self._grpc = grpc.server(
            self._threads,
            options=[
                ("grpc.max_receive_message_length", -1),
                ("grpc.max_send_message_length", -1),
                # Else a second server on the same port takes half of the requests, silently.
                ("grpc.so_reuseport", 0),
            ],
        )
        prediction_service_pb2_grpc.add_PredictionServiceServicer_to_server(
            PredictionService(self.versions), self._grpc
        )
        model_service_pb2_grpc.add_ModelServiceServicer_to_server(
            ModelService(self.versions), self._grpc
        )

    def start(self) -> Server:
        """Listens and begins to load; returns before the models are available."""
        address = f"{self._host}:{self.port}"
        try:
            self.port = self._grpc.add_insecure_port(address)
        except RuntimeError as error:
            raise UserError(
                f"cannot listen on {address}: another program has that port, or this machine has "
                "no such address. Choose another port, or 0 for a free one."
            ) from error
        self.versions.start()
        self._grpc.start()
        log.info("listening on %s:%d", self._host, self.port)
        return self

    def wait_until_available(self, timeout_s: float | None = None) -> None:
        """Blocks until every model can answer.

        Raises:
            ServingError: DEADLINE_EXCEEDED, or why a model failed to load.
        """
        self.versions.wait_until_available(timeout_s)

    def stop(self, grace_s: float | None = 30.0) -> None:
        """Refuses new requests, lets the running ones end for `grace_s`, then unloads."""
        self._grpc.stop(grace_s).wait()
        self.versions.stop()
        self._threads.shutdown()

    def __enter__(self) -> Server:
        return self.start()

    def __exit__(self, *_) -> None:
        self.stop()


def serve(models: Models, *, grace_s: float = 60.0, **options) -> None:
    """Serves until SIGTERM or SIGINT, then finishes the running requests; for a program's main.

    A second signal ends the process at once. What happens to the models is told on stderr.

    Args:
        models: As `Server`.
        grace_s: Seconds the running requests have after the signal.
        **options: The other arguments of `Server`.

    Raises:
        UserError: as `Server`.
    """
    stopping = threading.Event()

    def on_signal(number, _frame):
        if stopping.is_set():
            os._exit(128 + number)  # an op that hangs would block every gentler way out
        stopping.set()

    with _logging_to_stderr(), _signals_to(on_signal):
        server = Server(models, **options).start()
        stopping.wait()
        log.info("stopping: waiting up to %g s for running requests", grace_s)
        server.stop(grace_s)


@contextlib.contextmanager
def _signals_to(handler):
    before = {n: signal.signal(n, handler) for n in (signal.SIGTERM, signal.SIGINT)}
    try:
        yield
    finally:
        for number, old in before.items():
            signal.signal(number, old)


@contextlib.contextmanager
def _logging_to_stderr():
    root = logging.getLogger("tfllm.serving")
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(logging.Formatter("%(asctime)s %(message)s"))
    level = root.level
    root.addHandler(handler)
    root.setLevel(logging.INFO)
    try:
        yield
    finally:
        root.removeHandler(handler)
        root.setLevel(level)
