"""The command line: thin verbs over the public API.

The result goes to stdout as one JSON line, what a person reads to stderr. Exit code 2 is wrong use
or input, 1 a failure. TensorFlow is imported inside the commands, so that help is instant.
"""

import argparse
import contextlib
import json
import math
import os
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from tfllm._version import __version__
from tfllm.errors import Failure, UserError

_ENDPOINT = re.compile(r"(?P<address>[^/\s]+:\d+)/(?P<model>[^/]+)(?:/(?P<signature>[^/]+))?")


def prepare(args) -> dict[str, Any]:
    from tfllm.data import prepare

    meta = prepare(
        args.texts,
        args.out,
        tokenizer=args.tokenizer,
        vocabulary_size=args.vocabulary_size,
        model_type=args.model_type,
        sequence_length=args.sequence_length,
        validation_fraction=args.validation_fraction,
        document_bytes=args.document_bytes,
        text_field=args.text_field,
        embedded=args.embedded,
        overwrite=args.overwrite,
    )
    return {"out": args.out, **meta}


def train(args) -> dict[str, Any]:
    from tfllm.trainers import fit, load_recipe

    recipe = load_recipe(args.recipe).with_settings(args.set)
    return fit(recipe, data=args.data, run=args.run, strategy=args.strategy)._asdict()


def evaluate(args) -> dict[str, Any]:
    from tfllm.data import read_documents
    from tfllm.evaluators import perplexity

    held_out = Path(args.data[0]) / "validation.jsonl"
    sources = [held_out] if len(args.data) == 1 and held_out.is_file() else args.data
    with _scorer(args) as (scorer, context_length):
        texts = read_documents(sources)
        found = perplexity(scorer, texts, context_length=context_length, batch_size=args.batch_size)
    return {"target": args.target, **found._asdict()}


@contextlib.contextmanager
def _scorer(args) -> Iterator[tuple[Any, int]]:
    """The model to measure, and how many tokens it reads at once."""
    endpoint = _endpoint(args.target)
    if not endpoint or Path(args.target).exists():
        model = _load(args.target)
        if not hasattr(model, "score"):
            raise UserError(f"{args.target} holds a {type(model).__name__}, which scores no text.")
        yield model, _given(args.context_length, model.backbone.max_sequence_length)
        return
    from tfllm.evaluators import served_context_length
    from tfllm.serving import Client

    with Client(endpoint["address"], endpoint["model"], timeout_s=args.timeout) as client:
        length = args.context_length
        yield client, served_context_length(client) if length is None else length


def _given(value, default):
    return default if value is None else value


def generate(args) -> dict[str, Any]:
    from tfllm.calls import GeneratorCalls

    model = _load(args.preset)
    if not isinstance(model, GeneratorCalls):
        raise UserError(f"{args.preset} holds a {type(model).__name__}, which writes no text.")
    return _generations(model, args)


def _generations(model, args) -> dict[str, Any]:
    found = model.generate(args.prompt, stop=args.stop or (), **_sampling(args))
    if args.num_return_sequences not in (None, 1):
        return {"generations": [[each._asdict() for each in several] for several in found]}
    return {"generations": [generation._asdict() for generation in found]}


def import_(args) -> dict[str, Any]:
    from tfllm import from_huggingface

    model = from_huggingface(args.folder)
    model.save_to_preset(args.preset)
    return {
        "preset": args.preset,
        "model": type(model).__name__,
        "weights": sum(math.prod(variable.shape) for variable in model.weights),
        "tokenizer": type(model.preprocessor.tokenizer).__name__,
    }


def export(args) -> dict[str, Any]:
    from tfllm.export import for_serving

    model = _load(args.preset, dtype=args.precision)
    options = {name: value for name in ("beams",) if (value := getattr(args, name)) is not None}
    version = for_serving(
        model, args.to, source=args.preset, check_python=args.check_python, **options
    )
    return {"version": str(version), "precision": args.precision}


def serve(args) -> None:
    from tfllm.serving import run_stock_server, serve

    if args.name and len(args.models) > 1:
        raise UserError(f"--name names one model, got {len(args.models)}.")
    models = {args.name: args.models[0]} if args.name else args.models
    if args.server == "embedded":
        serve(models, port=args.port, host=_given(args.host, "127.0.0.1"))
    elif args.host is None:
        run_stock_server(models, port=args.port)
    else:
        raise UserError("tensorflow_model_server listens on every address: leave --host out.")


