"""The embedded server: gRPC and REST in this process, as `tensorflow_model_server` speaks them."""

from __future__ import annotations

import contextlib
import logging
import os
import signal
import threading
from concurrent import futures

from tensorflow_serving.apis import model_service_pb2_grpc, prediction_service_pb2_grpc

from tfllm.errors import UserError
from tfllm.serving.batch_metrics import batch_counter
from tfllm.serving.batching import Batching
from tfllm.serving.batching_parameters import BatchingParameters
from tfllm.serving.config_file import ConfigFile
from tfllm.serving.grpc_options import GrpcOptions
from tfllm.serving.health import Health
from tfllm.serving.model_service import ModelService
from tfllm.serving.models import Models, served_models
from tfllm.serving.prediction_service import PredictionService
from tfllm.serving.reloading import Reloader
from tfllm.serving.rest_server import RestOptions, RestServer, listen
from tfllm.serving.servables import Servable
from tfllm.serving.states import VersionOptions
from tfllm.serving.versions import Versions
from tfllm.stderr_log import logged_to_stderr

log = logging.getLogger(__name__)

# Requests that wait in batches, each with a thread; the defaults of batching let 10,000 wait.
MAX_WAITING = 1024


class Server:
    """Serves models over gRPC and REST until it is stopped; also a context manager.

    Args:
        models: Base paths by name, or a list of base paths named for their folders.
        port: TCP port; 0 takes a free one.
        host: Address to listen on. The default is reachable from this machine only: there is no
            authentication.
        poll_s: Seconds between two looks at the base paths.
        num_threads: Requests that run at the same time; more wait for their turn. With batching
            those that wait in a batch are counted, too.
        batching: How requests merge into batches; None lets each run by itself.
        version_options: How versions are loaded, and which ones `reload` and clients may label;
            the labels of `models` may be for versions that are to come.
        grpc_options: Certificates and limits.
        rest_port: TCP port for REST; 0 takes a free one, None has no REST.
        rest: How REST answers.

    Attributes:
        port: The port it listens on, after `start`.
        rest_port: The port for REST, after `start`.
        versions: What the models' versions are doing.
        reloader: What changes them.

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
        batching: BatchingParameters | None = None,
        version_options: VersionOptions | None = None,
        grpc_options: GrpcOptions | None = None,
        rest_port: int | None = None,
        rest: RestOptions | None = None,
    ):
        self.port = port
        self.rest_port = rest_port
        self._host_name = host
        self._host = f"[{host}]" if ":" in host else host
        version_options = version_options or VersionOptions()
        self._grpc_options = grpc_options or GrpcOptions()
        self._batching = None
        if batching:
            self._batching = Batching(batching, batch_counter(batching.thread_pool_name))
        load = self._batching.load if self._batching else Servable
        self.versions = Versions(served_models(models), poll_s, version_options, load)
        self.reloader = Reloader(self.versions, version_options.label_rule)
        num_threads = num_threads or _num_threads(batching)
        self._threads = futures.ThreadPoolExecutor(num_threads)
        max_rows = self._grpc_options.max_rows
        self._rest = RestServer(self.versions, self._threads, rest, max_rows)
        self._others = futures.ThreadPoolExecutor(2)
        self._grpc = self._grpc_options.server(self._threads, num_threads, self._others)
        self._health = Health(self.versions, self._grpc)
        prediction_service_pb2_grpc.add_PredictionServiceServicer_to_server(
            PredictionService(self.versions, max_rows), self._grpc
        )
        model_service_pb2_grpc.add_ModelServiceServicer_to_server(
            ModelService(self.versions, self.reloader), self._grpc
        )

    def start(self) -> Server:
        """Listens and begins to load; returns before the models are available."""
        listening = None
        if self.rest_port is not None:
            listening = listen(self._host_name, self.rest_port)
        try:
            self.port = self._grpc_options.listen(self._grpc, f"{self._host}:{self.port}")
        except UserError:
            if listening is not None:
                listening.close()
            raise
        self.versions.start()
        self._health.start()
        self._grpc.start()
        log.info("listening on %s:%d", self._host, self.port)
        if listening is not None:
            self.rest_port = listening.getsockname()[1]
            self._rest.start(listening)
            log.info("listening on %s:%d for REST", self._host, self.rest_port)
        return self

    def reload(self, models: Models) -> None:
        """Serves these models from now on and waits until the new ones are available.

        Raises:
            UserError: as `Server`.
            ServingError: as `Reloader.reload`.
        """
        self.reloader.reload(served_models(models))

    def wait_until_available(self, timeout_s: float | None = None) -> None:
        """Blocks until every model can answer.

        Raises:
            ServingError: DEADLINE_EXCEEDED, or why a model failed to load.
        """
        self.versions.wait_until_available(timeout_s)

    def stop(self, grace_s: float | None = 30.0) -> None:
        """Refuses new requests, lets the running ones end for `grace_s`, then unloads."""
        self._health.stop()
        self.reloader.stop()
        stopping = self._grpc.stop(grace_s), self._rest.stop(grace_s)
        if self._batching:
            self._batching.flush()
        for stopped in stopping:
            stopped.wait()
        self.versions.stop()
        self._threads.shutdown()
        self._others.shutdown()

    def __enter__(self) -> Server:
        return self.start()

    def __exit__(self, *_) -> None:
        self.stop()


def _num_threads(batching: BatchingParameters | None) -> int:
    # Status and metadata share the threads, so a few more than there is work for.
    num_threads = 8 + 4 * (os.cpu_count() or 1)
    if batching is None:
        return num_threads
    # A request that waits holds a thread: with fewer, the queue would never be seen to be full.
    num_batches = batching.max_enqueued_batches + batching.num_batch_threads
    return num_threads + min(num_batches * batching.max_batch_size, MAX_WAITING)


def serve(models: Models | ConfigFile, *, grace_s: float = 60.0, **options) -> None:
    """Serves until SIGTERM or SIGINT, then finishes the running requests; for a program's main.

    A second signal ends the process at once. What happens to the models is told on stderr.

    Args:
        models: As `Server`, or a config file, which is followed.
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

    with logged_to_stderr("tfllm.serving"), _signals_to(on_signal):
        file = models if isinstance(models, ConfigFile) else None
        server = Server(models.models if isinstance(models, ConfigFile) else models, **options)
        server.start()
        with file.followed_by(server.reloader) if file else contextlib.nullcontext():
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
