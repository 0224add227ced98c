"""What a run writes beside its steps: one piece after the other, in a thread of its own."""

from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor


class Writer:
    """Writes pieces in the order in which they were added, while the caller goes on.

    Inside `with`; at its end all that was added is written. After an error nothing more is: a later
    piece may rest on the one that failed.

    While two pieces wait or are written, adding a third waits: each may hold a copy of the state.
    """

    def __init__(self):
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="writer")
        self._last: Future[None] = Future()
        self._last.set_result(None)
        self._before = self._last

    def __enter__(self):
        return self

    def __exit__(self, kind, *_):
        self._thread.shutdown()
        if kind is None:
            self.wait()

    def add(self, write: Callable[[], None]) -> None:
        """Takes a piece.

        Args:
            write: Called once, in the thread.

        Raises:
            Exception: what an earlier piece raised.
        """
        self._before.result()
        self.check()
        self._before, self._last = self._last, self._thread.submit(_after, self._last, write)

    def check(self) -> None:
        """Raises what a piece has raised, if one has."""
        if self._last.done():
            self._last.result()

    def wait(self) -> None:
        """Waits until all is written. Raises what a piece has raised, if one has."""
        self._last.result()


def _after(before: Future[None], write: Callable[[], None]) -> None:
    before.result()
    write()
