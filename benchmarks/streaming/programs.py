"""The servers that are compared, each a program of its own, and the model that they serve."""

import multiprocessing
import os
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
from decoding import made
from decoding.shapes import SHAPES

from tfllm.serving import Client, ServingError

MODEL = "gpt"
_STARTING_S = 600
_LETTERS = slice(ord("a"), ord("z") + 1)


def export(folder: Path, shape: str, sessions: int) -> Path:
    """A shape of GPT in int8 with random weights, which writes nothing but letters.

    So each token is a character, that can be shown at once, and none of them is the end.
    """
    base = folder / f"{shape}-{sessions}" / MODEL
    if not base.exists():
        # In a process of its own, whose memory is free again.
        making = multiprocessing.get_context("spawn").Process(
            target=_export, args=(folder / shape, base, shape, sessions)
        )
        making.start()
        making.join()
        if making.exitcode:
            raise SystemExit("The model was not exported.")
    return base


def _export(folder: Path, base: Path, shape: str, sessions: int) -> None:
    from tfllm.export import for_serving

    for_serving(letters(folder, shape), base, precision="int8", sessions=sessions)


def letters(folder: Path, shape: str):
    """The model itself, in float32."""
    from tfllm.models import from_preset

    folder.mkdir(parents=True, exist_ok=True)
    model = from_preset(made.preset(SHAPES[shape], folder))
    table = model.backbone.token_embedding.embeddings
    kept = np.zeros_like(table)
    kept[_LETTERS] = np.array(table)[_LETTERS]
    table.assign(kept)
    return model


class Program:
    """One of them; what it says goes to `log`.

    Args:
        log: A file.
        arguments: Of `tfllm`; the port is added to them.
        is_there: Whether it answers at an address.
    """

    def __init__(self, log: Path, arguments: Sequence[str], is_there: Callable[[str], bool]):
        with socket.create_server(("127.0.0.1", 0)) as listening:
            self.port = listening.getsockname()[1]
        self.address = f"127.0.0.1:{self.port}"
        self._is_there = is_there
        command = [sys.executable, "-m", "tfllm", *arguments, "--port", str(self.port)]
        with log.open("w") as told:
            self._process = subprocess.Popen(command, stdout=told, stderr=told)

    @property
    def cpu_s(self) -> float:
        """Processor seconds so far."""
        fields = Path(f"/proc/{self._process.pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    def wait(self) -> None:
        """Until it answers."""
        end = time.monotonic() + _STARTING_S
        while not self._is_there(self.address):
            if self._process.poll() is not None or time.monotonic() > end:
                raise SystemExit(f"This did not start: {' '.join(self._process.args)}")
            time.sleep(0.2)

    def close(self) -> None:
        """Ends it."""
        self._process.terminate()
        self._process.wait()


def server(base: Path, log: Path, batching: str = "") -> Program:
    """`tfllm serve`, with batching if it is given parameters."""
    options = []
    if batching:
        file = log.with_suffix(".config")
        file.write_text(batching)
        options = ["--enable_batching", "--batching_parameters_file", str(file)]

    def is_there(address: str) -> bool:
        with Client(address, MODEL, retries=0) as client:
            try:
                return any(version.state == "AVAILABLE" for version in client.status())
            except ServingError:
                return False

    return Program(log, ["serve", str(base), *options], is_there)


def gateway(of: Program, log: Path) -> Program:
    """`tfllm gateway` before a server."""

    def is_there(address: str) -> bool:
        try:
            with urllib.request.urlopen(f"http://{address}/healthz", timeout=5):
                return True
        except OSError:
            return False

    return Program(log, ["gateway", f"{of.address}/{MODEL}", "--grace", "0"], is_there)
