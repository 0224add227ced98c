"""A long mixed load on `tfllm serve` while versions are swapped, clients leave, and it is stopped.

    python benchmarks/soak.py

Half of the clients speak gRPC and half REST, batching is on. Each answer says which version gave it
and is checked against what that version gives; over gRPC the response must name the same one. A
part of the requests is cancelled or has a deadline too short. In the end SIGTERM comes while slow
requests run: they are to be answered.

Prints one JSON line: how the requests ended (`refused`: the queue was full), `wrong` answers and
errors, `lost` requests at the end, and the resident set of the server after a quarter of the
requests and after all.
"""

import argparse
import collections
import http.client
import itertools
import json
import os
import random
import re
import signal
import subprocess
import sys
import tempfile
import threading
import time
from concurrent import futures
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import grpc
import numpy as np
from tensorflow_serving.apis import predict_pb2, prediction_service_pb2_grpc

MODEL = "soak"
BATCHING = """max_batch_size { value: 8 } batch_timeout_micros { value: 500 }
num_batch_threads { value: 2 } max_enqueued_batches { value: 12 } allowed_batch_sizes: 2
allowed_batch_sizes: 4 allowed_batch_sizes: 8"""
SLOW_STEPS = 40_000


def save_version(base: Path, version: int) -> None:
    """Publishes a model that answers x * version, and with its version, after so many steps."""
    import tensorflow as tf

    from tfllm.export.versions import publish

    specs = {"x": tf.float32, "steps": tf.int32}
    model = tf.Module()
    model.factor = tf.Variable(float(version))

    @tf.function(input_signature=[tf.TensorSpec([None], t, n) for n, t in specs.items()])
    def multiply(x, steps):
        end = tf.reduce_max(steps)
        (i,) = tf.while_loop(lambda i: i < end, lambda i: (i + 1,), (tf.constant(0),))
        factor = model.factor + tf.cast(i - end, tf.float32)
        return {"y": x * factor, "version": tf.fill(tf.shape(x), factor)}

    model.multiply = multiply
    publish(base, [lambda folder: tf.saved_model.save(model, str(folder), signatures=multiply)])


class Process:
    """`tfllm serve` as a process of its own."""

    def __init__(self, base: Path, folder: Path):
        (folder / "batching").write_text(BATCHING)
        flags = ["--port=0", "--rest-port=0", "--file_system_poll_wait_seconds=0.2"]
        flags += ["--enable_batching", f"--batching_parameters_file={folder / 'batching'}"]
        command = [sys.executable, "-m", "tfllm", "serve", str(base), *flags]
        self.process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
        self.port = self._told(r"listening on 127.0.0.1:(\d+)$")
        self.rest_port = self._told(r"listening on 127.0.0.1:(\d+) for REST")
        self._told("version (1) is available")
        threading.Thread(target=self.process.stderr.read, daemon=True).start()

    def _told(self, pattern: str) -> int:
        for line in self.process.stderr:
            if found := re.search(pattern, line.rstrip()):
                return int(found[1])
        raise SystemExit("the server has ended")

    def resident_mb(self) -> float:
        """Megabytes, once one version alone is loaded."""
        while True:
            connection = http.client.HTTPConnection("127.0.0.1", self.rest_port, timeout=60)
            connection.request("GET", f"/v1/models/{MODEL}")
            told = json.load(connection.getresponse())["model_version_status"]
            connection.close()
            states = [version["state"] for version in told if version["state"] != "END"]
            if states == ["AVAILABLE"]:
                status = Path(f"/proc/{self.process.pid}/status").read_text()
                return int(re.search(r"VmRSS:\s+(\d+)", status)[1]) / 1e3
            time.sleep(0.01)


