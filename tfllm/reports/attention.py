"""The attention report: where each head of a Transformer looks."""

import io
import os
from typing import Any, NamedTuple

import numpy as np
import tensorflow as tf

from tfllm.errors import UserError
from tfllm.evaluators.report import aligned
from tfllm.models.looking import attention_blocks, attention_of_blocks
from tfllm.reports.report import Report, number

WEIGHTS_FILE = "attention.npz"

_LIMITS = (
    "Why the model answers as it does: other weights can give the same answer (Jain and Wallace "
    "2019, https://arxiv.org/abs/1902.10186).",
    "What is taken from a position: a large weight on a value near zero adds nothing, and behind "
    "the first layer a position holds parts of all others.",
    "What heads do in general: these are the weights of one text.",
)


class Attention(NamedTuple):
    """Where a model looks in one text.

    Attributes:
        tokens: As the model reads them, t of them.
        weights: float32[layers, h, t, t]: row = from, column = to; each row sums to 1.
    """

    tokens: list[str]
    weights: np.ndarray


def attention_weights(model: Any, text: str) -> Attention:
    """The weights of every self-attention: of an encoder–decoder, those of its encoder.

    Args:
        model: A live model of a Transformer, with a preprocessor.
        text: What it reads.

    Raises:
        UserError: the model has no self-attention, no tokenizer, or takes fewer tokens.
    """
    backbone: Any = getattr(model, "backbone", None)
    if not attention_blocks(backbone):
        kind = type(model if backbone is None else backbone).__name__
        raise UserError(f"{kind} has no self-attention to see: give a preset of a Transformer.")
    inputs = _inputs(model, text)
    weights = [of_block[0].numpy() for of_block in attention_of_blocks(backbone, inputs)]
    ids = next(inputs[name] for name in inputs if name.endswith("token_ids"))[0]
    tokenizer = model.preprocessor.tokenizer
    return Attention([tokenizer.id_to_token(int(i)) for i in ids], np.stack(weights))


def _inputs(model: Any, text: str) -> dict[str, tf.Tensor]:
    """One row of the backbone's inputs that its encoder, or it itself, needs; nothing is padded."""
    reader = model.text()
    texts = tf.constant([text])
    names = model.backbone.input
    if "segment_ids" in names and "padding_mask" in names:
        inputs, error = reader.read(texts)
        if error[0] != "":
            raise UserError(f"The model refused the text: {error[0].numpy().decode()}.")
        size = int(tf.reduce_sum(inputs["padding_mask"]))
        return {name: tensor[:, :size] for name, tensor in inputs.items()}
    ids = reader.read(texts).to_tensor()
    most = model.backbone.max_sequence_length
    if ids.shape[1] > most:
        raise UserError(f"The text has {ids.shape[1]} tokens, the model takes {most}.")
    if "encoder_token_ids" in names:
        return {"encoder_token_ids": ids, "encoder_padding_mask": tf.ones_like(ids)}
    return {
        "token_ids": ids,
        "segment_ids": tf.ones_like(ids),
        "positions": tf.range(ids.shape[1])[None],
    }


def attention(
    model: Any, text: str, *, tensorboard: str | os.PathLike | None = None, step: int = 0
) -> Report:
    """What the heads of a Transformer look at in a text, in numbers; the weights are in its file.

    Of each head: the mean entropy of its rows in bits (0 = looks at one place), and the mean
    weight on the first position, on the own one, on the one before and on the one behind.

    Args:
        model: As of `attention_weights`.
        text: What it reads.
        tensorboard: A folder of logs that gets a picture of each layer; or None.
        step: Of the model, in TensorBoard.

    Returns:
        `Report`, with the weights in attention.npz.

    Raises:
        UserError: as `attention_weights`.
    """
    found = attention_weights(model, text)
    if tensorboard is not None:
        from tfllm.evaluators.tensorboard import write_attention  # matplotlib takes a second

        for layer, weights in enumerate(found.weights):
            name = f"attention/layer_{layer}"
            write_attention(tensorboard, found.tokens, weights, name=name, step=step)
    heads = [
        {"layer": layer, "head": head, **looks(weights)}
        for layer, of_layer in enumerate(found.weights)
        for head, weights in enumerate(of_layer)
    ]
    rows = [
        (f"layer {each['layer']} head {each['head']}", *map(number, list(each.values())[2:]))
        for each in heads
    ]
    names = [name.replace("_", " ") for name in list(heads[0])[2:]]
    file = io.BytesIO()
    np.savez_compressed(file, tokens=np.array(found.tokens), weights=found.weights)
    return Report(
        "attention",
        {"text": text, "tokens": found.tokens, "heads": heads},
        _LIMITS,
        aligned([("", *names), *rows]),
        files={WEIGHTS_FILE: file.getvalue()},
    )


def looks(weights: np.ndarray) -> dict[str, float]:
    """Where a head looks, in numbers, of its weights float[t, t]; see `attention`."""
    logs = np.log2(np.where(weights > 0, weights, 1.0))
    beside = {"to_before": -1, "to_behind": 1}
    return {
        "entropy_bits": float(-(weights * logs).sum(-1).mean()),
        "to_first": float(weights[:, 0].mean()),
        "to_itself": float(np.diagonal(weights).mean()),
        **{
            name: float(np.diagonal(weights, place).mean()) if len(weights) > 1 else 0.0
            for name, place in beside.items()
        },
    }
