"""Accuracy of classifiers of sentences: from a pretrained BERT, from nothing, and an LSTM.

    python benchmarks/sentiment.py RATED.tsv --pretrained HF_FOLDER --out sentiment

RATED.tsv has lines of an id, a mean rating and a sentence, without a header. A sentence is positive
or negative by the sign of its rating; ratings nearer to 0 than 0.5 are left out. The test split are
the sentences whose MD5 is divisible by 10, and it is not looked at before the end. Prints one JSON
line; with scikit-learn installed also the linear baseline (logistic regression on TF-IDF of words
and pairs of words).
"""

import argparse
import csv
import dataclasses
import hashlib
import importlib.util
import json
import time
from pathlib import Path

import tfllm
from tfllm.data import prepare
from tfllm.trainers import fit, load_recipe

LENGTH = 64
FROM_NOTHING = ("classifier_scratch", "classifier_lstm")


def split(path: Path) -> tuple[list, list]:
    """(sentence, label) of training and test."""
    train, test = [], []
    with path.open(encoding="utf-8", newline="") as file:
        for _, rating, text in csv.reader(file, delimiter="\t", quoting=csv.QUOTE_NONE):
            if abs(float(rating)) >= 0.5:
                held_out = int(hashlib.md5(text.encode()).hexdigest(), 16) % 10 == 0
                label = "positive" if float(rating) > 0 else "negative"
                (test if held_out else train).append((text, label))
    return train, test


def write(path: Path, rows: list) -> Path:
    """A table of JSONL."""
    lines = [json.dumps({"text": text, "label": label}) for text, label in rows]
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return path


def accuracy(model, rows: list) -> float:
    """Of the model's labels."""
    found = []
    for start in range(0, len(rows), 64):
        found += model.classify([text for text, _ in rows[start : start + 64]])
    right = sum(answer.label == label for answer, (_, label) in zip(found, rows, strict=True))
    return round(right / len(rows), 4)


def linear_baseline(train: list, test: list) -> float:
    """The accuracy of a logistic regression."""
    from sklearn.feature_extraction.text import TfidfVectorizer
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline

    model = make_pipeline(
        TfidfVectorizer(ngram_range=(1, 2), sublinear_tf=True), LogisticRegression(C=10)
    )
    model.fit(*zip(*train, strict=True))
    texts, labels = zip(*test, strict=True)
    return round(model.score(texts, labels), 4)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("table", type=Path)
    parser.add_argument("--pretrained", help="a folder of Hugging Face with a BERT")
    parser.add_argument("--out", type=Path, required=True, help="a new folder")
    parser.add_argument("--only", action="append", help="a recipe; may be repeated")
    parser.add_argument("--set", action="append", default=[], help="of every recipe")
    args = parser.parse_args()

    train, test = split(args.table)
    args.out.mkdir(parents=True, exist_ok=True)
    table = write(args.out / "train.jsonl", train)
    result = {"train": len(train), "test": len(test)}
    if importlib.util.find_spec("sklearn"):
        result["linear"] = linear_baseline(train, test)
    names = args.only or ["classifier_finetune"] * bool(args.pretrained) + [*FROM_NOTHING]
    for name in names:
        recipe = load_recipe(name).with_settings(args.set)
        data, started = args.out / f"{name}-data", time.monotonic()
        tokenizer = None if name == "classifier_finetune" else "wordpiece"
        prepare(
            table, data, task="text_classifier", tokenizer=tokenizer, sequence_length=LENGTH,
            overwrite=True,
        )  # fmt: skip
        if name == "classifier_finetune":
            preset = args.out / "pretrained"
            tfllm.from_huggingface(args.pretrained).save_to_preset(preset)
            recipe = dataclasses.replace(recipe, preset=str(preset))
        run = args.out / name
        done = fit(recipe, data=data, run=run, tensorboard=run / "logs")
        result[name] = {
            "accuracy": accuracy(tfllm.from_preset(done.preset), test),
            "minutes": round((time.monotonic() - started) / 60, 2),
            "steps": done.steps,
        }
    print(json.dumps(result))


if __name__ == "__main__":
    main()
