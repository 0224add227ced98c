"""A gateway as a program: until SIGTERM, then with a grace for the texts that run."""

from __future__ import annotations

import asyncio
import logging
import signal
from collections.abc import Sequence
from typing import Any

from tfllm.errors import UserError
from tfllm.gateway.backend import Backend
from tfllm.gateway.balancing import Replicas
from tfllm.gateway.endpoint import Endpoint
from tfllm.gateway.keys import Keys
from tfllm.gateway.records import Records
from tfllm.gateway.scheduler import LOOK_S, Scheduler
from tfllm.gateway.server import Gateway
from tfllm.stderr_log import logged_to_stderr

log = logging.getLogger(__name__)


def gateway(
    endpoints: Sequence[tuple[str, str]],
    *,
    keys: Keys | None = None,
    records: Records | None = None,
    max_waiting: int = 256,
    look_s: float = LOOK_S,
    **connection: Any,
) -> Gateway:
    """A gateway that is not started yet.

    Args:
        endpoints: Pairs of "host:port" of gRPC and a model's name; those of one name are servers
            of the same model.
        keys: Who may ask; default everybody.
        records: What is told of requests; default nothing but numbers in the metrics.
        max_waiting: Texts that may wait for each server; more are refused.
        look_s: Seconds between two looks at each server for the version that is meant.
        **connection: Of `tfllm.serving.Client`, as `timeout_s`.

    Raises:
        UserError: an address of REST, or one twice.
    """
    found: dict[str, list[Scheduler]] = {}
    kind: type[Backend] = Backend
    if records is not None and records.tracing is not None:
        from tfllm.gateway.tracing import TracedBackend

        kind = TracedBackend
    if len(set(endpoints)) < len(endpoints):
        raise UserError("An endpoint is named twice.")
    for address, model in endpoints:
        if "//" in address:
            raise UserError(f"A gateway asks the gRPC ports of servers, got {address}.")
        endpoint = Endpoint(address, model, kind=kind, **connection)
        found.setdefault(model, []).append(Scheduler(endpoint, max_waiting, look_s=look_s))
    return Gateway({name: Replicas(name, each) for name, each in found.items()}, keys, records)


def run(served: Gateway, host: str, port: int, grpc_port: int | None, grace_s: float) -> None:
    """Serves until SIGTERM or SIGINT.

    Args:
        served: What `gateway` made.
        host: Address to listen on.
        port: TCP port; 0 takes a free one, which is told on stderr.
        grpc_port: The same for gRPC; None serves none.
        grace_s: Seconds that running texts have after the signal.

    Raises:
        UserError: the port cannot be had.
    """
    with logged_to_stderr("tfllm.gateway"):
        asyncio.run(_serve(served, host, port, grpc_port, grace_s))


async def _serve(
    served: Gateway, host: str, port: int, grpc_port: int | None, grace_s: float
) -> None:
    stopping = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stopping.set)
    try:
        await served.start(host, port, grpc_port)
    except OSError as error:
        raise UserError(f"Cannot listen on {host}: {error.strerror}.") from None
    log.info("listening on http://%s:%d", host, served.port)
    if served.grpc_port is not None:
        log.info("listening on %s:%d for gRPC", host, served.grpc_port)
    await stopping.wait()
    log.info("stopping: waiting up to %g s for running texts", grace_s)
    await served.stop(grace_s)