class Load:
    """What the clients do and find."""

    def __init__(self, server: Process):
        self.server = server
        self.ends: collections.Counter[str] = collections.Counter()
        self.wrong: list[str] = []
        self.versions: set[int] = set()
        self.channel = grpc.insecure_channel(f"127.0.0.1:{server.port}")
        self._stub = prediction_service_pb2_grpc.PredictionServiceStub(self.channel)
        self._connections = threading.local()

    def one(self, number: int, *, is_slow: bool = False) -> str:
        """Sends one request, odd numbers over REST; how it ended."""
        chance = random.Random(number)
        x = [float(chance.randint(0, 1000)) for _ in range(chance.randint(1, 4))]
        steps = SLOW_STEPS if is_slow else chance.randint(0, 60)
        leaves = not is_slow and chance.random() < 0.1
        ask = self._over_rest if number % 2 else self._over_grpc
        end = ask(x, [steps] * len(x), chance if leaves else None)
        self.ends[end] += 1
        return end

    def _over_grpc(self, x: list, steps: list, leaving: random.Random | None) -> str:
        from tfllm.serving.tensors import decode, encode

        request = predict_pb2.PredictRequest(model_spec={"name": MODEL})
        encode(np.array(x, np.float32), into=request.inputs["x"])
        encode(np.array(steps, np.int32), into=request.inputs["steps"])
        call = self._stub.Predict.future(
            request, timeout=leaving.choice((0.001, 0.005, 60)) if leaving else 60
        )
        if leaving and leaving.random() < 0.5:
            call.cancel()
        try:
            response = call.result()
        except grpc.FutureCancelledError:
            return "cancelled"
        except grpc.RpcError as error:
            if leaving and error.code() == grpc.StatusCode.DEADLINE_EXCEEDED:
                return "too late"
            return self._refused(error.code().name, f"{error.code().name}: {error.details()}")
        outputs = {name: decode(proto).tolist() for name, proto in response.outputs.items()}
        return self._checked(x, outputs, response.model_spec.version.value)

    def _over_rest(self, x: list, steps: list, leaving: random.Random | None) -> str:
        connection = getattr(self._connections, "mine", None)
        if connection is None:
            connection = http.client.HTTPConnection("127.0.0.1", self.server.rest_port, timeout=60)
            self._connections.mine = connection
        body = json.dumps({"inputs": {"x": x, "steps": steps}})
        try:
            connection.request("POST", f"/v1/models/{MODEL}:predict", body)
            if leaving:
                connection.close()
                return "cancelled"
            response = connection.getresponse()
            told = json.load(response)
        except (OSError, http.client.HTTPException) as error:
            connection.close()
            return self._refused("UNREACHABLE", f"REST: {error!r}")
        if response.status != 200:
            return self._refused(str(response.status), f"{response.status}: {told}")
        return self._checked(x, told["outputs"], None)

    def _refused(self, code: str, message: str) -> str:
        is_full = "queue to which this task was submitted is full" in message
        if is_full and code in ("UNAVAILABLE", "503"):
            return "refused"
        self.wrong.append(message)
        return "wrong"

    def _checked(self, x: list, outputs: dict, version: int | None) -> str:
        found = set(outputs["version"])
        (given,) = found if len(found) == 1 else (None,)
        is_right = given is not None and outputs["y"] == [each * given for each in x]
        if not is_right or version not in (None, given):
            self.wrong.append(f"version {version}: {x} gave {outputs}")
            return "wrong"
        self.versions.add(int(given))
        return "answered"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--requests", type=int, default=20_000)
    parser.add_argument("--clients", type=int, default=32)
    parser.add_argument("--swap", type=float, default=5.0, help="seconds between two versions")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        base = Path(folder, MODEL)
        save_version(base, 1)
        server = Process(base, Path(folder))
        try:
            print(json.dumps(soak(server, base, args)))
        finally:
            server.process.kill()


def soak(server: Process, base: Path, args: argparse.Namespace) -> dict:
    """Runs it all; what to print."""
    load, is_over = Load(server), threading.Event()

    def swap() -> None:
        for version in itertools.count(2):
            if is_over.wait(args.swap):
                return
            save_version(base, version)

    swapping = threading.Thread(target=swap)
    swapping.start()
    started_at = time.monotonic()
    quarter = args.requests // 4
    with futures.ThreadPoolExecutor(args.clients) as clients:
        list(clients.map(load.one, range(quarter)))
        early_mb = server.resident_mb()
        list(clients.map(load.one, range(quarter, args.requests)))
        late_mb = server.resident_mb()
        seconds = time.monotonic() - started_at
        is_over.set()
        swapping.join()
        slow = [clients.submit(load.one, n, is_slow=True) for n in range(args.clients)]
        time.sleep(1)  # until all have come; nothing tells of that
        server.process.send_signal(signal.SIGTERM)
        signalled_at = time.monotonic()
        lost = sum(answer.result() != "answered" for answer in slow)
    exit_code = server.process.wait(90)
    load.channel.close()
    return {
        "requests": args.requests,
        "clients": args.clients,
        "seconds": round(seconds, 1),
        **{end: load.ends[end] for end in ("answered", "cancelled", "too late", "refused")},
        "wrong": load.wrong[:5] if load.wrong else 0,
        "versions": len(load.versions),
        "lost": lost,
        "exit_code": exit_code,
        "stop_s": round(time.monotonic() - signalled_at, 1),
        "early_mb": round(early_mb),
        "late_mb": round(late_mb),
        "growth_percent": round(100 * (late_mb / early_mb - 1), 1),
    }


if __name__ == "__main__":
    main()
