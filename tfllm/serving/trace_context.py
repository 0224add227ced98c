"""Of which trace a call is part: what goes with it to the server, by whatever waits for it.

Source:
    https://www.w3.org/TR/trace-context/
"""

from __future__ import annotations

import contextvars

# The header `traceparent` of what is called from here; "" sends none.
TRACEPARENT: contextvars.ContextVar[str] = contextvars.ContextVar("traceparent", default="")
