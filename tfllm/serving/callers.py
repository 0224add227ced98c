"""Who waits for the answer that this thread computes: until when, and whether they still do."""

from __future__ import annotations

import contextlib
import contextvars
import threading
import time
from collections.abc import Callable, Iterator
from typing import Protocol

# Seconds. Without a deadline gRPC tells of one in the far future.
_FOR_EVER = 1e9


class Caller(Protocol):
    """What is asked of a `grpc.ServicerContext`."""

    def time_remaining(self) -> float:
        """Seconds until the caller waits no more."""

    def add_callback(self, callback: Callable[[], object]) -> bool:
        """Has `callback` called at the end of the call; False if that is over."""


_CALLER: contextvars.ContextVar[Caller | None] = contextvars.ContextVar("caller", default=None)


class RestCaller:
    """The client of one HTTP request.

    Args:
        timeout_s: Seconds that it waits from now on.
    """

    def __init__(self, timeout_s: float):
        self._ends_at = time.monotonic() + timeout_s
        self._callbacks: list[Callable[[], object]] | None = []
        self._lock = threading.Lock()

    def time_remaining(self) -> float:
        return max(self._ends_at - time.monotonic(), 0.0)

    def add_callback(self, callback: Callable[[], object]) -> bool:
        with self._lock:
            if self._callbacks is None:
                return False
            self._callbacks.append(callback)
            return True

    def leave(self) -> None:
        """It has its answer, or has gone."""
        with self._lock:
            callbacks, self._callbacks = self._callbacks or [], None
        for callback in callbacks:
            callback()


@contextlib.contextmanager
def answering(caller: Caller) -> Iterator[None]:
    """What this thread does inside the `with` is done for `caller`."""
    token = _CALLER.set(caller)
    try:
        yield
    finally:
        _CALLER.reset(token)


def when_client_leaves(callback: Callable[[], object]) -> bool:
    """Has `callback` called when the call that this thread answers ends, for whatever reason.

    Returns:
        False if it has already ended: `callback` is then not called. True if nobody waits, as in a
        warm-up.
    """
    caller = _CALLER.get()
    return caller is None or caller.add_callback(callback)


def deadline() -> float:
    """The moment, on `time.monotonic`'s clock, when the client waits no more; inf if it will."""
    caller = _CALLER.get()
    left_s = _FOR_EVER if caller is None else caller.time_remaining()
    return time.monotonic() + left_s if left_s < _FOR_EVER else float("inf")
