"""Memory that is free, given back to the system."""

from __future__ import annotations

import ctypes
import sys


def give_back_memory() -> None:
    """Has the C library give back the pages that it keeps for later; only glibc can be asked to.

    It keeps what the reading of a graph took, and much of a model that was unloaded.
    """
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None) if sys.platform == "linux" else None
    if trim is not None:
        trim(0)
