"""Who may ask, and how much at once."""

from __future__ import annotations

import contextlib
import hashlib
import math
import os
import time
from collections import deque
from collections.abc import Iterator
from pathlib import Path

from tfllm.errors import UserError
from tfllm.gateway.texts import Refused

_LIMITS = ("concurrent", "per_minute")


class Client:
    """One who asks.

    Args:
        name: In logs and queues; not the key.
        concurrent: Requests at a time; None has no limit.
        per_minute: Requests in any 60 seconds; None has no limit.
    """

    def __init__(self, name: str, concurrent: int | None = None, per_minute: int | None = None):
        self.name = name
        self.concurrent = concurrent
        self.per_minute = per_minute
        self._num_running = 0
        self._asked_at: deque[float] = deque()

    @contextlib.contextmanager
    def asking(self) -> Iterator[None]:
        """Counts the request inside the `with`.

        Raises:
            Refused: it is one too many.
        """
        now = time.monotonic()
        while self._asked_at and self._asked_at[0] <= now - 60:
            self._asked_at.popleft()
        if self.per_minute is not None and len(self._asked_at) >= self.per_minute:
            raise Refused(
                429,
                f"This key may ask {self.per_minute} times a minute.",
                code="rate_limit_exceeded",
                retry_after_s=math.ceil(self._asked_at[0] + 60 - now),
            )
        if self.concurrent is not None and self._num_running >= self.concurrent:
            raise Refused(
                429,
                f"This key may have {self.concurrent} requests at a time.",
                code="rate_limit_exceeded",
                retry_after_s=1,
            )
        if self.per_minute is not None:
            self._asked_at.append(now)
        self._num_running += 1
        try:
            yield
        finally:
            self._num_running -= 1


class Keys:
    """The keys of a gateway; without any, all may ask.

    Args:
        lines: Of the file: a key, then limits if there are any, as `KEY concurrent=4
            per_minute=60 name=search`. What begins with # is no key.

    Raises:
        UserError: a line of another form, naming it by its number and not by its key.
    """

    def __init__(self, lines: list[str] | None = None):
        self._anybody = Client("") if lines is None else None
        # Hashed, so that how long a look-up takes says nothing of a key.
        self._clients: dict[bytes, Client] = {}
        for number, line in enumerate(lines or (), 1):
            key, *limits = line.split() or ["#"]
            if not key.startswith("#"):
                self._clients[_digest(key)] = _client(number, limits)

    @classmethod
    def of_file(cls, path: str | os.PathLike[str]) -> Keys:
        """Reads them.

        Raises:
            UserError: the file has no keys, or a line of another form.
        """
        keys = cls(Path(path).read_text(encoding="utf-8").splitlines())
        if not keys._clients:
            raise UserError(f"{path} has no keys: it needs one a line.")
        return keys

    def client(self, authorization: str | None) -> Client:
        """Who sent a header `Authorization: Bearer KEY`.

        Raises:
            Refused: nobody who is known.
        """
        if self._anybody is not None:
            return self._anybody
        scheme, _, key = (authorization or "").partition(" ")
        client = self._clients.get(_digest(key.strip()))
        if scheme.lower() != "bearer" or client is None:
            raise Refused(
                401,
                "This needs an API key that is known here, as the header Authorization: Bearer "
                "KEY.",
                code="invalid_api_key",
            )
        return client


def _digest(key: str) -> bytes:
    return hashlib.sha256(key.encode(errors="replace")).digest()


def _client(number: int, limits: list[str]) -> Client:
    found: dict[str, int] = {}
    label = f"key {number}"
    for limit in limits:
        name, _, value = limit.partition("=")
        if name == "name" and value:
            label = value
        elif name in _LIMITS and value.isdecimal() and int(value) > 0:
            found[name] = int(value)
        else:
            raise UserError(
                f"Line {number} of the keys: behind the key may stand concurrent=N, per_minute=N "
                f"and name=WORD; got {limit!r}."
            )
    return Client(label, **found)
