"""How well a model predicts the validation split of prepared data."""

import math
from typing import NamedTuple

import keras

from tfllm.data import Records


class Validation(NamedTuple):
    """What a model reaches on the validation split.

    Attributes:
        loss: Mean cross-entropy per target, in nats.
        perplexity: e to the loss, per target.
        bits_per_byte: The cross-entropy per byte of the documents, in bits; unlike the loss it can
            be compared between tokenizers, and with a compressor.
    """

    loss: float
    perplexity: float
    bits_per_byte: float


def validate(
    model: keras.Model, records: Records, batch_size: int, max_batches: int = 0
) -> Validation:
    """Evaluates a compiled model on the rows of the split, in order.

    Args:
        model: A causal language model.
        records: The prepared data.
        batch_size: Rows per batch, over all replicas together.
        max_batches: The most batches; 0 = the whole split.
    """
    batches = records.batches("validation", batch_size, shuffle=False)
    if max_batches:
        batches = batches.take(max_batches)
    loss = model.evaluate(batches, verbose=0, return_dict=True)["loss"]
    return describe(loss, records, "validation")


def describe(loss: float, records: Records, split: str) -> Validation:
    """A loss in nats per target of the split, as perplexity and bits per byte too."""
    # Above 700 e^loss is no float, and the run is lost anyway.
    perplexity = math.exp(loss) if loss < 700 else math.inf
    targets_per_byte = records.num_targets(split) / records.num_bytes(split)
    return Validation(loss, perplexity, loss / math.log(2) * targets_per_byte)
