"""The command that measures a model on data."""

import sys
from pathlib import Path
from typing import Any

from tfllm.commands.options import (
    SAMPLING,
    Verb,
    add_columns,
    add_connection,
    columns_of,
    measured,
)

# Options of `evaluate` that are those of an evaluator: type and help.
_EVALUATOR = {
    "batch_size": (int, "rows per call"),
    "context_length": (int, "of perplexity: tokens (default: the model's own)"),
    "stride": (int, "of perplexity: tokens that the window moves on (default: half a context)"),
    "positive": (str, "of classification: the label whose curves are measured, of two the second"),
    "bleu_tokenizer": (str, "of sacrebleu: 13a (default), intl, zh, char or none"),
    "rouge_tokenizer": (str, "english (default; reads a-z and 0-9 only), words or characters"),
}
_WRITING = {
    **{name: option for name, option in SAMPLING.items() if name != "num_return_sequences"},
    "length_penalty": (float, "of --beam-search: above 0 favours long texts"),
}


def evaluate(args) -> dict[str, Any]:
    from tfllm.evaluators import evaluate, table, write_report

    with measured(args) as model:
        found = evaluate(
            model,
            args.data,
            task=args.task,
            columns=columns_of(args.column),
            header=args.header,
            limit=args.limit,
            metrics=[name.strip() for name in (args.metrics or "").split(",") if name.strip()],
            **_evaluator_options(args),
        )
    print(table(found), end="", file=sys.stderr)
    if args.out:
        write_report(found, args.out, {"target": args.target, "data": args.data})
    if args.tensorboard:
        from tfllm.evaluators.tensorboard import write_tensorboard

        write_tensorboard(found, args.tensorboard, step=args.step)
    numbers = found.as_json()
    del numbers["details"]
    return {"target": args.target, **numbers}


def _evaluator_options(args) -> dict[str, Any]:
    """The options of the evaluator that were given."""
    options = {name: getattr(args, name) for name in _EVALUATOR}
    settings = {name: value for name in _WRITING if (value := getattr(args, name)) is not None}
    if args.stop:
        settings["stop"] = args.stop
    options |= {"settings": settings or None, "beam_search": args.beam_search or None}
    if args.words:
        options["words"] = Path(args.words).read_text(encoding="utf-8").split()
    return {name: value for name, value in options.items() if value is not None}


def add_measuring(verb: Verb) -> None:
    """Adds it to the parser."""
    p = verb(evaluate, "measures a preset or a served model on data")
    p.add_argument("target", metavar="PRESET|HOST:PORT/MODEL")
    p.add_argument("--data", required=True, nargs="+", help="a prepared folder, tables, or texts")
    p.add_argument("--task", help="as classification (default: by the model and the data)")
    add_columns(p)
    p.add_argument("--limit", type=int, help="rows or documents at most")
    p.add_argument("--metrics", metavar="NAMES", help="as accuracy,f1_macro (default: all)")
    p.add_argument("--out", metavar="FOLDER", help="for the numbers and every answer")
    p.add_argument("--tensorboard", metavar="FOLDER", help="of logs, for pictures")
    p.add_argument("--step", type=int, default=0, help="of the model, in TensorBoard")
    p.add_argument("--words", metavar="FILE", help="of analogies: among which the answer is")
    p.add_argument("--beam-search", action="store_true", help="measure the best beam")
    p.add_argument("--stop", action="append", metavar="TEXT", help="ends a text; up to 4")
    for name, (kind, text) in {**_EVALUATOR, **_WRITING}.items():
        p.add_argument(f"--{name.replace('_', '-')}", type=kind, help=text)
    add_connection(p)
