"""The signatures of an export, as `tf.function`s whose optional inputs have gRPC defaults."""

import inspect
from collections.abc import Callable

import tensorflow as tf

from tfllm import contract
from tfllm.models.text_generator import TextGenerator, input_specs


def _parameters(signature: contract.Signature) -> inspect.Signature:
    # A default becomes a default of the signature only as a tensor, and its shape [1] is
    # broadcast to the rows in the graph.
    kind = inspect.Parameter.POSITIONAL_OR_KEYWORD
    return inspect.Signature(
        [
            inspect.Parameter(field.name, kind)
            if field.default is None
            else inspect.Parameter(
                field.name, kind, default=tf.constant([field.default], field.dtype)
            )
            for field in signature.inputs
        ]
    )


def _as_function(function: Callable, signature: contract.Signature):
    def named(*inputs):
        return function(*inputs)

    # What tf.function and the exporter read.
    named.__signature__ = _parameters(signature)  # type: ignore[attr-defined]
    return tf.function(named, input_signature=input_specs(signature), autograph=False)


def generator_signatures(text: TextGenerator) -> dict[str, Callable]:
    """The signatures of a text generator.

    Args:
        text: The functions of the model.

    Returns:
        One `tf.function` per name of `contract.GENERATOR_SIGNATURES`.
    """
    generate = _as_function(text.generate, contract.GENERATOR_SIGNATURES[contract.GENERATE])
    functions: dict[str, Callable] = {
        contract.SERVING_DEFAULT: lambda prompt: generate(prompt),
        contract.SCORE: text.score,
        contract.TOKENIZE: text.tokenize,
        contract.DETOKENIZE: text.detokenize,
    }
    return {contract.GENERATE: generate} | {
        name: _as_function(function, contract.GENERATOR_SIGNATURES[name])
        for name, function in functions.items()
    }
