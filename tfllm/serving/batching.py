"""Server-side batching: requests of different clients share the calls of a model.

Other than in the stock server, each version of a model has its own threads, so that a slow model
holds up no other.
"""

from __future__ import annotations

import weakref
from collections.abc import Sequence
from pathlib import Path

from tfllm.serving.batch_tensors import Feeds
from tfllm.serving.batcher import Batcher, Observe
from tfllm.serving.batching_parameters import BatchingParameters
from tfllm.serving.servables import Servable


class Batching:
    """Loads versions whose requests merge.

    Args:
        parameters: How they merge.
        observe: Called with each batch, by the thread that is about to run it.
    """

    def __init__(self, parameters: BatchingParameters, observe: Observe | None = None):
        self._parameters = parameters
        self._observe = observe
        self._batchers: weakref.WeakSet[Batcher] = weakref.WeakSet()

    def load(self, folder: str | Path) -> Servable:
        """A version that merges its requests.

        Raises:
            ServingError: as `Servable`.
        """
        servable = BatchingServable(folder, self._parameters, self._observe)
        self._batchers.add(servable.batcher)
        return servable

    def flush(self) -> None:
        """From now on no request waits for others; for a server that stops."""
        for batcher in list(self._batchers):
            batcher.flush()


class BatchingServable(Servable):
    """A `Servable` whose calls merge.

    Args:
        folder: As `Servable`.
        parameters: How they merge.
        observe: As `Batching`.

    Attributes:
        batcher: What merges them.

    Raises:
        ServingError: as `Servable`.
    """

    def __init__(
        self, folder: str | Path, parameters: BatchingParameters, observe: Observe | None = None
    ):
        super().__init__(folder)
        self.batcher = Batcher(super().run_until, parameters, observe)

    def run(self, feeds: Feeds, fetches: Sequence[str]) -> list:
        """As `Servable.run`, in one call with other requests.

        Raises:
            ServingError: as `Servable.run` and `Batcher.run`.
        """
        return self.batcher.run(feeds, fetches)

    def close(self) -> None:
        """Frees the session; what is running or waiting ends with CANCELLED."""
        super().close()
        self.batcher.close()
