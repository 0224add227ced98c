"""Requests that a server replays before it calls a version available."""

from collections.abc import Iterable, Mapping
from pathlib import Path

import tensorflow as tf
from tensorflow_serving.apis import predict_pb2, prediction_log_pb2

from tfllm import contract


def write_warmup(folder: Path, requests: Iterable[tuple[str, Mapping[str, tf.Tensor]]]) -> None:
    """Writes warm-up records; a record that fails would stop the load, so they are real requests.

    Args:
        folder: The version folder.
        requests: Signature name and inputs of each request; 1,000 at most.

    Source:
        "SavedModel Warmup" of the TensorFlow Serving documentation.
    """
    path = folder / contract.WARMUP_FILE
    path.parent.mkdir(exist_ok=True)
    with tf.io.TFRecordWriter(str(path)) as writer:
        for signature_name, inputs in requests:
            request = predict_pb2.PredictRequest()
            request.model_spec.signature_name = signature_name
            for name, value in inputs.items():
                request.inputs[name].CopyFrom(tf.make_tensor_proto(value))
            log = prediction_log_pb2.PredictionLog(
                predict_log=prediction_log_pb2.PredictLog(request=request)
            )
            writer.write(log.SerializeToString())
