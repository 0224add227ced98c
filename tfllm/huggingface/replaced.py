"""Attributes of other people's objects, replaced for a while."""

import threading
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any

_ONE_AT_A_TIME = threading.RLock()
_NOTHING = object()


@contextmanager
def replaced(attributes: Iterable[tuple[Any, str, Any]]) -> Iterator[None]:
    """While it is open, attributes have other values; then they are as before, come what may.

    Args:
        attributes: Objects (modules, layers), names and values.
    """
    with _ONE_AT_A_TIME:
        kept = []
        try:
            for where, name, value in attributes:
                kept.append((where, name, vars(where).get(name, _NOTHING)))
                setattr(where, name, value)
            yield
        finally:
            for where, name, value in reversed(kept):
                if value is _NOTHING:
                    delattr(where, name)
                else:
                    setattr(where, name, value)
