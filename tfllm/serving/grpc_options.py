"""How the gRPC port answers: certificates, sizes, and how much at once."""

from __future__ import annotations

import os
from collections.abc import Mapping
from concurrent import futures
from dataclasses import dataclass, field

import grpc

from tfllm.errors import UserError
from tfllm.serving.config_protos import read_ssl_config
from tfllm.serving.rpc import Parsing
from tfllm.serving.rpc_limit import CountedThreads, RpcLimit

# What the stock server takes: the largest length that a message can say of itself.
MAX_MESSAGE_BYTES = 2**31 - 1


@dataclass(frozen=True)
class ServerCertificate:
    """Who the server is, and whom it answers.

    Attributes:
        key: The private key, in PEM form.
        certificate: The certificate and those that vouch for it, in PEM form.
        client_roots: Certificates, one of which must vouch for a client's; None answers everybody.
    """

    key: bytes = field(repr=False)
    certificate: bytes
    client_roots: bytes | None = None

    def credentials(self) -> grpc.ServerCredentials:
        return grpc.ssl_server_credentials(
            [(self.key, self.certificate)], self.client_roots, self.client_roots is not None
        )

    @classmethod
    def of_config(cls, path: str | os.PathLike) -> ServerCertificate:
        """What a `--ssl_config_file` of the stock server says.

        Raises:
            UserError: a file that cannot be read or parsed, or that lacks a PEM text.
        """
        config = read_ssl_config(path)
        needed = ["server_key", "server_cert"] + ["custom_ca"] * config.client_verify
        for name in needed:
            if "-----BEGIN " not in getattr(config, name):
                raise UserError(
                    f"{name} in {path} must be the PEM text itself, with its lines joined by \\n: "
                    "got none that begins with -----BEGIN. The stock server opens no other file."
                )
        roots = config.custom_ca.encode() if config.client_verify else None
        return cls(config.server_key.encode(), config.server_cert.encode(), roots)


@dataclass(frozen=True)
class GrpcOptions:
    """How the gRPC port answers.

    Attributes:
        certificate: Who the server is; None is without TLS.
        max_message_bytes: A larger request is refused with RESOURCE_EXHAUSTED.
        max_requests: RPCs that run or wait at the same time; more are refused with
            RESOURCE_EXHAUSTED at once. None is a thousand more than can run. Those who ask for the
            health or the status of a model are not counted and always answered.
        max_rows: A request for more rows is refused with INVALID_ARGUMENT; None takes any number.
        socket_path: A UNIX socket to answer on, beside the port.
        channel_arguments: gRPC's own, such as `{"grpc.max_connection_age_ms": 2000}`.
    """

    certificate: ServerCertificate | None = None
    max_message_bytes: int = MAX_MESSAGE_BYTES
    max_requests: int | None = None
    max_rows: int | None = None
    socket_path: str | None = None
    channel_arguments: Mapping[str, int | str] = field(default_factory=dict)

    def server(
        self,
        threads: futures.Executor,
        num_threads: int,
        others: futures.ThreadPoolExecutor,
    ) -> grpc.Server:
        """A gRPC server with these limits that does not listen yet.

        Args:
            threads: What answers.
            num_threads: How many RPCs `threads` can run.
            others: What answers those who ask for the health or the status.
        """
        options = {
            "grpc.max_receive_message_length": self.max_message_bytes,
            "grpc.max_send_message_length": -1,
            # Else a second server on the same port takes half of the requests, silently.
            "grpc.so_reuseport": 0,
            **self.channel_arguments,
        }
        counted = CountedThreads(threads)
        limit = RpcLimit(counted, self.max_requests or num_threads + 1000, others)
        return grpc.server(
            counted,  # type: ignore[arg-type]
            interceptors=[limit, Parsing()],
            options=list(options.items()),
        )

    def listen(self, server: grpc.Server, address: str) -> int:
        """Opens the port, and the socket if there is one; the number of the port.

        Raises:
            UserError: what cannot be listened on, or a certificate that is none.
        """
        if self.socket_path is not None:
            self._add(server, f"unix:{self.socket_path}")
        return self._add(server, address)

    def _add(self, server: grpc.Server, address: str) -> int:
        try:
            if self.certificate is None:
                return server.add_insecure_port(address)
            return server.add_secure_port(address, self.certificate.credentials())
        except RuntimeError as error:
            or_else = "" if self.certificate is None else " Or the certificate or its key is none."
            raise UserError(
                f"cannot listen on {address}: another program has that port, or this machine has "
                f"no such address. Choose another port, or 0 for a free one.{or_else}"
            ) from error
