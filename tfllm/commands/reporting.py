"""Commands that look into a model: what it has memorised, favours and looks at."""

import argparse
import sys
from collections.abc import Iterator
from contextlib import nullcontext
from pathlib import Path
from typing import Any

from tfllm.commands.options import Verb, add_connection, load_preset, measured
from tfllm.errors import UserError


def report(args) -> dict[str, Any]:
    from tfllm.reports import table, write_report

    with measured(args) if args.is_served else nullcontext(load_preset(args.target)) as model:
        found = args.make(model, args)
    print(table(found), end="", file=sys.stderr)
    if args.out:
        write_report(found, args.out, {"target": args.target})
    return {"target": args.target, **found.as_json()}


def _memorisation(model, args):
    from tfllm.reports import memorisation

    return memorisation(
        model,
        _documents(args.data, args),
        _documents(args.held_out, args, held_out=True),
        canaries=args.canary,
        prefix_tokens=args.prefix_tokens,
        continuation_tokens=args.continuation_tokens,
        limit=args.limit,
        sample=args.sample,
        seed=args.seed,
        batch_size=args.batch_size,
    )


def _documents(sources: list[str], args, held_out: bool = False) -> Iterator[str]:
    """The documents of texts; what a prepared folder holds out."""
    from tfllm.data import read_documents
    from tfllm.data.sources import VALIDATION_FILE

    paths = []
    for source in sources:
        held = Path(source, VALIDATION_FILE)
        if held.is_file() and not held_out:
            raise UserError(
                f"{source} is a prepared folder, which has its training texts as tokens alone: "
                "name the texts that it was made from."
            )
        paths.append(str(held) if held.is_file() else source)
    return read_documents(paths, text_field=args.text_field, document_bytes=args.document_bytes)


def _bias(model, args):
    from tfllm.reports import bias, read_paired_templates

    return bias(
        model,
        read_paired_templates(args.templates),
        resamples=args.resamples,
        confidence=args.confidence,
        seed=args.seed,
        batch_size=args.batch_size,
    )


def _attribution(model, args):
    from tfllm.reports import attribution

    return attribution(model, args.text, args.text_pair, label=args.label)


def _attention(model, args):
    from tfllm.reports import attention

    return attention(model, args.text, tensorboard=args.tensorboard, step=args.step)


def add_reporting(verb: Verb) -> None:
    """Adds them to the parser."""
    parser = verb(report, "what a model has memorised, favours and looks at, and what that hides")
    kinds = parser.add_subparsers(title="reports", metavar="REPORT", required=True)

    def kind(make, text: str, *, is_served: bool) -> argparse.ArgumentParser:
        added = kinds.add_parser(make.__name__.lstrip("_"), help=text, description=text)
        added.set_defaults(make=make, is_served=is_served)
        added.add_argument("target", metavar="PRESET|HOST:PORT/MODEL" if is_served else "PRESET")
        added.add_argument("--out", metavar="FOLDER", help="for report.json and what is behind it")
        if is_served:
            add_connection(added)
            added.add_argument("--batch-size", type=int, default=16, help="rows per call")
            added.add_argument("--seed", type=int, default=0, help="of what is drawn")
        return added

    p = kind(_memorisation, "what a model repeats of its training texts", is_served=True)
    p.add_argument("--data", nargs="+", default=[], metavar="SOURCE", help="training texts")
    p.add_argument(
        "--held-out", nargs="+", default=[], metavar="SOURCE", help="texts; or a prepared folder"
    )
    p.add_argument("--prefix-tokens", type=int, default=50, help="shown of a text (default 50)")
    p.add_argument("--continuation-tokens", type=int, default=50, help="to repeat (default 50)")
    p.add_argument("--limit", type=int, default=1000, help="documents at most, drawn (1000)")
    p.add_argument(
        "--canary",
        action="append",
        default=[],
        metavar="TEXT",
        help='put among the training texts, its secret in braces: "the code is {281-265}"',
    )
    p.add_argument("--sample", type=int, default=1000, help="other secrets to compare (1000)")
    p.add_argument("--text-field", default="text", help="of a JSONL line")
    p.add_argument("--document-bytes", type=int, default=4096, help="as of prepare")

    p = kind(_bias, "how an answer changes with the group that a sentence is of", is_served=True)
    p.add_argument("--templates", required=True, metavar="FILE", help="JSON, see the guide")
    p.add_argument("--resamples", type=int, default=10_000, help="of the bootstrap (10000)")
    p.add_argument("--confidence", type=float, default=0.95, help="of its interval (0.95)")

    p = kind(_attribution, "what each word adds to a classifier's answer", is_served=False)
    p.add_argument("--text", action="append", required=True, help="may be repeated")
    p.add_argument("--text-pair", action="append", default=[], help="as often, or never")
    p.add_argument("--label", help="of the classifier (default: each text's own)")

    p = kind(_attention, "where the heads of a Transformer look", is_served=False)
    p.add_argument("--text", required=True)
    p.add_argument("--tensorboard", metavar="FOLDER", help="of logs, for pictures")
    p.add_argument("--step", type=int, default=0, help="of the model, in TensorBoard")
