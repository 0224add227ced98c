"""The engines that are measured, each a worker process that is asked in lines of JSON."""

import json
import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

from decoding.made import checkpoint, export
from decoding.prompts import Prompts
from decoding.shapes import BYTES, Shape

_WORKERS = Path(__file__).parent


class Kind(NamedTuple):
    """How an engine runs.

    Attributes:
        worker: The name of its file, without `_worker.py`.
        precision: Of the matrices.
        families: Shapes it knows; () = all.
        is_peer: Whether it runs with the peers' interpreter.
    """

    worker: str
    precision: str
    families: tuple[str, ...] = ()
    is_peer: bool = False


_TRANSFORMERS = ("gpt", "marian", "t5")
ENGINES = {
    **{f"tfllm-{precision}": Kind("tfllm", precision) for precision in BYTES},
    **{f"tfllm-{precision}-grpc": Kind("grpc", precision) for precision in BYTES},
    "kerashub-float32": Kind("kerashub", "float32", ("gpt",)),
    "keras-loop-float32": Kind("keras_lstm", "float32", ("lstm",)),
    "ctranslate2-float32": Kind("ctranslate2", "float32", _TRANSFORMERS, is_peer=True),
    "ctranslate2-int8": Kind("ctranslate2", "int8", _TRANSFORMERS, is_peer=True),
    "transformers-float32": Kind("transformers", "float32", _TRANSFORMERS, is_peer=True),
    "torch-loop-float32": Kind("torch_lstm", "float32", ("lstm",), is_peer=True),
}


class Engine:
    """A running worker.

    Args:
        name: Of `ENGINES`.
        shape: What it runs.
        folder: Of the shape, where its files are made, and its log is written.
        python: The interpreter.
        threads: That it may use.
        beams: Of the search; 1 = greedy.
        warm_up: Whether the Session of an export replays its warm-up requests; a server always
            does.
        env: Environment variables beside those of this process.

    Attributes:
        name: As given.
        loaded: Its answer when it was ready.

    Raises:
        SystemExit: from every call, if the process ended: its log says why.
    """

    def __init__(  # noqa: PLR0913 - what a measurement depends on
        self,
        name: str,
        shape: Shape,
        folder: Path,
        *,
        python: str = sys.executable,
        threads: int,
        beams: int,
        warm_up: bool = False,
        env: Mapping[str, str] | None = None,
    ):
        kind = ENGINES[name]
        if kind.worker in ("tfllm", "grpc"):
            reads = export(shape, folder, kind.precision)
        else:
            reads = checkpoint(shape, folder)
        self.name, self._log = name, folder / f"{name}.log"
        command = [python, str(_WORKERS / f"{kind.worker}_worker.py"), str(reads.resolve())]
        command += ["--precision", kind.precision, "--threads", str(threads)]
        command += ["--beams", str(beams), *(["--warm-up"] if warm_up else [])]
        with open(self._log, "w") as log:
            self._process = subprocess.Popen(
                command,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=log,
                text=True,
                env={**os.environ, **(env or {})},
            )
        self.loaded = self._answer()

    def __call__(self, prompts: Prompts, new: int) -> dict:
        """Writes `new` tokens behind each prompt; see worker.py for the answer.

        Raises:
            SystemExit: it wrote another number of tokens.
        """
        self._process.stdin.write(json.dumps({**prompts._asdict(), "new": new}) + "\n")
        self._process.stdin.flush()
        answer = self._answer()
        if answer["written"] != new * len(prompts.texts):
            sys.exit(f"{self.name} wrote {answer['written']} tokens, not {new} to each prompt.")
        return answer

    def close(self) -> None:
        self._process.stdin.close()
        self._process.wait()

    def _answer(self) -> dict:
        line = self._process.stdout.readline()
        if not line:
            sys.exit(f"{self.name} ended: see {self._log}")
        return json.loads(line)
