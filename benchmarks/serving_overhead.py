"""What the embedded server adds to a call of the Session: one client, one request after the other.

    python benchmarks/serving_overhead.py

The model does next to nothing with inputs and outputs like those of a `generate` signature: a text
and seven vectors of parameters in, a text and a number out. The server is a process of its own; the
client sends a ready message with gRPC's stub. Rounds of direct calls and of requests, to a server
without and to one with batching, take turns.

Prints one JSON line: medians in milliseconds of a direct call and of both kinds of requests, and
what the requests take more (overhead_ms, batching_overhead_ms).
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import grpc
import numpy as np
from tensorflow_serving.apis import predict_pb2, prediction_service_pb2_grpc

_PARAMETERS = ("temperature", "top_p", "min_p", "length_penalty", "seed", "top_k", "max_new_tokens")
_SERVE = """
import sys
from tfllm.serving import Server
from tfllm.serving.batching_parameters import BatchingParameters
with Server({"echo": sys.argv[1]}, port=0, batching=eval(sys.argv[2])) as server:
    server.wait_until_available(60)
    print(server.port, flush=True)
    sys.stdin.read()
"""


def save_echo(folder: str) -> None:
    """The model, as version 1."""
    import tensorflow as tf

    vectors = [tf.TensorSpec([None], tf.float32, name=name) for name in _PARAMETERS]

    @tf.function(input_signature=[tf.TensorSpec([None], tf.string, name="text"), *vectors])
    def echo(text, *parameters):
        return {"text": tf.strings.join([text, text]), "num_tokens": tf.add_n(parameters)}

    model = tf.Module()
    model.echo = echo
    tf.saved_model.save(model, f"{folder}/1", signatures=echo)


class Session:
    """Direct calls."""

    def __init__(self, folder: str, inputs: dict[str, np.ndarray]):
        from tfllm.serving.servables import Servable

        self._servable = Servable(f"{folder}/1")
        signature = self._servable.signatures["serving_default"]
        self._feeds = [(signature.inputs[name].name, array) for name, array in inputs.items()]
        self._fetches = [info.name for info in signature.outputs.values()]

    def __call__(self) -> None:
        self._servable.run(self._feeds, self._fetches)


class Requests:
    """Calls to a server of its own."""

    def __init__(self, folder: str, inputs: dict[str, np.ndarray], batching: str):
        from tfllm.serving.tensors import encode

        self._server = subprocess.Popen(
            [sys.executable, "-c", _SERVE, folder, batching],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        port = self._server.stdout.readline().strip()
        self._channel = grpc.insecure_channel(f"127.0.0.1:{port}")
        self._stub = prediction_service_pb2_grpc.PredictionServiceStub(self._channel)
        self._request = predict_pb2.PredictRequest()
        self._request.model_spec.name = "echo"
        for name, array in inputs.items():
            encode(array, into=self._request.inputs[name])

    def __call__(self) -> None:
        self._stub.Predict(self._request, timeout=60)

    def close(self) -> None:
        self._channel.close()
        self._server.communicate("")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--calls", type=int, default=300, help="in each round")
    parser.add_argument("--rounds", type=int, default=7)
    args = parser.parse_args()
    inputs = {"text": np.array([b"Once upon a time"], object)}
    inputs |= {name: np.array([0.5], np.float32) for name in _PARAMETERS}
    with tempfile.TemporaryDirectory() as folder:
        save_echo(folder)
        calls = {
            "session": Session(folder, inputs),
            "server": Requests(folder, inputs, "None"),
            "batching": Requests(folder, inputs, "BatchingParameters()"),
        }
        seconds: dict[str, list[float]] = {name: [] for name in calls}
        for round_ in range(args.rounds + 1):
            for name, call in calls.items():
                for _ in range(args.calls):
                    started = time.perf_counter()
                    call()
                    if round_:  # the first one warms up
                        seconds[name].append(time.perf_counter() - started)
        for name in ("server", "batching"):
            calls[name].close()
    line = {f"{name}_ms": round(1e3 * statistics.median(seconds[name]), 3) for name in calls}
    line["overhead_ms"] = round(line["server_ms"] - line["session_ms"], 3)
    line["batching_overhead_ms"] = round(line["batching_ms"] - line["session_ms"], 3)
    print(json.dumps(line | {"calls": args.calls, "rounds": args.rounds}))


if __name__ == "__main__":
    main()