def call(args) -> dict[str, Any]:
    from tfllm.serving import Client

    endpoint = _endpoint(args.endpoint)
    if not endpoint:
        raise UserError(
            f"The endpoint must be HOST:PORT/MODEL or HOST:PORT/MODEL/SIGNATURE, got "
            f"{args.endpoint!r}."
        )
    with Client(endpoint["address"], endpoint["model"], timeout_s=args.timeout) as client:
        if args.inputs is not None:
            inputs = _json_inputs(args.inputs)
            return _plain(client.predict(inputs, endpoint["signature"] or "serving_default"))
        return _call_with_prompts(client, endpoint["signature"] or "generate", args)


def _call_with_prompts(client, signature: str, args) -> dict[str, Any]:
    if signature not in ("generate", "beam_search", "score"):
        raise UserError(f"{signature} takes no --prompt: give --inputs JSON.")
    if not args.prompt:
        raise UserError("Give --prompt TEXT, or --inputs JSON for any signature.")
    if signature == "score":
        scores = client.score(args.prompt, args.completion or [])
        return {"scores": [score._asdict() for score in scores]}
    if signature == "beam_search":
        beams = client.beam_search(args.prompt, max_new_tokens=args.max_new_tokens)
        return {"beams": [each._asdict() for each in beams]}
    return _generations(client, args)


def inspect(args) -> dict[str, Any]:
    from tfllm.export import inspect_export

    return inspect_export(args.version)


def quickstart(args) -> dict[str, Any]:
    from tfllm.quickstart import quickstart

    return quickstart(args.folder, args.set)


def _load(preset: str, **kwargs):
    from tfllm import from_preset

    return from_preset(preset, **kwargs)


def _endpoint(text: str) -> re.Match | None:
    return _ENDPOINT.fullmatch(text)


def _json_inputs(text: str) -> dict[str, Any]:
    try:
        inputs = json.loads(text)
    except ValueError as error:
        raise UserError(f"--inputs must be JSON: {error}") from None
    if not isinstance(inputs, dict):
        raise UserError('--inputs must be an object, such as {"text": ["one", "two"]}.')
    return inputs


def _plain(outputs: dict[str, Any]) -> dict[str, Any]:
    from tfllm.rows import plain

    return {name: plain(array.tolist()) for name, array in outputs.items()}


_SAMPLING = {
    "max_new_tokens": (int, "new tokens at most (default: the model's, else 64)"),
    "temperature": (float, "0 = the best token each time (default, unless the model's is another)"),
    "top_k": (int, "sample among the k best tokens; 0 = off"),
    "top_p": (float, "sample among the fewest tokens that reach this probability; 1 = off"),
    "min_p": (float, "sample among tokens this times as probable as the best; 0 = off"),
    "repetition_penalty": (float, "divides the scores of tokens seen before; 1 = off"),
    "seed": (int, "of the sample (default 0)"),
    "num_return_sequences": (int, "answers per prompt, with the seeds seed, seed + 1, …"),
}


def _sampling(args) -> dict[str, Any]:
    return {name: value for name in _SAMPLING if (value := getattr(args, name)) is not None}


