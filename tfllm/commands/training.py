"""Commands from texts and checkpoints to exports."""

import argparse
import json
import math
import sys
from pathlib import Path
from typing import Any

from tfllm import contract
from tfllm.commands.options import Verb, add_columns, columns_of, given, load_preset

_JIT_COMPILE: dict[str, Any] = {"auto": "auto", "on": True, "off": False}


def prepare(args) -> dict[str, Any]:
    from tfllm.data import prepare

    if args.task == "skip_gram" and args.tokenizer is None:
        return {"out": args.out, **_prepare_words(args)}
    meta = prepare(
        args.sources,
        args.out,
        task=args.task,
        tokenizer=args.tokenizer,
        vocabulary_size=given(args.vocabulary_size, 8000),
        model_type=args.model_type,
        sequence_length=args.sequence_length,
        validation_fraction=given(args.validation_fraction, 0.05),
        validation=args.validation,
        columns=columns_of(args.column),
        header=args.header,
        document_bytes=args.document_bytes,
        text_field=args.text_field,
        embedded=args.embedded,
        overwrite=args.overwrite,
    )
    return {"out": args.out, **meta}


def _prepare_words(args) -> dict[str, Any]:
    from tfllm.data import prepare_words

    return prepare_words(
        args.sources,
        args.out,
        vocabulary_size=args.vocabulary_size,
        min_count=args.min_count,
        lowercase=not args.keep_case,
        digits=args.digits,
        stop_words=args.stop_words,
        lemmas=args.lemmas,
        sequence_length=args.sequence_length,
        validation_fraction=given(args.validation_fraction, 0.0),
        validation=args.validation,
        columns=columns_of(args.column),
        header=args.header,
        document_bytes=args.document_bytes,
        text_field=args.text_field,
        embedded=args.embedded,
        overwrite=args.overwrite,
    )


def train(args) -> dict[str, Any] | None:
    from tfllm.trainers import Watch, fit, is_chief, load_recipe
    from tfllm.trainers.watch import steps_of

    settings = [*args.set, *([f"precision={args.precision}"] if args.precision else [])]
    recipe = load_recipe(args.recipe).with_settings(settings)
    watch = Watch(
        profile=steps_of(args.profile) if args.profile else None,
        histograms=args.histograms,
        attention_entropy=args.attention_entropy,
    )
    result = fit(
        recipe,
        data=args.data,
        run=args.run,
        strategy=args.strategy,
        jit_compile=_JIT_COMPILE[args.jit_compile],
        accept_changes=args.accept_changes,
        watch=watch,
    )
    return result._asdict() if is_chief(args.strategy) else None


def plan(args) -> dict[str, Any]:
    from tfllm.data import Records
    from tfllm.errors import UserError
    from tfllm.trainers import load_recipe
    from tfllm.trainers.devices import device_named
    from tfllm.trainers.plan import advice, described, plan
    from tfllm.trainers.precision import with_precision_of

    recipe = load_recipe(args.recipe).with_settings(args.set)
    folder = args.data or recipe.data
    if not folder:
        raise UserError("No data: give the folder that `tfllm prepare` wrote (--data).")
    device, records = device_named(args.device), Records(folder)
    recipe = with_precision_of(recipe, device)
    found = plan(recipe, records, device, args.replicas)
    print(described(found, recipe, device, args.replicas), end="", file=sys.stderr)
    changes = [] if found.fits else advice(recipe, records, device, args.replicas)
    for change in changes:
        settings = ", ".join(f"{name}={value}" for name, value in change.items())
        print(f"  fits with {settings}", file=sys.stderr)
    return {"recipe": recipe.name, "device": device.name, **found._asdict(), "advice": changes}


def runs(args) -> dict[str, Any]:
    from tfllm.trainers.runs import compare_runs, table

    rows = compare_runs(args.folders, sort=args.sort, columns=_names(args.columns))
    print(table(rows), end="", file=sys.stderr)
    return {"runs": rows}


