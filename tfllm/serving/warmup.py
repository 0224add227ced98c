"""Replaying the recorded requests of `assets.extra/tf_serving_warmup_requests` on a new version.

Source:
    tensorflow_serving/servables/tensorflow/saved_model_warmup{,_util}.cc, read for the behaviour.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import tensorflow as tf
from google.protobuf.message import DecodeError
from tensorflow_serving.apis import prediction_log_pb2

from tfllm import contract
from tfllm.serving.classify import classify
from tfllm.serving.multi_inference import multi_inference
from tfllm.serving.predict import predict
from tfllm.serving.regress import regress
from tfllm.serving.servables import Servable
from tfllm.serving.status import Code, ServingError

MAX_RECORDS = 1000
_RUNS: dict[str, Callable[[Servable, Any], Any]] = {
    "predict_log": predict,
    "classify_log": classify,
    "regress_log": regress,
    "multi_inference_log": multi_inference,
}


def replay_warmup(servable: Servable, folder: Path, iterations: int = 1) -> None:
    """Runs the records, so that the first client does not pay for new kernels and shapes.

    Args:
        servable: What they run on.
        folder: The version folder with the records.
        iterations: How often each one runs; 0 looks at none.

    Raises:
        ServingError: the first record that fails, more than 1,000 records, or DATA_LOSS when the
            file is not a TFRecord.
    """
    path = folder / contract.WARMUP_FILE
    if not path.is_file() or not iterations:
        return
    records = tf.data.TFRecordDataset(str(path)).as_numpy_iterator()
    num_records = 0
    while (record := _next(records)) is not None:
        for _ in range(iterations):
            _replay(servable, record, path)
        num_records += 1
        if num_records > MAX_RECORDS:
            raise ServingError(
                Code.INVALID_ARGUMENT,
                f"Number of warmup records exceeds the maximum ({MAX_RECORDS}) at {path}",
            )


def _next(records) -> bytes | None:
    try:
        return next(records, None)
    except tf.errors.DataLossError as error:
        # Only the reader's words: tf.data wraps them in the names of its own nodes.
        reason = re.search(r"(corrupted|truncated) record at \d+", error.message)
        raise ServingError(
            Code.DATA_LOSS,
            f"{reason[0] if reason else error.message}. "
            "Please verify your warmup data is in TFRecord format.",
        ) from error


def _replay(servable: Servable, record: bytes, path: Path) -> None:
    logged = prediction_log_pb2.PredictionLog()
    try:
        logged.ParseFromString(record)
    except DecodeError as error:
        message = f"Failed to parse warmup record from {path}"
        raise ServingError(Code.INVALID_ARGUMENT, message) from error
    kind = logged.WhichOneof("log_type")
    if kind in _RUNS:
        _RUNS[kind](servable, getattr(logged, kind).request)
    elif kind is not None:
        raise ServingError(Code.UNIMPLEMENTED, f"Unsupported log_type for warmup: {kind}")
