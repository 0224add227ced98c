"""Holds an export against the live model, in a fresh process that has only TensorFlow."""

import base64
import json
import math
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from tfllm import contract
from tfllm.errors import Failure

_RUNNER = Path(__file__).with_name("run_saved_model.py")
_NATS_PER_TOKEN = 1e-4
# An input of one name has one dtype in every signature.
_DTYPES = {
    field.name: field.dtype
    for signature in contract.SIGNATURES.values()
    for field in signature.inputs
}

Request = tuple[str, dict[str, Any]]  # signature name, inputs by name


class CheckFailed(Failure):
    """The export does not load, or does not answer as the live model does."""


def run_in_fresh_process(
    folder: Path, requests: Sequence[Request], python: str | None = None
) -> list[dict[str, list]]:
    """Answers of a SavedModel, run through the v1 Session loader as the stock server does.

    Args:
        folder: The version folder.
        requests: Signature and inputs of each; values as (nested) lists.
        python: The interpreter to run, which needs tensorflow and tensorflow_text and nothing
            else; None means this one.

    Returns:
        The outputs of each request, by name, as lists.

    Raises:
        CheckFailed: the process failed; with the end of what it said.
    """
    body = [
        {"signature": name, "inputs": {key: _typed(key, inputs[key]) for key in inputs}}
        for name, inputs in requests
    ]
    done = subprocess.run(
        [python or sys.executable, "-P", str(_RUNNER), str(folder)],
        input=json.dumps(body),
        capture_output=True,
        text=True,
        errors="replace",  # a log may quote bytes that are no text
        check=False,
    )
    if done.returncode:
        said = "\n".join(done.stderr.strip().splitlines()[-12:])
        raise CheckFailed(f"{folder} does not run in a process of its own:\n{said}")
    return json.loads(done.stdout)


def _typed(name: str, values: list) -> dict[str, Any]:
    if values and isinstance(values[0], bytes):
        return {"dtype": "base64", "values": [base64.b64encode(v).decode() for v in values]}
    return {"dtype": _DTYPES[name], "values": values}


def compare(
    requests: Sequence[Request],
    live: Sequence[Mapping[str, list]],
    exported: Sequence[Mapping[str, list]],
) -> None:
    """Refuses an export whose answers differ: texts exactly, log-probabilities to 1e-4 a token.

    Raises:
        CheckFailed: naming the signature, the inputs and both answers.
    """
    for (signature, inputs), expected, got in zip(requests, live, exported, strict=True):
        for name, values in expected.items():
            tokens = expected.get("num_tokens", [1] * len(values))  # a float may add up so many
            for row, pair in enumerate(zip(values, got[name], tokens, strict=True)):
                if not _same(*pair):
                    raise CheckFailed(
                        f"{signature} of the export differs from the live model in {name}, row "
                        f"{row}: expected {pair[0]!r}, got {pair[1]!r}. Inputs: {inputs}"
                    )


def _same(expected, got, num_tokens: int) -> bool:
    if isinstance(expected, list):
        return len(expected) == len(got) and all(
            _same(*pair, num_tokens) for pair in zip(expected, got, strict=True)
        )
    if isinstance(expected, float):
        return math.isclose(expected, got, rel_tol=0, abs_tol=_NATS_PER_TOKEN * max(num_tokens, 1))
    return expected == got
