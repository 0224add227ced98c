"""From a live model to the next version of a served one."""

import json
import os
from pathlib import Path

import tensorflow as tf

from tfllm import contract, rows
from tfllm._version import __version__
from tfllm.errors import UserError
from tfllm.export.check import Request, compare, run_in_fresh_process
from tfllm.export.signatures import generator_signatures
from tfllm.export.versions import publish
from tfllm.export.warmup import write_warmup
from tfllm.models import CausalLM, TextGenerator


def for_serving(
    model: CausalLM,
    base: str | os.PathLike,
    *,
    source: str = "",
    check_python: str | None = None,
) -> Path:
    """Writes a model as the next version under `base`, checked against the live model.

    The version appears by a rename, after it answered in a fresh process (v1 Session loader,
    nothing but TensorFlow and TensorFlow Text) as the live model does. A failed check leaves
    nothing behind.

    Args:
        model: A task of `tfllm.models` with a preprocessor.
        base: The folder that a server watches, such as models/gpt.
        source: What the model was loaded from, for `assets.extra/tfllm.json`.
        check_python: The interpreter that checks, such as one with another TensorFlow; None means
            this one.

    Returns:
        The version folder.

    Raises:
        UserError: the model cannot be exported, or `base` is no folder for versions.
        CheckFailed: the export answers differently from the live model.
    """
    if not isinstance(model, CausalLM) or model.preprocessor is None:
        raise UserError(
            "for_serving takes a language model of tfllm.models with its preprocessor (as "
            f"`from_preset` returns it), got {type(model).__name__}."
        )
    text = TextGenerator(model, model.preprocessor.tokenizer)
    signatures = generator_signatures(text)
    # The graph holds on to the weights, not to the optimizer's state.
    module = tf.Module()
    module.weights = [variable.value for variable in model.variables]
    requests = _requests(model)

    def write(folder: Path) -> None:
        tf.saved_model.save(module, str(folder), signatures=signatures)
        write_warmup(folder, [(name, _tensors(name, inputs)) for name, inputs in requests])
        _write_metadata(folder, model, source)
        live = [_answer(model, name, inputs) for name, inputs in requests]
        compare(requests, live, run_in_fresh_process(folder, requests, check_python))

    return publish(Path(base), write)


def _requests(model: CausalLM) -> list[Request]:
    """What the check asks and a server warms up with: every signature, ragged rows, a bad row."""
    tokenizer = model.preprocessor.tokenizer
    # Text of the model's own vocabulary, so that short and long prompts exist in any language.
    ids = range(tokenizer.vocabulary_size() // 2, tokenizer.vocabulary_size())
    some = tokenizer.decode(list(ids)[: min(12, model.backbone.max_sequence_length // 4)])
    too_long = some * model.backbone.max_sequence_length
    prompts = ["", some, some[:1]]
    return [
        (contract.SERVING_DEFAULT, {"prompt": [some]}),
        (contract.GENERATE, {"prompt": [*prompts, too_long], "max_new_tokens": [8]}),
        (
            contract.GENERATE,
            {"prompt": prompts, "temperature": [1.0], "seed": [7], "max_new_tokens": [8]},
        ),
        (contract.SCORE, {"prompt": ["", some, too_long], "completion": [some, some[:3], "x"]}),
        (contract.TOKENIZE, {"text": ["", some]}),
        (contract.DETOKENIZE, {"token_ids": [[*tokenizer.encode(some)[:3], contract.PADDING]]}),
    ]


def _tensors(signature_name: str, inputs: dict) -> dict[str, tf.Tensor]:
    """Every input of the signature, given or its default, at the number of rows of the first.

    A server that batches refuses inputs of unequal rows, and a warm-up record that fails stops the
    load.
    """
    fields = contract.GENERATOR_SIGNATURES[signature_name].inputs
    num_rows = len(inputs[fields[0].name])

    def column(field):
        values = inputs.get(field.name, [field.default])
        return values if len(values) == num_rows else values * num_rows

    return {field.name: tf.constant(column(field), field.dtype) for field in fields}


def _answer(model: CausalLM, signature_name: str, inputs: dict) -> dict[str, list]:
    """What the live model says, through the functions that its own methods call."""
    if signature_name == contract.SERVING_DEFAULT:
        signature_name = contract.GENERATE
    function = model.text_functions()[signature_name]
    outputs = function(**_tensors(signature_name, inputs))
    return {name: rows.plain(tensor.numpy().tolist()) for name, tensor in outputs.items()}


def _write_metadata(folder: Path, model: CausalLM, source: str) -> None:
    tokenizer = model.preprocessor.tokenizer
    metadata = {
        "task": "causal_lm",
        "model": type(model).__name__,
        "context_length": model.backbone.max_sequence_length,
        "vocabulary_size": tokenizer.vocabulary_size(),
        "tokenizer": type(tokenizer).__name__,
        "precision": model.backbone.dtype_policy.compute_dtype,
        "source": source,
        "tfllm": __version__,
        "tensorflow": tf.__version__,
    }
    path = folder / contract.METADATA_FILE
    path.parent.mkdir(exist_ok=True)
    path.write_text(json.dumps(metadata, indent=2) + "\n", encoding="utf-8")
