"""The requests of one signature, waiting to become batches.

Source:
    tensorflow/core/kernels/batching_util/shared_batch_scheduler.h, read for the behaviour and the
    texts.
"""

from __future__ import annotations

import collections
import time
from concurrent import futures
from dataclasses import dataclass, field

from tfllm.serving.batch_tensors import Feeds
from tfllm.serving.batching_parameters import BatchingParameters
from tfllm.serving.status import Code, ServingError


@dataclass(eq=False)
class Task:
    """A request, or the part of one that goes into one batch.

    Attributes:
        feeds: The inputs, sorted by name.
        rows: Their dimension 0.
        ends_at: Monotonic seconds when nobody waits for it any more.
        answer: Gets the outputs, or what went wrong.
        enqueued_at: Monotonic seconds.
    """

    feeds: Feeds
    rows: int
    ends_at: float
    answer: futures.Future = field(default_factory=futures.Future)
    enqueued_at: float = field(default_factory=time.monotonic)


class BatchQueue:
    """Batches that fill up and wait; not safe for threads.

    Tasks go into the last batch. One that does not fit starts a new batch, if there may be another,
    and the batch before it runs as soon as a thread is free.
    """

    def __init__(self, parameters: BatchingParameters):
        self._parameters = parameters
        self._batches: collections.deque[list[Task]] = collections.deque()

    def __len__(self) -> int:
        return len(self._batches)

    def add(self, feeds: Feeds, rows: int, ends_at: float) -> list[Task]:
        """Enqueues a request as one task, or with splitting as one for each batch it goes into.

        Raises:
            ServingError: INVALID_ARGUMENT for too many rows, UNAVAILABLE for a full queue.
        """
        self._check(rows)
        tasks, start = [], 0
        while start < rows:
            size = rows - start
            room = self._parameters.largest - self._open_rows
            if self._parameters.enable_large_batch_splitting:
                size = min(size, room or self._parameters.largest)
            part = feeds
            if size < rows:
                part = [(name, array[start : start + size]) for name, array in feeds]
            tasks.append(Task(part, size, ends_at))
            if not self._batches or size > room:
                self._batches.append([])
            self._batches[-1].append(tasks[-1])
            start += size
        return tasks

    def remove(self, task: Task) -> bool:
        """Takes a task out; False if it no longer waits."""
        for batch in self._batches:
            if task in batch:
                batch.remove(task)
                if not batch:
                    self._batches.remove(batch)
                return True
        return False

    def due_at(self) -> float | None:
        """Monotonic seconds when the first batch may run; None if nothing waits."""
        if not self._batches:
            return None
        if len(self._batches) > 1 or self._open_rows >= self._parameters.largest:
            return 0.0
        return self._batches[0][0].enqueued_at + self._parameters.batch_timeout_micros / 1e6

    def pop(self) -> list[Task]:
        """The first batch."""
        return self._batches.popleft()

    @property
    def _open_rows(self) -> int:
        return sum(task.rows for task in self._batches[-1]) if self._batches else 0

    def _check(self, rows: int) -> None:
        parameters = self._parameters
        if rows > parameters.max_batch_size:
            raise ServingError(
                Code.INVALID_ARGUMENT,
                f"Task size {rows} is larger than maximum input batch size "
                f"{parameters.max_batch_size}",
            )
        full = "The batch scheduling queue to which this task was submitted is full; "
        # The stock server counts the batch that fills up, even while it is empty.
        num_batches = max(len(self._batches), 1)
        room = parameters.largest - self._open_rows
        if parameters.enable_large_batch_splitting:
            capacity = (parameters.max_enqueued_batches - num_batches) * parameters.largest + room
            if rows > capacity:
                raise ServingError(
                    Code.UNAVAILABLE,
                    f"{full}task size is {rows} but scheduling capacity is only {capacity} "
                    f"(num_enqueued_batches={num_batches}, "
                    f"max_enqueued_batches={parameters.max_enqueued_batches}, "
                    f"open_batch_size={self._open_rows}, "
                    f"max_execution_batch_size={parameters.largest})",
                )
        elif rows > room and num_batches >= parameters.max_enqueued_batches:
            raise ServingError(
                Code.UNAVAILABLE,
                f"{full}currently {num_batches} batches enqueued and max_enqueued_batches is "
                f"{parameters.max_enqueued_batches}",
            )
