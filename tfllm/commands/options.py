"""What several commands take: columns, ways to write, models and endpoints."""

import argparse
import contextlib
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from tfllm.errors import UserError

# From a command's function and what it does, in a few words, to its parser.
Verb = Callable[[Callable, str], argparse.ArgumentParser]

_ENDPOINT = re.compile(r"(?P<address>[^/\s]+:\d+)/(?P<model>[^/]+)(?:/(?P<signature>[^/]+))?")

SAMPLING = {
    "max_new_tokens": (int, "new tokens at most (default: the model's, else 64)"),
    "temperature": (float, "0 = the best token each time (default, unless the model's is another)"),
    "top_k": (int, "sample among the k best tokens; 0 = off"),
    "top_p": (float, "sample among the fewest tokens that reach this probability; 1 = off"),
    "min_p": (float, "sample among tokens this times as probable as the best; 0 = off"),
    "repetition_penalty": (float, "divides the scores of tokens seen before; 1 = off"),
    "seed": (int, "of the sample (default 0)"),
    "num_return_sequences": (int, "answers per prompt, with the seeds seed, seed + 1, …"),
}


def given(value, default):
    return default if value is None else value


def load_preset(preset: str, **kwargs):
    from tfllm import from_preset

    return from_preset(preset, **kwargs)


def endpoint_of(text: str) -> re.Match | None:
    return _ENDPOINT.fullmatch(text)


@contextlib.contextmanager
def measured(args) -> Iterator[Any]:
    """The model to measure: a preset, or a client of what is served."""
    endpoint = endpoint_of(args.target)
    if not endpoint or Path(args.target).exists():
        yield load_preset(args.target)
        return
    from tfllm.serving import Client

    with Client(endpoint["address"], endpoint["model"], timeout_s=args.timeout) as client:
        yield client


def columns_of(given: list[str]) -> dict[str, str]:
    """Column by field, of options like text=review."""
    columns = {}
    for option in given:
        field, equals, column = option.partition("=")
        if not equals or not field or not column:
            raise UserError(f"A column looks like text=review or text=3: got {option!r}.")
        columns[field] = column
    return columns


def add_columns(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--column",
        action="append",
        default=[],
        metavar="FIELD=COLUMN",
        help="of a table, by name or number from 1, as text=review; may be repeated",
    )
    parser.add_argument(
        "--header",
        action=argparse.BooleanOptionalAction,
        help="whether tables begin with the names of their columns (default: found out)",
    )


def sampling_of(args) -> dict[str, Any]:
    return {name: value for name in SAMPLING if (value := getattr(args, name)) is not None}


def add_sampling(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--prompt", action="append", metavar="TEXT", help="may be repeated")
    parser.add_argument("--messages", metavar="FILE", help="a conversation in JSON, to be answered")
    parser.add_argument("--stop", action="append", metavar="TEXT", help="ends the text; up to 4")
    for name, (kind, text) in SAMPLING.items():
        parser.add_argument(f"--{name.replace('_', '-')}", type=kind, help=text)
