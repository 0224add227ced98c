"""What the gateway before the servers is told, for exports that keep texts in the server."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from tfllm._version import __version__
from tfllm.deployment.flags import listed
from tfllm.deployment.sizes import Sizes

# Without TensorFlow it takes 0.1 GB, and 16 MB for each body of a request at most.
_MIB = 512
# Of a pod whose pause before SIGTERM is 5 s.
_BESIDES_GRACE_S = 15


def gateway_values(sizes: Sizes, servers: int, label: str) -> dict[str, Any]:
    """Values of the templates.

    Args:
        sizes: Of a server.
        servers: How many there are in Kubernetes.
        label: Of the version that is asked for.
    """
    pods = [f"serving-{number}.serving" for number in range(servers)]
    flags = _flags(sizes, label)
    return {
        "tfllm": __version__,
        "servers": servers,
        "slots": sizes.slots,
        "compose_endpoints": _endpoints(["serving"], sizes, 6),
        "compose_gateway_flags": listed(flags, 6),
        "kubernetes_endpoints": _endpoints(pods, sizes, 12),
        "kubernetes_gateway_flags": listed(flags, 12),
        "gateway_mib": _MIB,
        "gateway_stop_s": sizes.longest_text_s + _BESIDES_GRACE_S,
    }


def _endpoints(hosts: Sequence[str], sizes: Sizes, indent: int) -> str:
    """Each server by a name of its own, as a text is in the memory of one of them."""
    return "\n".join(
        f'{" " * indent}- "{host}:8500/{export.name}"' for host in hosts for export in sizes.exports
    )


def _flags(sizes: Sizes, label: str) -> Sequence[tuple[str, str]]:
    return (
        (
            f"--label={label}",
            "The version that is asked for; which one that is it asks every few seconds.",
        ),
        ("--host=0.0.0.0", "All addresses of the container."),
        ("--port=8080", "HTTP."),
        ("--grpc-port=8081", "Streams of texts by gRPC."),
        ("--api-keys=/keys/keys.txt", "Who may ask; without keys in it nothing starts."),
        (
            f"--grace={sizes.longest_text_s}",
            "For texts that run when it is told to end: one that fills its slot while all others\n"
            "are taken, and at least 30 s.",
        ),
    )
