"""Exact match and F1 of answers found in texts, on cloze questions made of a book.

    python benchmarks/question_answering.py BOOK.txt --pretrained HF_FOLDER --out questions

No public set of questions comes with this project, so one is made of the text itself, in the manner
of the Children's Book Test (Hill et al. 2016, https://arxiv.org/abs/1511.02301): a context is
`--sentences` sentences in a row, the question is the sentence after them with a name taken out,
and the answer is that name, which stands in the context. The book is parted into 50 pieces; every
tenth is for the test. The baseline chooses among the names of the context the one around which most
of the question's words stand, weighted by their rarity, and the more often the name occurs. Prints
one JSON line.
"""

import argparse
import collections
import dataclasses
import json
import math
import re
import time
from pathlib import Path

import tfllm
from tfllm.data import prepare
from tfllm.evaluators import span_qa
from tfllm.metrics.spans import span_scores
from tfllm.trainers import fit, load_recipe

_PIECES = 50
_BLANK = "_____"
_TITLES = r"(?:Mr|Mrs|Dr|St)\."


def sentences(text: str) -> list[str]:
    text = re.sub(r"\s+", " ", text)
    text = re.sub(f"({_TITLES}) ", "\\1\u00a0", text)  # no sentence ends behind Mr.
    return [s.strip() for s in re.split(r"(?<=[.!?])[\"'”]*\s+(?=[\"'“]?[A-Z])", text) if s.strip()]


def names(sentence: str) -> list[re.Match]:
    """Capitalised words that begin no sentence, with their titles."""
    return [
        found
        for found in re.finditer(rf"(?:{_TITLES}\u00a0)?[A-Z][a-z]{{2,}}", sentence)
        if re.search(r"[a-z,;] $", sentence[: found.start()])
    ]


def questions(piece: list[str], size: int) -> list[dict]:
    """One question for each context that has the name which its next sentence has."""
    made = []
    for start in range(len(piece) - size):
        context, asked = " ".join(piece[start : start + size]), piece[start + size]
        for found in names(asked):
            place = re.search(rf"\b{re.escape(found[0])}\b", context)
            if place:
                made.append(
                    {
                        "question": asked[: found.start()] + _BLANK + asked[found.end() :],
                        "context": context,
                        "answers": {"text": [found[0]], "answer_start": [place.start()]},
                    }
                )
                break
    return made


def _words(text: str) -> list[str]:
    return re.findall(r"\w+", text.lower())


class WordsAround:
    """The baseline."""

    def __init__(self, rows: list[dict]):
        counts = collections.Counter(word for row in rows for word in set(_words(row["context"])))
        self._idf = collections.defaultdict(
            lambda: math.log(len(rows)),
            {word: math.log(len(rows) / n) for word, n in counts.items()},
        )

    def __call__(self, row: dict) -> str:
        context = row["context"]
        asked = set(_words(row["question"]))
        scores = collections.Counter()
        for found in names(context):
            around = set(_words(context[max(0, found.start() - 100) : found.end() + 100]))
            scores[found[0]] += 1 + sum(self._idf[word] for word in around & asked) / 10
        return scores.most_common(1)[0][0] if scores else ""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("book", type=Path)
    parser.add_argument("--pretrained", required=True, help="a folder of Hugging Face with a BERT")
    parser.add_argument("--sentences", type=int, default=5, help="of a context")
    parser.add_argument("--test", type=int, default=1000, help="questions to measure on")
    parser.add_argument("--sequence-length", type=int, default=160)
    parser.add_argument("--set", action="append", default=[], help="of the recipe qa_finetune")
    parser.add_argument("--out", type=Path, required=True, help="a new folder")
    args = parser.parse_args()

    args.out.mkdir(parents=True, exist_ok=True)
    text = sentences(args.book.read_text(encoding="utf-8"))
    size = -(-len(text) // _PIECES)
    train, test = [], []
    for i in range(_PIECES):
        piece = text[i * size : (i + 1) * size]
        (test if i % 10 == 9 else train).extend(questions(piece, args.sentences))
    test = test[: args.test]
    for name, rows in (("train", train), ("test", test)):
        lines = [json.dumps(row, ensure_ascii=False) for row in rows]
        (args.out / f"{name}.jsonl").write_text("\n".join(lines) + "\n", encoding="utf-8")

    baseline = WordsAround(train)
    answers = [row["answers"]["text"] for row in test]
    scores = span_scores([baseline(row) for row in test], answers)["all"]
    started = time.monotonic()
    data, preset = args.out / "data", args.out / "pretrained"
    prepare(
        args.out / "train.jsonl",
        data,
        task="span_qa",
        sequence_length=args.sequence_length,
        overwrite=True,
    )
    tfllm.from_huggingface(args.pretrained).save_to_preset(preset)
    recipe = load_recipe("qa_finetune").with_settings(args.set)
    recipe = dataclasses.replace(recipe, preset=str(preset))
    done = fit(recipe, data=data, run=args.out / "run", tensorboard=args.out / "logs")
    found = span_qa(tfllm.from_preset(done.preset), test)
    print(
        json.dumps(
            {
                "train": len(train),
                "test": len(test),
                "words_around": {
                    "exact_match": round(scores.exact_match, 4),
                    "f1": round(scores.f1, 4),
                },
                "qa_finetune": {
                    **{name: round(value, 4) for name, value in found.metrics.items()},
                    "minutes": round((time.monotonic() - started) / 60, 2),
                    "steps": done.steps,
                },
            }
        )
    )


if __name__ == "__main__":
    main()
