"""The status codes of the wire and the exception that carries one."""

from __future__ import annotations

import enum

from tfllm.errors import Failure


class Code(enum.IntEnum):
    """The canonical codes, numbered alike in gRPC, TensorFlow and `tensorflow.StatusProto`.

    Source:
        https://grpc.io/docs/guides/status-codes/
    """

    OK = 0
    CANCELLED = 1
    UNKNOWN = 2
    INVALID_ARGUMENT = 3
    DEADLINE_EXCEEDED = 4
    NOT_FOUND = 5
    ALREADY_EXISTS = 6
    PERMISSION_DENIED = 7
    RESOURCE_EXHAUSTED = 8
    FAILED_PRECONDITION = 9
    ABORTED = 10
    OUT_OF_RANGE = 11
    UNIMPLEMENTED = 12
    INTERNAL = 13
    UNAVAILABLE = 14
    DATA_LOSS = 15
    UNAUTHENTICATED = 16


class ServingError(Failure):
    """A request that was answered with a status other than OK.

    The server raises it and sends it, the client raises what it received.

    Attributes:
        code: A `Code`.
        message: What the server said, or what the client makes of it.
    """

    def __init__(self, code: Code, message: str):
        super().__init__(f"{code.name}: {message}")
        self.code = code
        self.message = message
