"""The command line: thin verbs over the public API.

The result goes to stdout as one JSON line, what a person reads to stderr. Exit code 2 is wrong use
or input, 1 a failure. TensorFlow is imported inside the commands, so that help is instant.
"""

import argparse
import contextlib
import importlib.util
import json
import os
import sys
from collections.abc import Iterator

from tfllm._version import __version__
from tfllm.commands.asking import add_asking
from tfllm.commands.deploying import add_deploying
from tfllm.commands.gateway import add_gateway
from tfllm.commands.loading import add_loading
from tfllm.commands.measuring import add_measuring
from tfllm.commands.reporting import add_reporting
from tfllm.commands.serving import add_serving
from tfllm.commands.training import add_training
from tfllm.errors import Failure, UserError
from tfllm.tensorflow_messages import import_messages_only


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="tfllm",
        description="Text to a language model that answers gRPC calls on stock TensorFlow Serving.",
    )
    parser.add_argument("--version", action="version", version=f"tfllm {__version__}")
    verbs = parser.add_subparsers(title="commands", metavar="COMMAND", required=True)

    def verb(function, text: str) -> argparse.ArgumentParser:
        name = function.__name__.rstrip("_")
        added = verbs.add_parser(name, help=text, description=text)
        added.set_defaults(function=function, only_asks_servers=lambda _: False)
        return added

    for add in (
        add_training,
        add_measuring,
        add_reporting,
        add_serving,
        add_asking,
        add_loading,
        add_gateway,
        add_deploying,
    ):
        add(verb)
    return parser


@contextlib.contextmanager
def _quiet_tensorflow() -> Iterator[None]:
    """Imports TensorFlow without the notices it prints before it reads its log level."""
    # REST does without; who only asks servers has its messages alone, a package without code.
    found = importlib.util.find_spec("tensorflow")
    is_there = found is not None and found.origin is not None
    if "TF_CPP_MIN_LOG_LEVEL" in os.environ or not is_there:
        yield
        return
    os.environ["TF_CPP_MIN_LOG_LEVEL"] = "2"
    stderr = os.dup(2)
    try:
        with open(os.devnull, "wb") as nothing:
            os.dup2(nothing.fileno(), 2)
        import tensorflow as tf

        tf.config.list_physical_devices()
    finally:
        os.dup2(stderr, 2)
        os.close(stderr)
    yield


def main(argv: list[str] | None = None) -> int:
    """Runs one command.

    Args:
        argv: The arguments; None means those of the process.

    Returns:
        The exit code.
    """
    args = _parser().parse_args(argv)
    if argv is None and args.only_asks_servers(args):
        import_messages_only()
    try:
        with _quiet_tensorflow():
            result = args.function(args)
    except UserError as error:
        print(f"tfllm: {error}", file=sys.stderr)
        return 2
    except (Failure, OSError) as error:  # a full disk, a folder that may not be written
        print(f"tfllm: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130
    if result is not None:
        print(json.dumps(result, ensure_ascii=False))
    return 0
