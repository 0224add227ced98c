"""From a live model to the next version of a served one."""

import json
import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import tensorflow as tf
from tensorflow.core.protobuf import saved_model_pb2

from tfllm import contract, rows
from tfllm._version import __version__
from tfllm.errors import UserError
from tfllm.export.check import compare, run_in_fresh_process
from tfllm.export.precision import Served, served_in
from tfllm.export.versions import publish
from tfllm.export.warmup import write_warmup
from tfllm.models import TextFunctions, TextTask, build
from tfllm.models.lora_merging import merged


def for_serving(
    model: TextTask,
    base: str | os.PathLike,
    *,
    precision: str | None = None,
    keep: Sequence[str] = (),
    source: str = "",
    check_python: str | None = None,
    **options: Any,
) -> Path:
    """Writes a model as the next version under `base`, checked against the live model.

    The version appears by a rename, after it answered in a fresh process (v1 Session loader,
    nothing but TensorFlow and TensorFlow Text) as the live model does. A failed check leaves
    nothing behind.

    Args:
        model: A task of `tfllm.models` with a preprocessor.
        base: The folder that a server watches, such as models/gpt.
        precision: Of the matrices: "float32", "bfloat16", or "int8" with a scale per column; None
            means as the model computes. bfloat16 and int8 need a TensorFlow with oneDNN, as
            every release for x86-64 is.
        keep: Patterns for the paths of layers that stay in float32, such as "*/outer".
        source: What the model was loaded from, for `assets.extra/tfllm.json`.
        check_python: The interpreter that checks, such as one with another TensorFlow; None means
            this one.
        **options: Of the task: `beams` and `prompt_lookup` of a `TextGenerator`.

    Returns:
        The version folder.

    Raises:
        UserError: the model cannot be exported, or `base` is no folder for versions.
        CheckFailed: the export answers differently from the live model.
    """
    if not isinstance(model, TextTask) or model.preprocessor is None:
        raise UserError(
            "for_serving takes a model of tfllm.models with its preprocessor (as `from_preset` "
            f"returns it), got {type(model).__name__}."
        )
    # LoRA is part of the kernels in an export.
    with merged(model), served_in(model, precision, keep) as served:
        return _write(model, Path(base), served, source, check_python, options)


def _write(model, base, served: Served, source, check_python, options):
    try:
        text = model.text(**options)
    except TypeError as error:
        if not options:
            raise
        raise UserError(
            f"A {type(model).__name__} cannot be exported with {', '.join(options)}: {error}"
        ) from error
    functions = build(text)
    # The graph holds on to the weights, not to the optimizer's state.
    module = tf.Module()
    module.weights = served.variables
    requests = text.requests()

    def write(folder: Path) -> None:
        tf.saved_model.save(module, str(folder), signatures=functions)
        _name_methods(folder / "saved_model.pb", text)
        write_warmup(folder, [(name, _tensors(text, name, inputs)) for name, inputs in requests])
        _write_metadata(folder, text, served, source)
        with ThreadPoolExecutor(1) as beside:  # two cores halve the time
            answers = beside.submit(run_in_fresh_process, folder, requests, check_python)
            live = [_answer(text, functions, name, inputs) for name, inputs in requests]
            compare(requests, live, answers.result())

    return publish(base, write)


def _name_methods(path: Path, text: TextFunctions) -> None:
    """Says which call each signature answers; TensorFlow writes Predict into all of them."""
    saved_model = saved_model_pb2.SavedModel.FromString(path.read_bytes())
    for name, signature in text.signatures.items():
        saved_model.meta_graphs[0].signature_def[name].method_name = signature.method
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
    outputs = functions[signature_name](**_tensors(text, signature_name, inputs))
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
