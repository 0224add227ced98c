"""From a live model to the next version of a served one."""

import contextlib
import functools
import json
import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, overload

import tensorflow as tf
from tensorflow.core.protobuf import saved_model_pb2

from tfllm import contract, rows
from tfllm._version import __version__
from tfllm.errors import UserError
from tfllm.export.check import compare, run_in_fresh_process
from tfllm.export.lean import make_lean
from tfllm.export.precision import Served, require_servable, served_in
from tfllm.export.trial import Trial
from tfllm.export.versions import publish
from tfllm.export.warmup import write_warmup
from tfllm.models import TextFunctions, TextTask, build
from tfllm.models.lora_merging import merged


@overload
def for_serving(
    model: TextTask, base: str | os.PathLike, *, precision: str | None = ..., **options: Any
) -> Path: ...
@overload
def for_serving(
    model: TextTask, base: str | os.PathLike, *, precision: Sequence[str], **options: Any
) -> list[Path]: ...
def for_serving(
    model: TextTask,
    base: str | os.PathLike,
    *,
    precision: str | Sequence[str] | None = None,
    keep: Sequence[str] = (),
    source: str = "",
    check_python: str | None = None,
    warm_up: Sequence[str] | None = None,
    **options: Any,
) -> Path | list[Path]:
    """Writes a model as the next version under `base`, checked against the live model.

    The version appears by a rename, after it answered in a fresh process (v1 Session loader,
    nothing but TensorFlow and TensorFlow Text) as the live model does. A failed check leaves
    nothing behind.

    Args:
        model: A task of `tfllm.models` with a preprocessor.
        base: The folder that a server watches, such as models/gpt.
        precision: Of the matrices: "float32", "bfloat16", or "int8" with a scale per column; None
            means as the model computes. Not every machine has what bfloat16 and int8 need (see
            `inspect_export`); elsewhere the export does not load. Of several, as ("float32",
            "int8"), each becomes a version, in that order, when all are checked.
        keep: Patterns for the paths of layers that stay in float32, such as "*/outer".
        source: What the model was loaded from, for `assets.extra/tfllm.json`.
        check_python: The interpreter that checks, such as one with another TensorFlow; None means
            this one.
        warm_up: Signatures that a server calls before it answers; None means all. The others take
            their memory, and the time to pack matrices, with their first request.
        **options: Of the task: `beams` and `prompt_lookup` of a `TextGenerator`.

    Returns:
        The version folder; a list of them if `precision` is one.

    Raises:
        UserError: the model cannot be exported, this machine cannot run the export, or `base` is
            no folder for versions.
        CheckFailed: the export answers differently from the live model.
    """
    if not isinstance(model, TextTask) or model.preprocessor is None:
        raise UserError(
            "for_serving takes a model of tfllm.models with its preprocessor (as `from_preset` "
            f"returns it), got {type(model).__name__}."
        )
    precisions: list[str | None]
    if is_one := precision is None or isinstance(precision, str):
        precisions = [precision]
    else:
        precisions = list(precision)
    if not precisions:
        raise UserError("precision is an empty list: name at least one.")
    # Beside a rounded export, float32 has nothing to keep.
    alone = len(precisions) == 1
    named = [(each, keep if alone or each != "float32" else ()) for each in precisions]
    for each, kept in named:
        require_servable(model, each, kept)

    def writes():
        for each, kept in named:
            with served_in(model, each, kept) as served:
                text = _text(model, options)
                _require_signatures(text, warm_up)
                trial = Trial(served.kinds)
                trial.run()
                yield functools.partial(
                    _write,
                    text=text,
                    served=served,
                    trial=trial,
                    source=source,
                    python=check_python,
                    warm_up=warm_up,
                )

    # LoRA is part of the kernels in an export.
    with merged(model), contextlib.closing(writes()) as closed:
        versions = publish(Path(base), closed)
    return versions[0] if is_one else versions


