"""Strings in, tensors out: the signatures of a task, for a live model and for its export alike."""

import functools
import inspect
from collections.abc import Callable, Mapping
from typing import Any

import tensorflow as tf

from tfllm import contract

Request = tuple[str, dict[str, Any]]  # signature name, inputs by name


class TextFunctions:
    """Base of the signatures of one task, as functions of tensors.

    A subclass has a method for each name in `signatures` but `serving_default`; its arguments are
    the signature's inputs in their order, and it returns the outputs by name. No row raises, and
    none depends on another.

    Args:
        model: A task of `tfllm.models`.
        tokenizer: Of `tfllm.tokenizers`.

    Attributes:
        task: What `tfllm.json` calls it.
        signatures: Its table, a part of the contract.
    """

    task = ""
    signatures: Mapping[str, contract.Signature] = {}

    def __init__(self, model, tokenizer):
        self.model = model
        self.tokenizer = tokenizer

    def function(self, signature_name: str) -> Callable:
        """What answers a signature."""
        return getattr(self, signature_name)

    def serving_default(self, functions: Mapping[str, Callable], *required):
        """What a request without a signature's name gets.

        Args:
            functions: The task's functions by signature.
            *required: The inputs.

        Returns:
            The outputs by name.
        """
        names = [name for name in self.signatures if name != contract.SERVING_DEFAULT]
        return functions[names[0]](*required)

    def tokenize(self, text):
        """See `contract.SIGNATURES`."""
        ids = tf.cast(self.tokenizer.tokenize(text), tf.int32)
        return {
            "token_ids": ids.to_tensor(contract.PADDING),
            "num_tokens": tf.cast(ids.row_lengths(), tf.int32),
        }

    def detokenize(self, token_ids):
        """See `contract.SIGNATURES`."""
        return {"text": self.tokenizer.detokenize(token_ids)}

    def requests(self) -> list[Request]:
        """What the check of an export asks and a server warms up with: every signature."""
        some = self.some_text()
        return [
            (contract.TOKENIZE, {"text": ["", some]}),
            (contract.DETOKENIZE, {"token_ids": [[*self.tokenizer.encode(some)[:3], -1]]}),
        ]

    def some_text(self, num_tokens: int = 12) -> str:
        """Text of the model's own vocabulary, so that it exists in any language."""
        size = self.tokenizer.vocabulary_size()
        return self.tokenizer.decode(list(range(size // 2, size))[:num_tokens])

    def metadata(self) -> dict[str, Any]:
        """What `tfllm.json` says beside what every export has."""
        return {}


def build(text: TextFunctions) -> dict[str, Callable]:
    """One `tf.function` per signature, whose optional inputs have defaults, for any rows."""
    functions: dict[str, Callable] = {
        name: _as_function(text.function(name), signature)
        for name, signature in text.signatures.items()
        if name != contract.SERVING_DEFAULT
    }

    def default(*required):
        return text.serving_default(functions, *required)

    signature = text.signatures[contract.SERVING_DEFAULT]
    return {contract.SERVING_DEFAULT: _as_function(default, signature)} | functions


def with_defaults(
    signatures: Mapping[str, contract.Signature], defaults: Mapping[str, Any]
) -> dict[str, contract.Signature]:
    """A table in which inputs of those names that may be left out have those defaults."""

    def changed(field: contract.Field) -> contract.Field:
        if field.default is None or field.name not in defaults:
            return field
        return field._replace(default=defaults[field.name])

    return {
        name: signature._replace(inputs=tuple(map(changed, signature.inputs)))
        for name, signature in signatures.items()
    }


def _as_function(function: Callable, signature: contract.Signature):
    @functools.cache
    def traced():
        with tf.init_scope():
            made = tf.function(function, input_signature=specs, autograph=False)
            return made.get_concrete_function()

    # Saving a function traces it anew, and so does the first call; what is inside is traced once.
    def named(*inputs):
        return traced()(*inputs)

    # What tf.function and the exporter read.
    named.__signature__ = _parameters(signature)  # type: ignore[attr-defined]
    specs = [
        tf.TensorSpec([None, *field.shape], field.dtype, name=field.name)
        for field in signature.inputs
    ]
    return tf.function(named, input_signature=specs, autograph=False)


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


def first_error(checks) -> tf.Tensor:
    """What is wrong with each row.

    Args:
        checks: Pairs of bool[b] and a message, a str or string[b].

    Returns:
        string[b], the message of the first check that is true in a row, or "".
    """
    error = tf.fill(tf.shape(checks[0][0]), "")
    for wrong, message in reversed(checks):
        error = tf.where(wrong, message, error)
    return error


def per_row(x, like) -> tf.Tensor:
    """A parameter of one row or of all, for each row of `like`."""
    shape = tf.concat([tf.shape(like)[:1], tf.shape(x)[1:]], 0)
    return tf.broadcast_to(x, shape)
