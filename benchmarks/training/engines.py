"""Engines that train the same model, in processes of their own that take turns."""

import json
import os
import statistics
import subprocess
import sys
from pathlib import Path
from typing import NamedTuple

import numpy as np
from training.worker import SHAPES

_WORKERS = Path(__file__).parent
_WORDS = 30_000


class Kind(NamedTuple):
    """How an engine is run.

    Attributes:
        worker: The script, without "_worker.py".
        variant: Its argument.
        is_peer: Whether it runs in the interpreter of `--peers-python`.
        steps: Of a request, as a multiple of the others'.
    """

    worker: str
    variant: str
    is_peer: bool = False
    steps: int = 1


class Engine:
    """A running worker.

    Args:
        kind: What it is.
        model: A name in `SHAPES`.
        precision: float32 or bfloat16.
        threads: That it may use.
        folder: Where the prepared data are and its log is written.
        python: The interpreter.

    Raises:
        SystemExit: from every call, if the process ended: its log says why.
    """

    def __init__(  # noqa: PLR0913 - what a measurement depends on
        self, kind: Kind, model: str, precision: str, threads: int, folder: Path, python: str
    ):
        self._kind = kind
        self._log = folder / f"{kind.worker}-{kind.variant}.log"
        command = [python, str(_WORKERS / f"{kind.worker}_worker.py"), model, kind.variant]
        command += ["--precision", precision, "--threads", str(threads), "--folder", str(folder)]
        with open(self._log, "w") as log:
            self._process = subprocess.Popen(
                command,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=log,
                text=True,
                env={**os.environ, "CUDA_VISIBLE_DEVICES": ""},
            )

    def __call__(self, steps: int) -> dict:
        """Seconds per step and the loss, as of worker.py."""
        steps *= self._kind.steps
        self._process.stdin.write(f"{steps}\n")
        self._process.stdin.flush()
        line = self._process.stdout.readline()
        if not line:
            sys.exit(f"{self._kind.worker} {self._kind.variant} ended: see {self._log}")
        answer = json.loads(line)
        return answer | {name: answer[name] / steps for name in ("wall_s", "cpu_s")}

    def close(self) -> None:
        self._process.stdin.close()
        self._process.wait()


def prepare_data(folder: Path, model: str) -> None:
    """Rows of made-up words, for a tokenizer of the shape's vocabulary."""
    if (folder / model / "meta.json").exists():
        return
    from tfllm.data import Records, prepare

    random = np.random.default_rng(0)
    syllables = [a + b for a in "bdfgklmnprstvz" for b in "aeiou"]
    words = ["".join(random.choice(syllables, random.integers(1, 5))) for _ in range(_WORDS)]
    chosen = random.zipf(1.1, 200_000) % _WORDS
    text = " ".join(words[i] for i in chosen)
    (folder / "words.txt").write_text(
        "\n\n".join(text[i : i + 2000] for i in range(0, len(text), 2000))
    )
    shape = SHAPES[model]
    prepare(
        folder / "words.txt",
        folder / model,
        vocabulary_size=shape["vocabulary_size"],
        sequence_length=shape["length"],
        validation_fraction=0.0,
    )
    got = Records(folder / model).tokenizer.vocabulary_size()
    if got != shape["vocabulary_size"]:
        sys.exit(f"the tokenizer has {got} tokens, not {shape['vocabulary_size']}")


def take_turns(engines: dict[str, Engine], rounds: int, steps: int) -> dict[str, dict]:
    """Medians over the rounds, of seconds per step; the first request is not counted."""
    found: dict[str, list[dict]] = {name: [] for name in engines}
    for engine in engines.values():
        engine(2)
    for _ in range(rounds):
        for name, engine in engines.items():
            found[name].append(engine(steps))
    return {
        name: {
            "cpu_s": statistics.median(run["cpu_s"] for run in runs),
            "wall_s": statistics.median(run["wall_s"] for run in runs),
            "loss": runs[-1]["loss"],
        }
        for name, runs in found.items()
    }