def _text(model: TextTask, options: dict[str, Any]) -> TextFunctions:
    try:
        return model.text(**options)
    except TypeError as error:
        if not options:
            raise
        raise UserError(
            f"A {type(model).__name__} cannot be exported with {', '.join(options)}: {error}"
        ) from error


def _require_signatures(text: TextFunctions, names: Sequence[str] | None) -> None:
    if unknown := sorted(set(names or ()) - set(text.signatures)):
        raise UserError(
            f"warm_up: there is no signature {', '.join(unknown)}; expected some of "
            f"{', '.join(text.signatures)}."
        )


def _write(
    folder: Path,
    *,
    text: TextFunctions,
    served: Served,
    trial: Trial,
    source: str,
    python: str | None,
    warm_up: Sequence[str] | None,
) -> None:
    functions = build(text)
    # The graph holds on to the weights, not to the optimizer's state.
    module = tf.Module()
    module.weights = served.variables + trial.variables
    if served.kinds:
        module.trial = trial
    requests = text.requests()
    # A server computes no gradients.
    without = tf.saved_model.SaveOptions(experimental_custom_gradients=False)
    tf.saved_model.save(module, str(folder), signatures=functions, options=without)
    _finish_graph(folder / "saved_model.pb", text)
    replayed = [
        (name, _tensors(text, name, inputs))
        for name, inputs in requests
        if warm_up is None or name in warm_up
    ]
    write_warmup(folder, replayed)
    _write_metadata(folder, text, served, source)
    with ThreadPoolExecutor(1) as beside:  # two cores halve the time
        answers = beside.submit(run_in_fresh_process, folder, requests, python)
        live = [_answer(text, functions, name, inputs) for name, inputs in requests]
        compare(requests, live, answers.result())


def _finish_graph(path: Path, text: TextFunctions) -> None:
    """Says which call each signature answers; TensorFlow writes Predict into all of them."""
    saved_model = saved_model_pb2.SavedModel.FromString(path.read_bytes())
    (meta_graph,) = saved_model.meta_graphs
    for name, signature in text.signatures.items():
        meta_graph.signature_def[name].method_name = signature.method
    make_lean(meta_graph)
    path.write_bytes(saved_model.SerializeToString(deterministic=True))


def _tensors(text: TextFunctions, signature_name: str, inputs: dict) -> dict[str, tf.Tensor]:
    """Every input of the signature, given or its default, at the number of rows of the first.

    A server that batches refuses inputs of unequal rows, and a warm-up record that fails stops the
    load.
    """
    fields = text.signatures[signature_name].inputs
    num_rows = len(inputs[fields[0].name])

    def column(field):
        values = inputs.get(field.name, [field.default])
        return values if len(values) == num_rows else values * num_rows

    return {field.name: tf.constant(column(field), field.dtype) for field in fields}


def _answer(text: TextFunctions, functions, signature_name: str, inputs: dict) -> dict[str, list]:
    """What the live model says."""
    function = functions[signature_name].get_concrete_function()
    outputs = function(**_tensors(text, signature_name, inputs))
    return {name: rows.plain(tensor.numpy().tolist()) for name, tensor in outputs.items()}


def _write_metadata(folder: Path, text: TextFunctions, served: Served, source: str) -> None:
    model, tokenizer = text.model, text.tokenizer
    metadata = {
        "task": text.task,
        "model": type(model).__name__,
        "vocabulary_size": tokenizer.vocabulary_size(),
        "tokenizer": type(tokenizer).__name__,
        "precision": served.precision,
        "internal_ops": served.internal_ops,
        "source": source,
        "tfllm": __version__,
        "tensorflow": tf.__version__,
        **text.metadata(),
    }
    path = folder / contract.METADATA_FILE
    path.parent.mkdir(exist_ok=True)
    path.write_text(json.dumps(metadata, indent=2) + "\n", encoding="utf-8")
