"""Writes the whole training step of each kind of recipe as a program of XLA, for `tpu_compile.py`.

    python benchmarks/tpu_steps.py build/tpu [--set global_batch=16 ...]

The data are made from the documentation that comes with Python; their text does not matter, a
program depends on shapes alone. Two layers, bfloat16, two microbatches and clipping unless `--set`
says else.
"""

import argparse
import csv
import sys
import tempfile
from pathlib import Path
from pydoc_data import topics

from tfllm.data import Records, prepare
from tfllm.trainers import load_recipe
from tfllm.trainers.compiled import whole_steps

# By the kind of model: recipe, and the task, tokenizer and row length of its data.
STEPS = {
    "gpt": ("gpt_10m", "causal_lm", "sentencepiece", 256),
    "lstm": ("lstm_10m", "causal_lm", "sentencepiece", 128),
    "bert": ("bert_mini", "masked_lm", "wordpiece", 128),
    "t5": ("t5_mini", "denoising", "sentencepiece", 128),
    "marian": ("translation_mini", "seq2seq_lm", "sentencepiece", 64),
    "classification": ("classifier_scratch", "text_classifier", "wordpiece", 64),
}
# Batches of a budget of positions: a program for each bucket.
BUCKETS = {
    "marian-buckets": STEPS["marian"],
    "classification-buckets": STEPS["classification"],
}
BUDGET = ["batch_tokens=2048", "length_buckets=2"]
# More layers of the same kind make the compiler take longer and show nothing else.
SETTINGS = [
    "model.num_layers=2", "precision=bfloat16", "microbatches=2", "optimizer.clip_norm=1.0",
    "global_batch=16",
]  # fmt: skip


def data_of(task: str, tokenizer: str, length: int, folder: Path) -> Records:
    """Prepared data of a task, in a folder."""
    lines = [
        line.strip() for name in sorted(topics.topics) for line in topics.topics[name].split("\n")
    ]
    lines = [line for line in lines if len(line) > 20]
    columns = {"seq2seq_lm": ("source", "target"), "text_classifier": ("text", "label")}.get(task)
    if columns is None:
        source = folder / f"{task}.txt"
        source.write_text("\n\n".join(topics.topics[name] for name in sorted(topics.topics)))
    else:
        source = folder / f"{task}.csv"
        with source.open("w", newline="") as file:
            rows = csv.writer(file)
            rows.writerow(columns)
            for line in lines[:2000]:
                other = (
                    line.upper() if task == "seq2seq_lm" else "long" if len(line) > 60 else "short"
                )
                rows.writerow([line, other])
    target = folder / f"{task}-{length}"
    prepare(
        source, target, task=task, tokenizer=tokenizer, vocabulary_size=2000, sequence_length=length
    )
    return Records(target)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("to", type=Path)
    parser.add_argument("--set", action="append", default=[])
    args = parser.parse_args()
    args.to.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as folder:
        for kind, (name, *data) in (STEPS | BUCKETS).items():
            records = data_of(*data, Path(folder))
            budget = BUDGET if kind in BUCKETS else []
            recipe = load_recipe(name).with_settings([*SETTINGS, *budget, *args.set])
            for shape, step, tensors in whole_steps(recipe, records):
                program = step.experimental_get_compiler_ir(*tensors)(stage="hlo_serialized")
                step_name = f"{kind}-{shape}" if kind in BUCKETS else kind
                (args.to / f"{step_name}.hlo").write_bytes(program)
                print(f"{step_name}: {len(program):,} bytes of {name}", file=sys.stderr)


if __name__ == "__main__":
    main()
