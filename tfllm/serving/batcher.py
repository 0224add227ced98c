"""Calls of many threads merged into calls of one function.

Calls for the same tensors, with inputs of the same dtypes, wait in one queue; threads take full
batches from the queues in turn, and others when their time is over.

Source:
    tensorflow_serving/batching/batching_session.cc and
    tensorflow/core/kernels/batching_util/shared_batch_scheduler.h, read for the behaviour.
    Other than there, a dtype is part of the queue's key, so that a wrong one fails nobody else's
    request, and a request of no rows, which would never be answered there, runs by itself.
"""

from __future__ import annotations

import collections
import threading
import time
from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np

from tfllm.serving.batch_queue import BatchQueue, Task
from tfllm.serving.batch_tensors import Feeds, cut, merged, num_rows
from tfllm.serving.batching_parameters import BatchingParameters
from tfllm.serving.callers import deadline, when_client_leaves
from tfllm.serving.status import Code, ServingError

Run = Callable[[float, Feeds, Sequence[str]], list]


class ProcessedBatch(NamedTuple):
    """What is told of a batch when it starts to run.

    Attributes:
        task_rows: Rows of each task in it.
        padding: Rows added to reach an allowed batch size.
        queue_s: Seconds that each task has waited.
    """

    task_rows: list[int]
    padding: int
    queue_s: list[float]


Observe = Callable[[ProcessedBatch], None]


class Batcher:
    """Merges the calls of many threads into calls of `run`; to be closed.

    Args:
        run: Gives the values of the tensors it is asked for, one row for each row of the inputs. It
            is given the monotonic seconds when nobody waits for them any more, inputs and names.
        parameters: How calls merge.
        observe: Called with each batch, by the thread that is about to run it.
    """

    def __init__(
        self, run: Run, parameters: BatchingParameters, observe: Observe | None = None
    ) -> None:
        self._run = run
        self._parameters = parameters
        self._observe = observe
        self._changed = threading.Condition()
        # The queues with tasks, the next to be served first.
        self._queues: collections.OrderedDict[tuple, BatchQueue] = collections.OrderedDict()
        self._is_flushing = self._is_closed = False
        self._threads = [
            threading.Thread(
                target=self._work, name=f"{parameters.thread_pool_name}-{i}", daemon=True
            )
            for i in range(parameters.num_batch_threads)
        ]
        for thread in self._threads:
            thread.start()

    def run(self, feeds: Feeds, fetches: Sequence[str]) -> list:
        """The values of the tensors named by `fetches`, for the rows of `feeds`.

        Args:
            feeds: Tensor names and arrays, all with the same dimension 0.
            fetches: Tensor names.

        Raises:
            ServingError: INVALID_ARGUMENT for inputs that are not rows or too many, UNAVAILABLE at
                once if the queue is full, CANCELLED if the client went away, RESOURCE_EXHAUSTED if
                its time was over before its turn came, FAILED_PRECONDITION for shapes that do not
                merge or outputs that are not rows; and what `run` raises.
        """
        rows = num_rows(feeds)
        ends_at = deadline()
        if rows == 0:
            return self._run(ends_at, feeds, fetches)
        feeds = sorted(feeds, key=lambda feed: feed[0])
        names = tuple(sorted(set(fetches)))
        key = (names, *((name, array.dtype.str) for name, array in feeds))
        tasks = self._enqueue(key, feeds, rows, ends_at)
        if not when_client_leaves(lambda: self._withdraw(key, tasks)):
            self._withdraw(key, tasks)
        parts = [dict(zip(names, task.answer.result(), strict=True)) for task in tasks]
        if len(parts) == 1:
            return [parts[0][name] for name in fetches]
        return [np.concatenate([part[name] for part in parts]) for name in fetches]

    def flush(self) -> None:
        """From now on no task waits for its time to be over."""
        with self._changed:
            self._is_flushing = True
            self._changed.notify_all()

    def close(self) -> None:
        """Ends the threads after the batches that run; what waits ends with CANCELLED."""
        with self._changed:
            self._is_closed = True
            waiting = [task for queue in self._queues.values() for task in _drained(queue)]
            self._queues.clear()
            self._changed.notify_all()
        _fail(waiting, ServingError(Code.CANCELLED, "the model was unloaded"))
        for thread in self._threads:
            thread.join()

    def _enqueue(self, key: tuple, feeds: Feeds, rows: int, ends_at: float) -> list[Task]:
        with self._changed:
            if self._is_closed:
                raise ServingError(Code.CANCELLED, "the model was unloaded")
            queue = self._queues.get(key) or BatchQueue(self._parameters)
            before = self._due_at(queue)
            tasks = queue.add(feeds, rows, ends_at)
            self._queues[key] = queue
            if self._due_at(queue) != before:
                self._changed.notify()
        return tasks

    def _withdraw(self, key: tuple, tasks: list[Task]) -> None:
        """Takes out the tasks that still wait."""
        with self._changed:
            queue = self._queues.get(key)
            if queue is None:
                return
            waiting = [task for task in tasks if not task.answer.done() and queue.remove(task)]
            if not queue:
                del self._queues[key]
        _fail(waiting, ServingError(Code.CANCELLED, "the client went away"))

    def _due_at(self, queue: BatchQueue) -> float | None:
        due_at = queue.due_at()
        return 0.0 if self._is_flushing and due_at is not None else due_at

    def _work(self) -> None:
        while (taken := self._next()) is not None:
            self._process(*taken)

    def _next(self) -> tuple[tuple[str, ...], list[Task]] | None:
        """Waits for a batch that may run, with the names to fetch; None after `close`."""
        with self._changed:
            while not self._is_closed:
                now, next_due_at = time.monotonic(), float("inf")
                for key, queue in self._queues.items():
                    due_at = self._due_at(queue)
                    assert due_at is not None  # there are no empty queues
                    if due_at <= now:
                        return key[0], self._taken(key, queue)
                    next_due_at = min(next_due_at, due_at)
                self._changed.wait(min(next_due_at - now, threading.TIMEOUT_MAX))
            return None

    def _taken(self, key: tuple, queue: BatchQueue) -> list[Task]:
        batch = queue.pop()
        self._queues.move_to_end(key)
        if not queue:
            del self._queues[key]
        if self._queues:
            self._changed.notify()  # another thread watches over what still waits
        return batch

    def _process(self, names: tuple[str, ...], batch: list[Task]) -> None:
        started_at = time.monotonic()
        rows = [task.rows for task in batch]
        padding = self._parameters.padded(sum(rows)) - sum(rows)
        try:
            if self._observe is not None:
                waited = [started_at - task.enqueued_at for task in batch]
                self._observe(ProcessedBatch(rows, padding, waited))
            ends_at = max(task.ends_at for task in batch)
            if ends_at <= started_at:
                message = "Run() timeout exceeded while waiting in batching queue"
                raise ServingError(Code.RESOURCE_EXHAUSTED, message)
            inputs = merged(
                [task.feeds for task in batch],
                padding,
                pad_lengths=self._parameters.pad_variable_length_inputs,
            )
            outputs = [cut(output, rows, padding) for output in self._run(ends_at, inputs, names)]
        except Exception as error:  # noqa: BLE001  the outermost handler of this thread
            _fail(batch, error)
            return
        for i, task in enumerate(batch):
            task.answer.set_result([output[i] for output in outputs])


def _drained(queue: BatchQueue) -> list[Task]:
    return [task for _ in range(len(queue)) for task in queue.pop()]


def _fail(tasks: list[Task], error: Exception) -> None:
    for task in tasks:
        task.answer.set_exception(error)
