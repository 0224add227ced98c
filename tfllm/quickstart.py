"""The whole path on the corpus that every Python carries: text to an answer over gRPC."""

import os
import shutil
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from tfllm.errors import UserError

PROMPT = "The following example"
SAMPLING: dict[str, Any] = {"max_new_tokens": 40, "temperature": 0.7, "top_k": 40, "seed": 1}
_RECIPES = {"gpt": "gpt_quickstart", "lstm": "lstm_quickstart"}
_MARK = ".tfllm-quickstart"  # says that a folder is ours to empty


def quickstart(folder: str | os.PathLike, settings: Sequence[str] = ()) -> dict[str, Any]:
    """Prepares, trains a GPT and an LSTM briefly, exports, serves and calls.

    Args:
        folder: Everything is written here; an earlier quickstart in it is replaced.
        settings: Changes of both recipes, such as "steps=100".

    Returns:
        `text` (the GPT's answer over gRPC), `bits_per_byte` of both models on held-out text, and
        the folders of the exports and of TensorBoard.

    Raises:
        UserError: the folder holds something else.
    """
    from tfllm.data import prepare
    from tfllm.export import for_serving
    from tfllm.models import CausalLM
    from tfllm.serving import Client, Server
    from tfllm.trainers import fit, load_recipe

    folder = _emptied(Path(folder))
    _say("1. Text to a tokenizer and packed records")
    prepare([], folder / "data", embedded=True, vocabulary_size=2000, validation_fraction=0.1)
    results, bases = {}, {}
    for number, (family, recipe) in enumerate(_RECIPES.items(), start=2):
        _say(f"{number}. Training: {recipe}")
        logs = Path("tensorboard_logs") / f"{folder.name}-{family}"
        shutil.rmtree(logs, ignore_errors=True)  # else TensorBoard shows two runs as one
        results[family] = fit(
            load_recipe(recipe).with_settings(settings),
            data=folder / "data",
            run=folder / "runs" / family,
            tensorboard=logs,
        )
        bases[family] = folder / "models" / family
    _say("4. Exporting, and checking the exports in processes of their own")
    for family, base in bases.items():
        for_serving(CausalLM.from_preset(results[family].preset), base, source=_RECIPES[family])
    _say("5. Serving, and calling over gRPC")
    with Server({name: str(base) for name, base in bases.items()}, port=0) as server:
        server.wait_until_available()
        answers: dict[str, Any] = {}
        for family in bases:
            with Client(f"127.0.0.1:{server.port}", family) as client:
                answers[family] = client.generate(PROMPT, **SAMPLING)
    return {
        "prompt": PROMPT,
        "text": answers["gpt"].text,
        "text_lstm": answers["lstm"].text,
        "bits_per_byte": {name: r.bits_per_byte for name, r in results.items()},
        "models": {name: str(base) for name, base in bases.items()},
        "tensorboard": [result.tensorboard for result in results.values()],
        "next": [
            "tensorboard --logdir tensorboard_logs",
            f"tfllm serve {bases['gpt']}",
            f'tfllm call localhost:8500/gpt --prompt "{PROMPT}"',
        ],
    }


def _emptied(folder: Path) -> Path:
    mark = folder / _MARK
    if folder.exists() and not folder.is_dir():
        raise UserError(f"{folder} is no folder: choose another --folder.")
    if folder.exists() and not mark.exists() and any(folder.iterdir()):
        raise UserError(f"{folder} holds something else: choose another --folder.")
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    mark.touch()
    return folder


def _say(text: str) -> None:
    print(f"\n{text}", file=sys.stderr)
