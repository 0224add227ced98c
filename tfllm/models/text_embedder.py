"""A model that turns a text into a vector, near to those of similar texts."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import keras
import keras_hub
import tensorflow as tf
from keras import ops

from tfllm import contract
from tfllm.calls import EmbedderCalls
from tfllm.errors import UserError
from tfllm.layers import Linear, activation_of
from tfllm.models.distributed_fit import place_of_rows, summed_over_replicas
from tfllm.models.encoder_task import EncoderTask, EncoderText, one_per_row
from tfllm.models.microbatches import num_rows
from tfllm.models.pooling import POOLINGS, Pooling
from tfllm.models.task import require_no_smoothing

_EPSILON = 1e-12
_BELONGS = "belongs"  # the targets of pairs that have no similarity


class Projection(NamedTuple):
    """A dense layer behind the pooling.

    Attributes:
        units: Width of its output.
        activation: Name of it.
        use_bias: Whether it adds a bias.
    """

    units: int
    activation: str = "tanh"
    use_bias: bool = True


@keras.saving.register_keras_serializable("tfllm")
class TextEmbedder(EncoderTask, EmbedderCalls, keras_hub.models.TextEmbedder):
    """Turns a text into a vector of unit length.

    Trains with plain `compile` and `fit`, on a dataset of ((text, other text), similarity). With
    `loss="auto"` the loss is the mean over the global batch of the squared difference between the
    cosine of the two vectors and the similarity, float[b] in [-1, 1].

    A dataset of ((text, text that belongs to it),) trains by contrast: each text shall find its
    other one among those of the whole global batch (with `microbatches`, of its part of it) that
    have a weight. The loss is the cross-entropy of the cosines, divided by `temperature`.

    Args:
        backbone: A `BertBackbone` or `LSTMEncoderBackbone`.
        preprocessor: An `EncoderPreprocessor`; None when only token ids are used.
        pooling: "mean", "cls" or "max", see `Pooling`.
        projections: `Projection`s behind it, or sequences of their fields.
        temperature: Of the contrast.
        seed: Of dropout.

    Call arguments:
        inputs: The backbone's inputs, a dict of int32[b, t].

    Returns:
        float32[b, d], of unit length.

    Raises:
        UserError: there is no such pooling, or the temperature is not above 0; in training by
            contrast, there are several replicas and `microbatches`.

    Source:
        Reimers and Gurevych 2019, https://arxiv.org/abs/1908.10084; `sentence-transformers`.
    """

    def __init__(
        self,
        backbone,
        preprocessor=None,
        pooling="mean",
        projections: Sequence[Any] = (),
        temperature=0.05,
        seed=0,
        **kwargs,
    ):
        if pooling not in POOLINGS:
            raise UserError(f"pooling must be one of {', '.join(POOLINGS)}, got {pooling!r}.")
        if temperature <= 0:
            raise UserError(f"temperature must be above 0, got {temperature}.")
        self._set_up(backbone, preprocessor, seed)
        self.pooling = pooling
        self.temperature = temperature
        self.projections = [Projection(*projection) for projection in projections]
        self.projection_layers = [
            Linear(
                projection.units,
                activation=activation_of(projection.activation),
                use_bias=projection.use_bias,
                dtype=backbone.dtype_policy,
                name=f"projection_{i}",
            )
            for i, projection in enumerate(self.projections)
        ]
        inputs = backbone.input
        hidden = backbone(inputs)["sequence_output"]
        x = Pooling(pooling, name="pooling")(hidden, inputs["padding_mask"])
        for layer in self.projection_layers:
            x = layer(x)
        x = ops.cast(x, "float32")
        length = ops.sqrt(ops.sum(ops.square(x), -1, keepdims=True))
        super().__init__(inputs=inputs, outputs=x / ops.maximum(length, _EPSILON), **kwargs)

    @tf.autograph.experimental.do_not_convert
    def preprocess_samples(self, x, y=None, sample_weight=None):
        if isinstance(x, tuple):  # a row after the other, so that a replica gets whole pairs
            x = tf.reshape(tf.stack([tf.convert_to_tensor(texts) for texts in x], 1), [-1])
            if y is None:
                # Rows without weight, which fill a batch up, are nobody's wrong answer.
                pairs = tf.shape(x)[:1] // 2
                y = {_BELONGS: tf.sign(one_per_row(tf.zeros(pairs), sample_weight))}
        return super().preprocess_samples(x, y, sample_weight)

    def target_weights(self, y, weight):
        return one_per_row(y[_BELONGS] if isinstance(y, dict) else y, weight)

    def target_losses(self, y, outputs, label_smoothing=0.0):
        pairs = tf.reshape(outputs, [-1, 2, outputs.shape[-1]])
        first, second = pairs[:, 0], pairs[:, 1]
        if isinstance(y, dict):
            self._require_one_loop()
            others, begin = _of_all_replicas(second)
            cosines = tf.matmul(first, others, transpose_b=True) / self.temperature
            there, _ = _of_all_replicas(y[_BELONGS][:, None])
            own = begin + tf.range(tf.shape(first)[0])
            candidate = (there[:, 0] > 0) | tf.one_hot(own, tf.shape(others)[0], True, False)
            # e^30 times less than the least cosine is nothing, and label smoothing bears it.
            cosines = tf.where(candidate, cosines, -1 / self.temperature - 30)
            return super().target_losses(own, cosines, label_smoothing)
        require_no_smoothing(label_smoothing, "The cosine of a pair")
        cosine = tf.reduce_sum(first * second, -1)
        return tf.square(cosine - tf.reshape(tf.cast(y, cosine.dtype), [-1]))

    def _require_one_loop(self):
        # Replicas cannot wait for each other inside of the loop over the parts.
        if self.microbatches > 1 and tf.distribute.get_strategy().num_replicas_in_sync > 1:
            raise UserError(
                "Texts that are contrasted with those of all replicas cannot be computed in "
                f"parts: microbatches must be 1, or the replicas one; got {self.microbatches}."
            )

    def text(self, **options):
        return EmbedderText(self, self._tokenizer(), **options)

    def get_config(self):
        return {
            **super().get_config(),
            "pooling": self.pooling,
            "temperature": self.temperature,
            "projections": [list(projection) for projection in self.projections],
        }


def _of_all_replicas(x):
    """float32[n, d], the rows of all replicas; and int32, where this one's begin."""
    rows = num_rows(x)
    begin, total = place_of_rows(rows)
    # A sum of rows in their places and zeros: its gradient is right under every strategy.
    return summed_over_replicas(tf.pad(x, [[begin, total - begin - rows], [0, 0]])), begin


class EmbedderText(EncoderText):
    """The signatures of `contract.EMBEDDER_SIGNATURES`."""

    task = "text_embedder"
    signatures = contract.EMBEDDER_SIGNATURES

    def embed(self, text):
        """See `contract.SIGNATURES`."""
        inputs, error = self.read(text)
        embedding = self.model_output(inputs)
        return {
            "embedding": tf.where((error == "")[:, None], embedding, 0.0),
            "error": error,
        }

    def metadata(self):
        return {**super().metadata(), "pooling": self.model.pooling}