def _names(text: str | None) -> list[str]:
    return [name.strip() for name in (text or "").split(",") if name.strip()]


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

    model = load_preset(args.preset, dtype="float32")
    options = {
        name: value
        for name in ("beams", "prompt_lookup", "sessions", "session_timeout_s")
        if (value := getattr(args, name)) is not None
    }
    precisions = args.precision or ["float32"]
    versions = for_serving(
        model,
        args.to,
        precision=precisions,
        keep=args.keep,
        source=args.preset,
        check_python=args.check_python,
        warm_up=args.warm_up,
        **options,
    )
    if args.sessions:
        _announce_sessions(versions[-1])
    written = [
        {"version": str(version), "precision": precision}
        for version, precision in zip(versions, precisions, strict=True)
    ]
    return written[0] if len(written) == 1 else {"versions": written}


def _announce_sessions(version: Path) -> None:
    known = json.loads((version / contract.METADATA_FILE).read_text(encoding="utf-8"))
    of_what = "texts" if known["task"] == "causal_lm" else "sources and as many targets"
    print(
        f"Sessions: the server keeps {known['sessions']} {of_what} of {known['context_length']} "
        f"tokens at most, in {known['session_bytes'] / 2**20:,.2f} MiB from the first of them on.",
        file=sys.stderr,
    )


def inspect(args) -> dict[str, Any]:
    from tfllm.export import inspect_export

    return inspect_export(args.version)


def publish(args) -> dict[str, Any]:
    from tfllm.export import publish_export

    return {"version": str(publish_export(args.export, args.base))}


def quickstart(args) -> dict[str, Any]:
    from tfllm.quickstart import quickstart

    return quickstart(args.folder, args.set)


