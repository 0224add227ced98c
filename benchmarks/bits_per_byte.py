"""Bits per byte of held-out text: a GPT and an LSTM after some minutes of training, beside xz.

    python benchmarks/bits_per_byte.py TEXT… --minutes 10 --out bits

Prints one JSON line. The models' number covers every byte of the validation documents and the ends
of the documents; xz's is what `xz -9e` needs for the validation text when it follows the training
text. A short run before each measures the speed, so that the steps fill the minutes.
"""

import argparse
import dataclasses
import json
import lzma
import tempfile
import time
from pathlib import Path

from tfllm.data import Records, prepare, read_documents
from tfllm.trainers import fit, load_recipe

RECIPES = {"gpt": "gpt_10m", "lstm": "lstm_10m"}
_CALIBRATION_STEPS = 20


def xz_bits_per_byte(training: str, validation: str) -> float:
    def size(text: str) -> int:
        return len(lzma.compress(text.encode(), preset=9 | lzma.PRESET_EXTREME))

    return 8 * (size(training + validation) - size(training)) / len(validation.encode())


def train(recipe, data: Path, run: Path, minutes: float) -> dict:
    with tempfile.TemporaryDirectory() as scratch:
        short = dataclasses.replace(recipe, steps=_CALIBRATION_STEPS, sample_prompts=())
        speed = fit(
            short, data=data, run=Path(scratch) / "run", tensorboard=Path(scratch) / "logs"
        ).tokens_per_second
    tokens_per_step = recipe.global_batch * Records(data).sequence_length
    steps = int(minutes * 60 * speed / tokens_per_step)
    started = time.monotonic()
    result = fit(
        dataclasses.replace(recipe, steps=steps), data=data, run=run, tensorboard=run / "logs"
    )
    return {
        "bits_per_byte": round(result.bits_per_byte, 4),
        "steps": steps,
        "minutes": round((time.monotonic() - started) / 60, 2),
        "tokens_per_second": round(result.tokens_per_second),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("texts", nargs="+")
    parser.add_argument("--minutes", type=float, default=10)
    parser.add_argument("--vocabulary-size", type=int, default=4000)
    parser.add_argument("--out", type=Path, required=True, help="a new folder")
    args = parser.parse_args()
    data = args.out / "data"
    prepare(args.texts, data, vocabulary_size=args.vocabulary_size)
    held_out = list(read_documents([data / "validation.jsonl"]))
    held_out_set = set(held_out)
    training = [
        text for text in dict.fromkeys(read_documents(args.texts)) if text not in held_out_set
    ]
    found = {
        "texts": [Path(name).name for name in args.texts],
        "validation_bytes": sum(len(text.encode()) for text in held_out),
        "xz": {
            "bits_per_byte": round(
                xz_bits_per_byte("\n\n".join(training), "\n\n".join(held_out)), 4
            )
        },
    }
    for family, name in RECIPES.items():
        found[family] = train(load_recipe(name), data, args.out / "runs" / family, args.minutes)
    print(json.dumps(found))


if __name__ == "__main__":
    main()
