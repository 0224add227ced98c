"""ROUGE of summaries after some minutes of training from nothing, beside the first sentence.

    python benchmarks/summarization.py DOCUMENTS.jsonl --minutes 20 --out summaries

DOCUMENTS.jsonl has `document` and `summary`. Held out are documents chosen by the hash of their
text, `--test` of them measured. The baseline answers with the document's first sentence. Prints one
JSON line.
"""

import argparse
import json
import re
import time
from pathlib import Path

from translation import train, translated

from tfllm.data import prepare
from tfllm.data.tables import Field, read_rows
from tfllm.metrics.text_overlap import rouge

_FIELDS = [Field("source"), Field("target")]


def first_sentence(document: str) -> str:
    return re.split(r"(?<=[.!?])\s", document.strip(), maxsplit=1)[0]


def measured(found: list[str], wanted: list[str]) -> dict:
    return {name: round(value, 4) for name, value in rouge(found, wanted)._asdict().items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("table", type=Path)
    parser.add_argument("--recipe", default="summary_mini")
    parser.add_argument("--minutes", type=float, default=20)
    parser.add_argument("--test", type=int, default=500, help="documents to measure on")
    parser.add_argument("--vocabulary-size", type=int, default=8000)
    parser.add_argument("--sequence-length", type=int, default=256)
    parser.add_argument("--set", action="append", default=[], help="of the recipe")
    parser.add_argument("--out", type=Path, required=True, help="a new folder")
    args = parser.parse_args()

    data = args.out / "data"
    if not data.exists():
        prepare(
            args.table,
            data,
            task="seq2seq_lm",
            columns={"source": "document", "target": "summary"},
            vocabulary_size=args.vocabulary_size,
            sequence_length=args.sequence_length,
            validation_fraction=0.05,
        )
    test = list(read_rows(data / "validation.jsonl", _FIELDS))[: args.test]
    sources, targets = [row["source"] for row in test], [row["target"] for row in test]
    result = {
        "test": len(test),
        "first_sentence": measured([first_sentence(source) for source in sources], targets),
    }
    done = train(args.recipe, data, args.out / args.recipe, args.minutes, args.set)
    started = time.monotonic()
    texts = translated(done.pop("preset"), sources, 40)
    result[args.recipe] = {
        **done,
        **measured(texts, targets),
        "writing_minutes": round((time.monotonic() - started) / 60, 2),
    }
    print(json.dumps(result))


if __name__ == "__main__":
    main()
