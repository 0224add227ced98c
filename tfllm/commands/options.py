"""What several commands take: columns, ways to write, models and endpoints."""

import argparse
import contextlib
import json
import re
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from tfllm.errors import UserError

# From a command's function and what it does, in a few words, to its parser.
Verb = Callable[[Callable, str], argparse.ArgumentParser]

_ENDPOINT = re.compile(
    r"(?P<address>(?:https?://)?[^/\s]+:\d+)/(?P<model>[^/]+)(?:/(?P<signature>[^/]+))?"
)

SAMPLING = {
    "max_new_tokens": (int, "new tokens at most (default: the model's, else 64)"),
    "temperature": (float, "0 = the best token each time (default, unless the model's is another)"),
    "top_k": (int, "sample among the k best tokens; 0 = off"),
    "top_p": (float, "sample among the fewest tokens that reach this probability; 1 = off"),
    "min_p": (float, "sample among tokens this times as probable as the best; 0 = off"),
    "repetition_penalty": (float, "divides the scores of tokens seen before; 1 = off"),
    "presence_penalty": (float, "from -2 to 2, lowers those of tokens written before; 0 = off"),
    "frequency_penalty": (float, "the same, as often as each was written; 0 = off"),
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

    with Client(endpoint["address"], endpoint["model"], **connection_of(args)) as client:
        yield client


def connection_of(args) -> dict[str, Any]:
    """The arguments of a client that the options of `add_connection` say."""
    return {"version": args.model_version, "version_label": args.label, **server_of(args)}


def server_of(args) -> dict[str, Any]:
    """Those that the options of `add_server` say."""
    from tfllm.serving import TLS

    headers = {}
    for header in args.request_header:
        name, colon, value = header.partition(":")
        if not colon:
            raise UserError(f"A header looks like authorization: TOKEN; got {header!r}.")
        headers[name.strip()] = value.strip()
    tls = TLS(args.root_certificates, args.certificate, args.key)
    return {
        "timeout_s": args.timeout,
        "tls": tls if args.tls or any(tls) else None,
        "headers": headers,
    }


def add_connection(parser: argparse.ArgumentParser, *more_names: str) -> None:
    """Adds them; `more_names` are those of --request-header."""
    group = add_server(parser, *more_names)
    group.add_argument("--model-version", type=int, help="default: the newest")
    group.add_argument("--label", help="of a version, as stable")


def add_server(parser: argparse.ArgumentParser, *more_names: str) -> argparse._ArgumentGroup:
    """Adds what does not ask for a version; returns the group of the options."""
    group = parser.add_argument_group("connection")
    group.add_argument("--timeout", type=float, default=60.0, help="seconds for one call")
    group.add_argument(
        "--request-header",
        *more_names,
        action="append",
        default=[],
        metavar="NAME:VALUE",
        help="may be repeated",
    )
    group.add_argument("--tls", action="store_true", help="to a gRPC port with a certificate")
    group.add_argument("--root-certificates", metavar="PEM", help="who signed the server's")
    group.add_argument("--certificate", metavar="PEM", help="the client's own")
    group.add_argument("--key", metavar="PEM", help="of that")
    return group


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


def json_inputs(text: str) -> dict[str, Any]:
    try:
        inputs = json.loads(text)
    except ValueError as error:
        raise UserError(f"--inputs must be JSON: {error}") from None
    if not isinstance(inputs, dict):
        raise UserError('--inputs must be an object, such as {"text": ["one", "two"]}.')
    return inputs


@contextlib.contextmanager
def progress(what: str, unit: str) -> Iterator[Callable[[int], Any]]:
    """A bar on stderr (no terminal: a line twice a minute), and what moves it on."""
    try:
        from tqdm import tqdm
    except ModuleNotFoundError:  # a client alone is installed without it
        yield lambda _: None
        return
    interval_s = 0.5 if sys.stderr.isatty() else 30.0
    with tqdm(desc=what, unit=unit, mininterval=interval_s) as bar:
        yield bar.update


def sampling_of(args) -> dict[str, Any]:
    return {name: value for name in SAMPLING if (value := getattr(args, name)) is not None}


def add_sampling(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--prompt", action="append", metavar="TEXT", help="may be repeated")
    parser.add_argument("--messages", metavar="FILE", help="a conversation in JSON, to be answered")
    parser.add_argument("--stop", action="append", metavar="TEXT", help="ends the text; up to 4")
    for name, (kind, text) in SAMPLING.items():
        parser.add_argument(f"--{name.replace('_', '-')}", type=kind, help=text)
