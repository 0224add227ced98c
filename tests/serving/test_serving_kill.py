"""Exports that are killed while a server polls their base path, and copies that are cut."""

import os
import shutil
import signal
import subprocess
import sys
import threading
from concurrent import futures
from pathlib import Path

import numpy as np
import pytest

from tfllm.serving import Client, ServedModel, Server, ServingError

ROOT = Path(__file__).parents[2]

# Publishes once for each byte that it is sent, in a process of its own, and stops at each step
# until it is sent another. The module alone is run: the package would import TensorFlow.
EXPORTER = """
import os, runpy, shutil, sys
from pathlib import Path

source, base = map(Path, sys.argv[1:3])
publish = runpy.run_path(sys.argv[3])["publish"]

def step(name):
    os.write(1, f"{name}\\n".encode())
    os.read(0, 1)

def copy(one, other):
    data = Path(one).read_bytes()
    with open(other, "wb", buffering=0) as file:
        file.write(data[: len(data) // 2])
        step(f"half of {Path(one).name}")
        file.write(data[len(data) // 2 :])
    step(f"all of {Path(one).name}")

def write(folder):
    step("nothing")
    shutil.copytree(source, folder, dirs_exist_ok=True, copy_function=copy)
    step("everything")

while os.read(0, 1):
    if (child := os.fork()) == 0:
        os.write(1, f"{os.getpid()}\\n".encode())
        publish(base, [write])
        step("done")
        os._exit(0)
    os.waitpid(child, 0)
"""

MOMENTS = ("nothing", "half of saved_model.pb", "all of saved_model.pb", "everything")
X = {"x": np.ones([1, 2], np.float32), "n": np.array([1], np.int32)}


class Exporter:
    """The process, and one export of its."""

    def __init__(self, process):
        self._process = process

    def reach(self, moment):
        """Begins an export and lets it come so far."""
        self._send()
        self._child = int(self._process.stdout.readline())
        while (reached := self._process.stdout.readline().strip()) != moment:
            assert reached
            self._send()

    def kill(self):
        os.kill(self._child, signal.SIGKILL)

    def _send(self):
        self._process.stdin.write("x")
        self._process.stdin.flush()


@pytest.fixture
def exporter(vec_versions, tmp_path):
    versions = ROOT / "export" / "versions.py"
    arguments = [sys.executable, "-c", EXPORTER, vec_versions / "2", tmp_path / "vec", versions]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
    with subprocess.Popen(arguments, **pipes, text=True, env=environment) as process:
        yield Exporter(process)
        process.kill()


def test_an_export_that_is_killed_shows_no_client_half_a_model(
    tmp_path, vec_versions, publish, exporter
):
    base, late = tmp_path / "vec", tmp_path / "late"
    publish(vec_versions / "1", base / "1")
    publish(vec_versions / "1", late / "1")
    models = {"vec": ServedModel(str(base)), "late": ServedModel(str(late))}
    is_over = threading.Event()

    def hammer():
        with Client(f"127.0.0.1:{server.port}", "vec", timeout_s=120, retries=0) as client:
            answers = set()
            while not is_over.is_set():
                answers.add(client.predict(X)["y"].tolist()[0][0])
            return answers

    def look():
        """Waits until the server has looked at every base path, and found an empty version."""
        number = 1 + max(int(path.name) for path in late.iterdir())
        (late / str(number)).mkdir()
        assert server.versions.wait_until(
            lambda: server.versions.statuses("late")[0][:2] == (number, 50), 20
        )

    with Server(models, port=0, poll_s=0.02) as server, futures.ThreadPoolExecutor(1) as thread:
        server.wait_until_available(120)
        answers = thread.submit(hammer)
        try:
            for moment in MOMENTS:
                exporter.reach(moment)
                look()
                exporter.kill()
                look()
                assert [told[:2] for told in server.versions.statuses("vec")] == [(1, 30)], moment
            exporter.reach("done")
            look()
        finally:
            is_over.set()
        assert answers.result(120) <= {1.0, 2.0}
        with Client(f"127.0.0.1:{server.port}", "vec", timeout_s=120) as client:
            assert client.predict(X)["y"].tolist() == [[2, 2]]
        assert {told.version for told in server.versions.statuses("vec")} == {1, 2}
    left = [path.name for path in base.iterdir() if not path.name.isdecimal()]
    assert left
    assert all(name.startswith(".writing-") for name in left)


@pytest.mark.parametrize("cut", ["saved_model.pb", "variables/variables.index"])
def test_a_plain_copy_that_is_cut_ends_with_its_error_and_the_old_version_answers(
    tmp_path, vec_versions, publish, cut
):
    base = tmp_path / "vec"
    publish(vec_versions / "1", base / "1")
    half = shutil.copytree(vec_versions / "2", tmp_path / "half") / cut
    half.write_bytes(half.read_bytes()[: half.stat().st_size // 2])

    with (
        Server([base], port=0, poll_s=0.02) as server,
        Client(f"127.0.0.1:{server.port}", "vec", timeout_s=120) as client,
    ):
        server.wait_until_available(120)
        publish(tmp_path / "half", base / "2")
        assert server.versions.wait_until(
            lambda: [told[:2] for told in server.versions.statuses("vec")] == [(2, 50), (1, 30)], 20
        )
        assert client.status()[0].error
        assert client.predict(X)["y"].tolist() == [[1, 1]]
        with pytest.raises(ServingError, match="NOT_FOUND"):
            Client(client.address, "vec", version=2).predict(X)