def add_training(verb: Verb) -> None:
    """Adds them to the parser."""
    p = verb(prepare, "text or tables to the rows that a task is trained on")
    p.add_argument(
        "sources", nargs="*", help="files, folders, globs; .txt, .jsonl, .tsv, .csv, .gz"
    )
    p.add_argument("--out", required=True, help="the folder to write")
    p.add_argument("--task", default="causal_lm", help="what is trained on it (default causal_lm)")
    p.add_argument("--embedded", action="store_true", help="use the corpus that Python carries")
    p.add_argument(
        "--tokenizer",
        help="sentencepiece, wordpiece or byte_bpe trains one; or the path of one, as a preset",
    )
    p.add_argument("--vocabulary-size", type=int, help="default 8000; of skip_gram all words")
    p.add_argument("--model-type", choices=["unigram", "bpe"], default="unigram")
    p.add_argument("--sequence-length", type=int, default=256)
    p.add_argument(
        "--validation-fraction", type=float, help="held out (default 0.05; of skip_gram 0)"
    )
    p.add_argument(
        "--validation", nargs="+", default=[], metavar="SOURCE", help="what is held out instead"
    )
    add_columns(p)
    p.add_argument("--document-bytes", type=int, default=4096, help="least size of a document")
    p.add_argument("--text-field", default="text", help="of a JSONL line")
    p.add_argument("--overwrite", action="store_true", help="replace an existing folder")
    _add_words(p)

    p = verb(train, "trains a model by a recipe; goes on where a killed run ended")
    p.add_argument("recipe", help="name of a recipe, or a .py or .json file")
    p.add_argument("--data", help="the folder that prepare wrote")
    p.add_argument("--run", help="the run's folder (default runs/NAME)")
    p.add_argument("--set", action="append", default=[], metavar="NAME=VALUE", help="as steps=500")
    p.add_argument(
        "--precision", choices=["auto", "float32", "bfloat16"], help="instead of the recipe's"
    )
    p.add_argument("--strategy", default="auto", help="auto, one, mirrored, multiworker or tpu")
    p.add_argument(
        "--jit-compile", default="auto", choices=["auto", "on", "off"],
        help="whether XLA compiles the whole training step; auto does on GPUs",
    )  # fmt: skip
    p.add_argument(
        "--accept-changes", action="store_true", help="go on by another recipe than it was begun by"
    )

    watched = p.add_argument_group("for TensorBoard")
    watched.add_argument("--profile", metavar="FIRST:LAST", help="steps to profile, as 20:25")
    watched.add_argument("--histograms", action="store_true", help="of the weights")
    watched.add_argument(
        "--attention-entropy", action="store_true", help="how spread out each layer looks"
    )

    p = verb(plan, "memory and time of a recipe on a device, on paper")
    p.add_argument("recipe", help="name of a recipe, or a .py or .json file")
    p.add_argument("--data", help="the folder that prepare wrote")
    p.add_argument(
        "--device",
        default="cpu",
        help="v4, v5e, v5p, a100, h100; measured: cpu (one process), cpu_workers",
    )
    p.add_argument("--replicas", type=int, default=1, metavar="N")
    p.add_argument("--set", action="append", default=[], metavar="NAME=VALUE", help="as steps=500")

    p = verb(runs, "compares runs: how far they are, what they reached, how their recipes differ")
    p.add_argument(
        "folders", nargs="*", metavar="FOLDER", help="runs, or above them (default runs)"
    )
    p.add_argument("--sort", metavar="COLUMN", help="as validation_loss")
    p.add_argument("--columns", metavar="NAMES", help="as run,steps,loss (default: all)")

    p = verb(import_, "a checkpoint of Hugging Face to a preset")
    p.add_argument("folder", help="with config.json, the weights and the tokenizer's files")
    p.add_argument("preset", help="the folder to write")

    p = verb(export, "writes a preset as the next version of a served model")
    p.add_argument("preset")
    p.add_argument("--to", required=True, help="the folder that a server watches, as models/gpt")
    p.add_argument(
        "--precision", action="append", choices=["float32", "bfloat16", "int8"],
        help="of the matrices (default float32); repeated, each is a version, in that order",
    )  # fmt: skip
    p.add_argument(
        "--keep", action="append", default=[], metavar="PATTERN",
        help="layers whose matrices stay in float32, as */feed_forward/outer",
    )  # fmt: skip
    p.add_argument("--beams", type=int, help="of beam_search (default: the model's, else 4)")
    p.add_argument(
        "--prompt-lookup", type=int, metavar="N",
        help="generate guesses N tokens at a time where a text repeats what was read (default 0)",
    )  # fmt: skip
    p.add_argument(
        "--sessions", type=int, metavar="N",
        help="the server can keep N texts at a time: for the gateway, which streams them",
    )  # fmt: skip
    p.add_argument(
        "--session-timeout", dest="session_timeout_s", type=float, metavar="SECONDS",
        help="a kept text that is not asked for so long may lose its place (default 60)",
    )  # fmt: skip
    p.add_argument(
        "--warm-up", action="append", metavar="SIGNATURE",
        help="called before a server answers (default: all; each keeps memory of its own)",
    )  # fmt: skip
    p.add_argument("--check-python", help="interpreter that checks, as one with TensorFlow 2.20")

    p = verb(inspect, "what an export is and what it takes")
    p.add_argument("version", help="as models/gpt/1")

    p = verb(publish, "an export to where a server looks for versions, whole or not at all")
    p.add_argument("export", help="as models/gpt/1, or models/gpt for its newest version")
    p.add_argument("base", metavar="BASE_PATH", help="that a server watches, as /models/gpt")

    p = verb(quickstart, "the whole path on the corpus that Python carries")
    p.add_argument("--folder", default="quickstart", help="where everything is written")
    p.add_argument("--set", action="append", default=[], metavar="NAME=VALUE", help="as steps=100")


def _add_words(parser: argparse.ArgumentParser) -> None:
    words = parser.add_argument_group("of --task skip_gram")
    words.add_argument("--min-count", type=int, default=5, help="of a kept word (default 5)")
    words.add_argument("--keep-case", action="store_true", help="do not fold case")
    words.add_argument(
        "--digits", default="keep", help="keep, zero (each becomes 0) or drop (default keep)"
    )
    words.add_argument("--stop-words", metavar="FILE", help="one per line; or english")
    words.add_argument("--lemmas", metavar="FILE", help="lines of form, tab, lemma")