def _add_sampling(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--prompt", action="append", metavar="TEXT", help="may be repeated")
    parser.add_argument("--stop", action="append", metavar="TEXT", help="ends the text; up to 4")
    for name, (kind, text) in _SAMPLING.items():
        parser.add_argument(f"--{name.replace('_', '-')}", type=kind, help=text)


def _parser() -> argparse.ArgumentParser:  # one parser in one place
    parser = argparse.ArgumentParser(
        prog="tfllm",
        description="Text to a language model that answers gRPC calls on stock TensorFlow Serving.",
    )
    parser.add_argument("--version", action="version", version=f"tfllm {__version__}")
    verbs = parser.add_subparsers(title="commands", metavar="COMMAND", required=True)

    def verb(function, text: str) -> argparse.ArgumentParser:
        name = function.__name__.rstrip("_")
        added = verbs.add_parser(name, help=text, description=text)
        added.set_defaults(function=function)
        return added

    p = verb(prepare, "text files to a tokenizer and packed records")
    p.add_argument("texts", nargs="*", metavar="TEXT", help="files, folders, globs; .gz, .jsonl")
    p.add_argument("--out", required=True, help="the folder to write")
    p.add_argument("--embedded", action="store_true", help="use the corpus that Python carries")
    p.add_argument(
        "--tokenizer", default="sentencepiece", help="sentencepiece, wordpiece, byte_bpe, or a path"
    )
    p.add_argument("--vocabulary-size", type=int, default=8000)
    p.add_argument("--model-type", choices=["unigram", "bpe"], default="unigram")
    p.add_argument("--sequence-length", type=int, default=256)
    p.add_argument("--validation-fraction", type=float, default=0.05)
    p.add_argument("--document-bytes", type=int, default=4096, help="least size of a document")
    p.add_argument("--text-field", default="text", help="of a JSONL line")
    p.add_argument("--overwrite", action="store_true", help="replace an existing folder")

    p = verb(train, "trains a model by a recipe; goes on where a killed run ended")
    p.add_argument("recipe", help="name of a recipe, or a .py or .json file")
    p.add_argument("--data", help="the folder that prepare wrote")
    p.add_argument("--run", help="the run's folder (default runs/NAME)")
    p.add_argument("--set", action="append", default=[], metavar="NAME=VALUE", help="as steps=500")
    p.add_argument("--strategy", default="auto", help="auto, one, mirrored or tpu")

    p = verb(evaluate, "perplexity and bits per byte of a preset or a served model")
    p.add_argument("target", metavar="PRESET|HOST:PORT/MODEL")
    p.add_argument("--data", required=True, nargs="+", help="a prepared folder, or text files")
    p.add_argument("--context-length", type=int, help="tokens (default: the model's own)")
    p.add_argument("--batch-size", type=int, default=16)
    p.add_argument("--timeout", type=float, default=60.0, help="seconds for one call")

    p = verb(generate, "continues prompts with a preset")
    p.add_argument("preset")
    _add_sampling(p)

    p = verb(import_, "a checkpoint of Hugging Face to a preset")
    p.add_argument("folder", help="with config.json, the weights and the tokenizer's files")
    p.add_argument("preset", help="the folder to write")

    p = verb(export, "writes a preset as the next version of a served model")
    p.add_argument("preset")
    p.add_argument("--to", required=True, help="the folder that a server watches, as models/gpt")
    p.add_argument("--precision", choices=["float32", "bfloat16"], default="float32")
    p.add_argument("--beams", type=int, help="of beam_search (default: the model's, else 4)")
    p.add_argument("--check-python", help="interpreter that checks, as one with TensorFlow 2.20")

    p = verb(serve, "serves exports over gRPC until it is stopped")
    p.add_argument("models", nargs="+", metavar="BASE", help="as models/gpt")
    p.add_argument("--name", help="of the model (default: the folder's name)")
    p.add_argument("--port", type=int, default=8500)
    p.add_argument("--host", help="address to listen on (default 127.0.0.1)")
    p.add_argument("--server", choices=["embedded", "tensorflow_model_server"], default="embedded")

    p = verb(call, "asks a served model")
    p.add_argument("endpoint", metavar="HOST:PORT/MODEL[/SIGNATURE]")
    _add_sampling(p)
    p.add_argument("--completion", action="append", metavar="TEXT", help="for score")
    p.add_argument("--inputs", metavar="JSON", help="inputs by name, for any signature")
    p.add_argument("--timeout", type=float, default=60.0, help="seconds")

    p = verb(inspect, "what an export is and what it takes")
    p.add_argument("version", help="as models/gpt/1")

    p = verb(quickstart, "the whole path on the corpus that Python carries")
    p.add_argument("--folder", default="quickstart", help="where everything is written")
    p.add_argument("--set", action="append", default=[], metavar="NAME=VALUE", help="as steps=100")
    return parser


@contextlib.contextmanager
def _quiet_tensorflow() -> Iterator[None]:
    """Imports TensorFlow without the notices it prints before it reads its log level."""
    if "TF_CPP_MIN_LOG_LEVEL" in os.environ:
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
