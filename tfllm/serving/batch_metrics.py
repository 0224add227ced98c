"""What is counted of batches: the stock server's metrics under its names, and ours.

Source:
    tensorflow_serving/batching/batching_session.cc, read for the names and the buckets.
"""

from __future__ import annotations

from collections.abc import Callable

from tfllm.serving.batcher import ProcessedBatch
from tfllm.serving.monitoring import Counter, Histogram, exponential

QUEUING_LATENCY = Histogram(
    "/tensorflow/serving/batching_session/queuing_latency",  # microseconds
    "thread_pool_name",
    limits=exponential(100, 1.2, 52),
)
RUNS = Counter("/tensorflow/serving/batching_session/wrapped_run_count")
ROWS = Histogram("/tfllm/serving/batch_rows", "thread_pool_name", limits=exponential(1, 2, 15))
REQUESTS = Histogram(
    "/tfllm/serving/batch_requests", "thread_pool_name", limits=exponential(1, 2, 15)
)
PADDING = Counter("/tfllm/serving/padding_rows", "thread_pool_name")


def batch_counter(thread_pool_name: str) -> Callable[[ProcessedBatch], None]:
    """What `Batching` tells of each batch."""

    def count(batch: ProcessedBatch) -> None:
        RUNS.add()
        ROWS.add(thread_pool_name, value=sum(batch.task_rows))
        REQUESTS.add(thread_pool_name, value=len(batch.task_rows))
        PADDING.add(thread_pool_name, count=batch.padding)
        for queue_s in batch.queue_s:
            QUEUING_LATENCY.add(thread_pool_name, value=queue_s * 1e6)

    return count
