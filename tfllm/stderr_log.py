"""The log of a program, as lines on stderr."""

import contextlib
import logging
import sys
from collections.abc import Iterator


@contextlib.contextmanager
def logged_to_stderr(name: str) -> Iterator[None]:
    """Inside `with`, what a logger and those below it are told from INFO on is on stderr."""
    logger = logging.getLogger(name)
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(logging.Formatter("%(asctime)s %(message)s"))
    level = logger.level
    logger.addHandler(handler)
    logger.setLevel(logging.INFO)
    try:
        yield
    finally:
        logger.removeHandler(handler)
        logger.setLevel(level)
