"""What a server counts: the stock server's metrics under its names, and ours.

Times are in microseconds, as the stock server's are.

Source:
    tensorflow_serving/servables/tensorflow/util.cc and
    tensorflow_serving/model_servers/{prediction_service_impl,http_server}.cc, read for the names,
    the buckets and what is counted when.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator

from tensorflow_serving.apis import predict_pb2

from tfllm import contract
from tfllm.serving.monitoring import Counter, Histogram, exponential
from tfllm.serving.status import Code, ServingError

_MICROSECONDS = exponential(10, 1.8, 33)

REQUEST_COUNT = Counter("/tensorflow/serving/request_count", "model_name", "status")
REQUEST_LATENCY = Histogram(
    "/tensorflow/serving/request_latency",
    "model_name",
    "API",
    "entrypoint",
    limits=_MICROSECONDS,
)
RUNTIME_LATENCY = Histogram(
    "/tensorflow/serving/runtime_latency", "model_name", "API", "runtime", limits=_MICROSECONDS
)
GRAPH_RUNS = Counter("/tensorflow/core/graph_runs")
GRAPH_RUN_TIME = Counter("/tensorflow/core/graph_run_time_usecs")

TIME_TO_ANSWER = Histogram(
    "/tfllm/serving/time_to_answer", "model_name", "signature_name", limits=_MICROSECONDS
)
ROWS = Histogram(
    "/tfllm/serving/request_rows",
    "model_name",
    "signature_name",
    limits=exponential(1, 2, 15),
)
TOKENS = Counter("/tfllm/serving/tokens_generated", "model_name")


@contextlib.contextmanager
def counted(model_name: str, api: str, entrypoint: str) -> Iterator[float]:
    """Counts the request answered inside the `with`, and times it if nothing is raised.

    Args:
        model_name: "" for a request that names no model that is served: else strangers could fill
            the memory with labels.
        api: "Predict" over gRPC, "predict" over REST, and so on; "" for REST's other paths.
        entrypoint: "GRPC" or "REST".

    Yields:
        When it started, by `time.perf_counter`.
    """
    started_at = time.perf_counter()
    status = Code.INTERNAL
    try:
        yield started_at
        status = Code.OK
        REQUEST_LATENCY.add(model_name, api, entrypoint, value=_microseconds_since(started_at))
    except ServingError as error:
        status = error.code
        raise
    finally:
        REQUEST_COUNT.add(model_name, status.name)


def count_predicted(
    request: predict_pb2.PredictRequest, response: predict_pb2.PredictResponse, started_at: float
) -> None:
    """Counts what a Predict took and gave.

    Args:
        request: What was asked.
        response: What was answered, with its whole `model_spec`.
        started_at: What `counted` yielded.
    """
    model, signature = response.model_spec.name, response.model_spec.signature_name
    TIME_TO_ANSWER.add(model, signature, value=_microseconds_since(started_at))
    rows = (p.tensor_shape.dim[0].size for p in request.inputs.values() if p.tensor_shape.dim)
    ROWS.add(model, signature, value=max(rows, default=1))
    if signature == contract.GENERATE and "num_tokens" in response.outputs:
        tokens = response.outputs["num_tokens"].int_val
        TOKENS.add(model, count=sum(count for count in tokens if count > 0))


@contextlib.contextmanager
def model_run(model_name: str, api: str) -> Iterator[None]:
    """Times the run of a model inside the `with`, the wait for a batch included."""
    started_at = time.perf_counter()
    yield
    RUNTIME_LATENCY.add(model_name, api, "TF1", value=_microseconds_since(started_at))


@contextlib.contextmanager
def graph_run() -> Iterator[None]:
    """Counts one run of a graph, made inside the `with`."""
    started_at = time.perf_counter()
    yield
    GRAPH_RUNS.add()
    GRAPH_RUN_TIME.add(count=round(_microseconds_since(started_at)))


def _microseconds_since(started_at: float) -> float:
    return (time.perf_counter() - started_at) * 1e6
