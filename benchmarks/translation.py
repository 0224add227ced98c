"""BLEU and chrF of translations after some minutes of training from nothing, beside a memory.

    python benchmarks/translation.py PAIRS.tsv --minutes 25 --out translation

PAIRS.tsv has a source and its target per line, without a header. Held out are pairs whose source
stands nowhere in the training pairs: chosen by the hash of the source, `--test` of them measured.
The memory answers with the target of the most similar training source (cosine of TF-IDF of words).
Prints one JSON line. A short run before each training measures the speed, so that the steps fill
the minutes.
"""

import argparse
import collections
import dataclasses
import json
import math
import re
import tempfile
import time
from pathlib import Path

import keras
import numpy as np

import tfllm
from tfllm.data import prepare
from tfllm.data.tables import Field, read_rows
from tfllm.metrics.text_overlap import bleu, chrf
from tfllm.trainers import fit, load_recipe

_CALIBRATION_STEPS = 15
_FIELDS = [Field("source"), Field("target")]


class Memory:
    """Training pairs, found by their sources."""

    def __init__(self, pairs: list[dict]):
        self._targets = [pair["target"] for pair in pairs]
        bags = [collections.Counter(_words(pair["source"])) for pair in pairs]
        seen = collections.Counter(word for bag in bags for word in bag)
        self._idf = {word: math.log(len(bags) / n) + 1 for word, n in seen.items()}
        places = collections.defaultdict(list)
        for i, bag in enumerate(bags):
            for word, weight in self._unit(bag).items():
                places[word].append((i, weight))
        self._places = {
            word: tuple(map(np.array, zip(*found, strict=True))) for word, found in places.items()
        }

    def _unit(self, bag):
        weights = {word: n * self._idf[word] for word, n in bag.items() if word in self._idf}
        length = math.sqrt(sum(weight**2 for weight in weights.values())) or 1
        return {word: weight / length for word, weight in weights.items()}

    def __call__(self, source: str) -> str:
        similarity = np.zeros(len(self._targets))
        for word, weight in self._unit(collections.Counter(_words(source))).items():
            at, there = self._places[word]
            similarity[at] += weight * there
        return self._targets[int(np.argmax(similarity))]


def _words(text: str) -> list[str]:
    return re.findall(r"\w+|[^\w\s]", text.casefold())


def measured(found: list[str], wanted: list[str], tokenizer: str) -> dict:
    return {
        "bleu": round(bleu(found, wanted, tokenizer=tokenizer).score, 2),
        "chrf": round(chrf(found, wanted).score, 2),
    }


class Ends(keras.callbacks.Callback):
    """When each step ended."""

    def __init__(self):
        super().__init__()
        self.times = []

    def on_train_batch_end(self, *_, **__):
        self.times.append(time.monotonic())


def train(name: str, data: Path, run: Path, minutes: float, settings: list[str]) -> dict:
    recipe = load_recipe(name).with_settings(settings)
    with tempfile.TemporaryDirectory() as scratch:
        short = dataclasses.replace(recipe, steps=_CALIBRATION_STEPS, validation_steps=1)
        ends, folder = Ends(), Path(scratch)
        fit(short, data=data, run=folder / "run", tensorboard=folder / "logs", callbacks=[ends])
    first, *_, last = ends.times[:-1]  # the last step ends with a checkpoint
    steps = int(minutes * 60 * (len(ends.times) - 2) / (last - first))
    started = time.monotonic()
    done = fit(
        dataclasses.replace(recipe, steps=steps), data=data, run=run, tensorboard=run / "logs"
    )
    return {
        "preset": done.preset,
        "steps": steps,
        "minutes": round((time.monotonic() - started) / 60, 2),
        "perplexity": round(done.metrics["perplexity"], 3),
    }


def translated(preset: str, sources: list[str], max_new_tokens: int) -> list[str]:
    model = tfllm.from_preset(preset)
    # What is longer than the model reads is cut, as in training.
    longest = model.backbone.max_sequence_length - 1
    sources = [
        text if len(ids) <= longest else model.detokenize(ids[:longest])
        for text, ids in zip(sources, model.tokenize(sources), strict=True)
    ]
    # Neighbours of like length: a batch lasts as long as its longest answer.
    order = sorted(range(len(sources)), key=lambda i: len(sources[i]))
    texts = [""] * len(sources)
    for start in range(0, len(order), 50):
        here = order[start : start + 50]
        found = model.beam_search([sources[i] for i in here], max_new_tokens=max_new_tokens)
        for i, beams in zip(here, found, strict=True):
            texts[i] = beams.text[0]
    return texts


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("table", type=Path)
    parser.add_argument("--recipes", nargs="+", default=["translation_mini", "translation_lstm"])
    parser.add_argument("--columns", nargs=2, default=["1", "2"], metavar=("SOURCE", "TARGET"))
    parser.add_argument("--minutes", type=float, default=25)
    parser.add_argument("--test", type=int, default=1000, help="pairs to measure on")
    parser.add_argument("--vocabulary-size", type=int, default=8000)
    parser.add_argument("--sequence-length", type=int, default=128)
    parser.add_argument("--max-new-tokens", type=int, default=120)
    parser.add_argument("--bleu-tokenizer", default="13a", help="of sacreBLEU: 13a, zh, char, …")
    parser.add_argument("--set", action="append", default=[], help="of the recipes")
    parser.add_argument("--out", type=Path, required=True, help="a new folder")
    args = parser.parse_args()

    data = args.out / "data"
    columns = dict(zip(("source", "target"), args.columns, strict=True))
    if not data.exists():
        prepare(
            args.table,
            data,
            task="seq2seq_lm",
            columns=columns,
            vocabulary_size=args.vocabulary_size,
            sequence_length=args.sequence_length,
            validation_fraction=0.04,
        )
    held_out = list(read_rows(data / "validation.jsonl", _FIELDS))
    all_sources = {pair["source"] for pair in held_out}
    training = [
        pair
        for pair in read_rows(args.table, _FIELDS, columns=columns)
        if pair["source"] not in all_sources
    ]
    test = held_out[: args.test]
    sources, targets = [pair["source"] for pair in test], [pair["target"] for pair in test]
    memory = Memory(training)
    result = {
        "train_pairs": len(training),
        "test_pairs": len(test),
        "memory": measured([memory(source) for source in sources], targets, args.bleu_tokenizer),
    }
    for name in args.recipes:
        result[name] = train(name, data, args.out / name, args.minutes, args.set)
        started = time.monotonic()
        texts = translated(result[name].pop("preset"), sources, args.max_new_tokens)
        result[name] |= measured(texts, targets, args.bleu_tokenizer)
        result[name]["translation_minutes"] = round((time.monotonic() - started) / 60, 2)
        lines = [json.dumps({"source": s, "target": t, "found": f}, ensure_ascii=False)
                 for s, t, f in zip(sources, targets, texts, strict=True)]  # fmt: skip
        (args.out / f"{name}.jsonl").write_text("\n".join(lines) + "\n", encoding="utf-8")
    print(json.dumps(result))


if __name__ == "__main__":
    main()
