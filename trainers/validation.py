"""How well a model does on the validation split of prepared data."""

import math
from typing import NamedTuple

import keras
import tensorflow as tf

from tfllm.data import Records
from tfllm.data.objectives import Objective
from tfllm.trainers.feed import Feed

# The tasks whose loss is in nats per token; their perplexity says how many tokens are as likely.
_OF_TOKENS = ("causal_lm", "completion", "chat", "seq2seq_lm", "denoising")


class Validation(NamedTuple):
    """Measures a model by the loss of its training, and by what that comes to.

    Attributes:
        records: The prepared data.
        objective: Of the training; what it draws is drawn alike each time.
        batch_size: Rows per batch, over all replicas together.
        feed: Where the batches come from; None = they have `batch_size` rows, in order.
    """

    records: Records
    objective: Objective
    batch_size: int
    feed: Feed | None = None

    def measure(self, model: keras.Model, max_batches: int = 0) -> dict[str, float]:
        """Evaluates a compiled model on the rows of the split, in the same order each time.

        Args:
            model: The model.
            max_batches: The most batches; 0 = the whole split.

        Returns:
            The `loss` and the model's metrics, with what `describe` adds.
        """
        batches = self.batches()
        if max_batches:
            batches = batches.take(max_batches)
        found = model.evaluate(batches, verbose=0, return_dict=True)
        return self.describe({name: float(value) for name, value in found.items()}, "validation")

    def batches(self) -> tf.data.Dataset:
        """One pass over the split."""
        if self.feed is not None:
            return self.feed.validation()
        return self.records.batches("validation", self.batch_size, self.objective, shuffle=False)

    def describe(self, found: dict[str, float], split: str) -> dict[str, float]:
        """Adds what a loss in nats comes to.

        Args:
            found: With `loss`.
            split: Of which split it is.

        Returns:
            For tasks of tokens also `perplexity`, e to the loss; for causal_lm `bits_per_byte`, the
            cross-entropy per byte of the documents, in bits: unlike the loss it can be compared
            between tokenizers, and with a compressor.
        """
        loss, more = found["loss"], {}
        if self.records.task in _OF_TOKENS:
            # Above 700 e^loss is no float, and the run is lost anyway.
            more["perplexity"] = math.exp(loss) if loss < 700 else math.inf
        if self.records.task == "causal_lm":
            targets_per_byte = self.records.num_targets(split) / self.records.num_bytes(split)
            more["bits_per_byte"] = loss / math.log(2) * targets_per_byte
        return {"loss": loss, **more, **found}
