"""ROUGE of summaries: written by a model trained from nothing, or found by a pretrained one.

    python benchmarks/summarization.py DOCUMENTS.jsonl --pretrained HF_FOLDER --out summaries

DOCUMENTS.jsonl has `document` and `summary`. Held out are documents chosen by the hash of their
text, `--test` of them measured. The baseline answers with the document's first sentence. With
`--pretrained`, a BERT learns to find the part of a document that shares most words with its summary
(F1 of the words); with `--minutes`, an encoder–decoder learns to write. Prints one JSON line.
"""

import argparse
import collections
import dataclasses
import json
import re
import time
from pathlib import Path

from translation import train, translated

import tfllm
from tfllm.data import prepare
from tfllm.data.tables import Field, read_rows
from tfllm.metrics.text_overlap import rouge
from tfllm.trainers import fit, load_recipe

_FIELDS = [Field("source"), Field("target")]
_QUESTION = "What is it?"
_MOST_WORDS, _LONGEST = 200, 25  # of a document that are looked at, of a part


def first_sentence(document: str) -> str:
    return re.split(r"(?<=[.!?])\s", document.strip(), maxsplit=1)[0]


def measured(found: list[str], wanted: list[str]) -> dict:
    return {name: round(value, 4) for name, value in rouge(found, wanted)._asdict().items()}


def best_part(document: str, summary: str) -> tuple[int, int] | None:
    """Where the part begins and ends that shares most words with the summary; None if none does."""
    words = [(found.start(), found.end()) for found in re.finditer(r"\w+", document)][:_MOST_WORDS]
    wanted = collections.Counter(re.findall(r"\w+", summary.lower()))
    best, place = 0.0, None
    for i, (start, _) in enumerate(words):
        left, common = wanted.copy(), 0
        for j, (begin, end) in enumerate(words[i : i + _LONGEST], 1):
            word = document[begin:end].lower()
            common += left[word] > 0
            left[word] -= 1
            f1 = 2 * common / (j + wanted.total())
            if f1 > best:
                best, place = f1, (start, end)
    return place


def found_by(pretrained: str, recipe, training: list[dict], test: list[str], out: Path):
    """What a BERT finds after it learned from the parts, and the run's result."""
    rows = []
    for row in training:
        part = best_part(row["source"], row["target"])
        if part:
            answers = {"text": [row["source"][slice(*part)]], "answer_start": [part[0]]}
            rows.append({"question": _QUESTION, "context": row["source"], "answers": answers})
    lines = [json.dumps(row, ensure_ascii=False) for row in rows]
    (out / "parts.jsonl").write_text("\n".join(lines) + "\n", encoding="utf-8")
    prepare(out / "parts.jsonl", out / "parts", task="span_qa", sequence_length=128, overwrite=True)
    tfllm.from_huggingface(pretrained).save_to_preset(out / "pretrained")
    recipe = dataclasses.replace(recipe, preset=str(out / "pretrained"))
    done = fit(recipe, data=out / "parts", run=out / recipe.name, tensorboard=out / "logs")
    model = tfllm.from_preset(done.preset)
    return [model.answer(_QUESTION, document).answer for document in test], done


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("table", type=Path)
    parser.add_argument("--pretrained", help="a folder of Hugging Face with a BERT")
    parser.add_argument("--finder", default="qa_finetune", help="its recipe")
    parser.add_argument("--recipe", default="summary_mini", help="of the encoder–decoder")
    parser.add_argument("--minutes", type=float, default=0, help="for the encoder–decoder")
    parser.add_argument("--test", type=int, default=500, help="documents to measure on")
    parser.add_argument("--vocabulary-size", type=int, default=8000)
    parser.add_argument("--sequence-length", type=int, default=256)
    parser.add_argument("--set", action="append", default=[], help="of the recipes")
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
    held_out = list(read_rows(data / "validation.jsonl", _FIELDS))
    test = held_out[: args.test]
    sources, targets = [row["source"] for row in test], [row["target"] for row in test]
    result = {
        "test": len(test),
        "first_sentence": measured([first_sentence(source) for source in sources], targets),
    }
    if args.pretrained:
        known = {row["source"] for row in held_out}
        columns = {"source": "document", "target": "summary"}
        rows = read_rows(args.table, _FIELDS, columns=columns)
        recipe = load_recipe(args.finder).with_settings(args.set)
        started = time.monotonic()
        training = [row for row in rows if row["source"] not in known]
        texts, done = found_by(args.pretrained, recipe, training, sources, args.out)
        result[args.finder] = {
            "steps": done.steps,
            "minutes": round((time.monotonic() - started) / 60, 2),
            **measured(texts, targets),
        }
    if args.minutes:
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
