"""What stands between an encoder and the tokens that it guesses, and how good the guesses are."""

import keras
import tensorflow as tf

from tfllm.layers import LayerNormalization, Linear, activation_of
from tfllm.models.bert import bert_initializer


@keras.saving.register_keras_serializable("tfllm")
class MaskedLMHead(keras.layers.Layer):
    """What stands between the hidden states and the scoring against the embeddings.

    Args:
        activation: As of the backbone.
        layer_norm_epsilon: Added to the variance.

    Call arguments:
        hidden: float[b, t, m].
        positions: int32[b, p], the places that are guessed.

    Returns:
        float[b, p, m].
    """

    def __init__(self, activation="gelu", layer_norm_epsilon=1e-12, **kwargs):
        super().__init__(**kwargs)
        self.activation = activation
        self.layer_norm_epsilon = layer_norm_epsilon

    def build(self, hidden_shape, positions_shape=None):  # noqa: ARG002
        self.dense = Linear(
            hidden_shape[-1],
            activation=activation_of(self.activation),
            kernel_initializer=bert_initializer(),
            dtype=self.dtype_policy,
            name="dense",
        )
        self.norm = LayerNormalization(
            epsilon=self.layer_norm_epsilon, dtype=self.dtype_policy, name="norm"
        )
        self.dense.build(hidden_shape)
        self.norm.build(hidden_shape)
        self.built = True

    def call(self, hidden, positions):
        return self.norm(self.dense(tf.gather(hidden, positions, batch_dims=1)))

    def get_config(self):
        return {
            **super().get_config(),
            "activation": self.activation,
            "layer_norm_epsilon": self.layer_norm_epsilon,
        }


@keras.saving.register_keras_serializable("tfllm")
class OutputBias(keras.layers.Layer):
    """A number for each token, added to its logits float32[..., v]."""

    def __init__(self, **kwargs):
        super().__init__(autocast=False, **kwargs)  # Keras would round the logits

    def build(self, shape):
        self.bias = self.add_weight(name="bias", shape=shape[-1:], initializer="zeros")
        self.built = True

    def call(self, logits):
        return logits + tf.cast(self.bias, logits.dtype)


@keras.saving.register_keras_serializable("tfllm")
class Perplexity(keras.metrics.Mean):
    """e to the weighted mean of cross-entropies in nats."""

    def result(self):
        return tf.exp(super().result())
