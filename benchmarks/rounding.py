"""What an export loses in bfloat16 and int8, on texts of yours, beside the same model in float32.

    python benchmarks/rounding.py runs/gpt/preset texts.txt
    python benchmarks/rounding.py models/opus-mt-en-fr pairs.tsv --limit 500
    python benchmarks/rounding.py models/all-MiniLM-L6-v2 texts.txt

A line of the file is a text; for a model that translates it is a source, a tab and its target. The
model is a preset or a folder of Hugging Face. Generators are measured by their perplexity,
exp(-log-probability per token), embedders by the cosine to the float32 embedding of each text.

Prints a JSON line per precision. The signatures are those of exports, run in this process.
"""

import argparse
import json
from pathlib import Path

import numpy as np
import tensorflow as tf

import tfllm
from tfllm.export.precision import served_in
from tfllm.models import build

_ROWS = 32


def perplexity(score, lines: list[str], pairs: bool) -> tuple[float, int]:
    """Of the targets, or of the texts themselves; and how many tokens they have."""
    logprob, tokens = 0.0, 0
    for begin in range(0, len(lines), _ROWS):
        some = lines[begin : begin + _ROWS]
        both = [line.split("\t")[:2] if pairs else ["", line] for line in some]
        prompt, completion = zip(*both, strict=True)
        found = score(prompt=tf.constant(prompt), completion=tf.constant(completion))
        logprob += float(tf.reduce_sum(found["logprob"]))
        tokens += int(tf.reduce_sum(found["num_tokens"]))
    return float(np.exp(-logprob / tokens)), tokens


def embeddings(embed, lines: list[str]) -> np.ndarray:
    """float32[b, d], of unit length."""
    parts = [
        embed(text=tf.constant(lines[begin : begin + _ROWS]))["embedding"].numpy()
        for begin in range(0, len(lines), _ROWS)
    ]
    return np.concatenate(parts)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("model", help="a preset, or a folder of Hugging Face")
    parser.add_argument("texts", type=Path)
    parser.add_argument("--limit", type=int, default=1000, help="lines at most")
    args = parser.parse_args()
    is_preset = (Path(args.model) / "task.json").is_file()
    model = (tfllm.from_preset if is_preset else tfllm.from_huggingface)(args.model)
    lines = [line for line in args.texts.read_text(encoding="utf-8").splitlines() if line.strip()]
    lines = lines[: args.limit]
    exact = None
    for precision in ("float32", "bfloat16", "int8"):
        with served_in(model, precision):
            functions = build(model.text())
            if "embed" in functions:
                found = embeddings(functions["embed"], lines)
                exact = found if exact is None else exact
                cosine = np.sum(found * exact, -1)
                line = {
                    "cosine_mean": round(float(cosine.mean()), 6),
                    "cosine_least": round(float(cosine.min()), 6),
                }
            else:
                pairs = isinstance(model, tfllm.models.Seq2SeqLM)
                found, tokens = perplexity(functions["score"], lines, pairs)
                exact = found if exact is None else exact
                line = {
                    "perplexity": round(found, 4),
                    "change_percent": round(100 * (found / exact - 1), 4),
                    "tokens": tokens,
                }
        print(json.dumps({"precision": precision, "texts": len(lines), **line}), flush=True)


if __name__ == "__main__":
    main()
