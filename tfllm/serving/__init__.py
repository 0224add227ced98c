"""Serving: clients for gRPC and REST, an embedded server, the stock server's start, moving labels.

The client and the server are imported on first use: a client loads neither models nor the server.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from tfllm.serving.batching_parameters import BatchingParameters, read_batching_parameters
    from tfllm.serving.client import AsyncClient, Client
    from tfllm.serving.models import ServedModel
    from tfllm.serving.promotion import promote, rollback
    from tfllm.serving.rest_server import RestOptions
    from tfllm.serving.server import Server, serve
    from tfllm.serving.session_stream import Piece
    from tfllm.serving.status import Code, ServingError
    from tfllm.serving.stock import run_stock_server, stock_server_command
    from tfllm.serving.transport import TLS

_HOMES = {
    "TLS": "transport",
    "AsyncClient": "client",
    "BatchingParameters": "batching_parameters",
    "Client": "client",
    "Code": "status",
    "Piece": "session_stream",
    "RestOptions": "rest_server",
    "ServedModel": "models",
    "Server": "server",
    "ServingError": "status",
    "promote": "promotion",
    "read_batching_parameters": "batching_parameters",
    "rollback": "promotion",
    "run_stock_server": "stock",
    "serve": "server",
    "stock_server_command": "stock",
}

__all__ = [
    "TLS",
    "AsyncClient",
    "BatchingParameters",
    "Client",
    "Code",
    "Piece",
    "RestOptions",
    "ServedModel",
    "Server",
    "ServingError",
    "promote",
    "read_batching_parameters",
    "rollback",
    "run_stock_server",
    "serve",
    "stock_server_command",
]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_HOMES[name]}"), name)
