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
from tfllm.models.encoder_task import EncoderTask, EncoderText

_EPSILON = 1e-12


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


def _masked_mean(hidden, present):
    present = ops.cast(present, "float32")[..., None]
    return ops.sum(hidden * present, 1) / ops.maximum(ops.sum(present, 1), 1e-9)


def _masked_max(hidden, present):
    return ops.max(ops.where(ops.cast(present, "bool")[..., None], hidden, -1e9), 1)


_POOLINGS = {
    "mean": _masked_mean,
    "cls": lambda hidden, present: hidden[:, 0],  # noqa: ARG005
    "max": _masked_max,
}


@keras.saving.register_keras_serializable("tfllm")
class Pooling(keras.layers.Layer):
    """The hidden states of a row as one vector.

    Args:
        mode: "mean" of the tokens, "max" of them in each dimension, or "cls", the first.

    Call arguments:
        hidden: float[b, t, m].
        present: int32[b, t], 0 for padding.

    Returns:
        float32[b, m].

    Source:
        Reimers and Gurevych 2019, section 3, https://arxiv.org/abs/1908.10084
    """

    def __init__(self, mode, **kwargs):
        super().__init__(**kwargs)
        self.mode = mode

    def call(self, hidden, present):
        return _POOLINGS[self.mode](ops.cast(hidden, "float32"), present)

    def get_config(self):
        return {**super().get_config(), "mode": self.mode}


@keras.saving.register_keras_serializable("tfllm")
class TextEmbedder(EncoderTask, EmbedderCalls, keras_hub.models.TextEmbedder):
    """Turns a text into a vector of unit length.

    Trains with plain `compile` and `fit`, on a dataset of ((text, other text), similarity). With
    `loss="auto"` the loss is the mean over the global batch of the squared difference between the
    cosine of the two vectors and the similarity, float[b] in [-1, 1].

    Args:
        backbone: A `BertBackbone`.
        preprocessor: An `EncoderPreprocessor`; None when only token ids are used.
        pooling: "mean", "cls" or "max", see `Pooling`.
        projections: `Projection`s behind it, or sequences of their fields.
        seed: Of dropout.

    Call arguments:
        inputs: The backbone's inputs, a dict of int32[b, t].

    Returns:
        float32[b, d], of unit length.

    Raises:
        UserError: there is no such pooling.

    Source:
        Reimers and Gurevych 2019, https://arxiv.org/abs/1908.10084; `sentence-transformers`.
    """

    def __init__(
        self,
        backbone,
        preprocessor=None,
        pooling="mean",
        projections: Sequence[Any] = (),
        seed=0,
        **kwargs,
    ):
        if pooling not in _POOLINGS:
            raise UserError(f"pooling must be one of {', '.join(_POOLINGS)}, got {pooling!r}.")
        self._set_up(backbone, preprocessor, seed)
        self.pooling = pooling
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
        return super().preprocess_samples(x, y, sample_weight)

    def target_losses(self, y, outputs):
        pairs = tf.reshape(outputs, [-1, 2, outputs.shape[-1]])
        cosine = tf.reduce_sum(pairs[:, 0] * pairs[:, 1], -1)
        return tf.square(cosine - tf.reshape(tf.cast(y, cosine.dtype), [-1]))

    def text(self, **options):
        return EmbedderText(self, self._tokenizer(), **options)

    def get_config(self):
        return {
            **super().get_config(),
            "pooling": self.pooling,
            "projections": [list(projection) for projection in self.projections],
        }


class EmbedderText(EncoderText):
    """The signatures of `contract.EMBEDDER_SIGNATURES`."""

    task = "text_embedder"
    signatures = contract.EMBEDDER_SIGNATURES

    def embed(self, text):
        """See `contract.SIGNATURES`."""
        inputs, error = self.read(text)
        embedding = self.model(inputs, training=False)
        return {
            "embedding": tf.where((error == "")[:, None], embedding, 0.0),
            "error": error,
        }

    def metadata(self):
        return {**super().metadata(), "pooling": self.model.pooling}
