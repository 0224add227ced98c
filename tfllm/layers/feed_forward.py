"""The position-wise feed-forward networks."""

import keras

from tfllm.layers.dropout import Dropout
from tfllm.layers.fused import activate
from tfllm.layers.linear import Linear


@keras.saving.register_keras_serializable("tfllm")
class FeedForward(keras.layers.Layer):
    """Two dense layers with a non-linearity between them, at each position alone.

    Args:
        intermediate_dim: f, the width between the two.
        activation: Name of a Keras activation, or a serializable function.
        dropout: Fraction of the f units dropped in training, in [0, 1).
        use_bias: Whether the two layers add a bias.
        kernel_initializer: Of the first layer.
        output_initializer: Of the second; None means `kernel_initializer`.

    Call arguments:
        x: float[b, t, m].

    Returns:
        float[b, t, m].

    Source:
        Vaswani et al. 2017, section 3.3, https://arxiv.org/abs/1706.03762
    """

    def __init__(
        self,
        intermediate_dim,
        activation="gelu",
        *,
        dropout=0.0,
        use_bias=True,
        kernel_initializer="glorot_uniform",
        output_initializer=None,
        **kwargs,
    ):
        super().__init__(**kwargs)
        self.intermediate_dim = intermediate_dim
        self.activation = keras.activations.get(activation)
        self.dropout = dropout
        self.use_bias = use_bias
        self.kernel_initializer = keras.initializers.get(kernel_initializer)
        self.output_initializer = keras.initializers.get(output_initializer)

    def build(self, input_shape):
        self.inner = Linear(
            self.intermediate_dim,
            use_bias=self.use_bias,
            kernel_initializer=self.kernel_initializer,
            dtype=self.dtype_policy,
            name="inner",
        )
        self.outer = Linear(
            input_shape[-1],
            use_bias=self.use_bias,
            kernel_initializer=self.output_initializer
            or keras.initializers.get(keras.initializers.serialize(self.kernel_initializer)),
            dtype=self.dtype_policy,
            name="outer",
        )
        self.inner_dropout = Dropout(self.dropout, dtype=self.dtype_policy, name="inner_dropout")
        self.inner.build(input_shape)
        self.outer.build((*input_shape[:-1], self.intermediate_dim))
        self.built = True

    def call(self, x, training=None):
        x = activate(self.inner(x), self.activation)
        return self.outer(self.inner_dropout(x, training=training))

    def get_config(self):
        return {
            **super().get_config(),
            "intermediate_dim": self.intermediate_dim,
            "activation": keras.activations.serialize(self.activation),
            "dropout": self.dropout,
            "use_bias": self.use_bias,
            "kernel_initializer": keras.initializers.serialize(self.kernel_initializer),
            "output_initializer": keras.initializers.serialize(self.output_initializer),
        }


@keras.saving.register_keras_serializable("tfllm")
class GatedFeedForward(FeedForward):
    """A feed-forward network whose f units are each multiplied by an activated gate.

    Args and call arguments as `FeedForward`; the activation is that of the gate.

    Source:
        Shazeer 2020, section 2, https://arxiv.org/abs/2002.05202
    """

    def build(self, input_shape):
        super().build(input_shape)
        self.gate = Linear(
            self.intermediate_dim,
            use_bias=self.use_bias,
            kernel_initializer=keras.initializers.get(
                keras.initializers.serialize(self.kernel_initializer)
            ),
            dtype=self.dtype_policy,
            name="gate",
        )
        self.gate.build(input_shape)

    def call(self, x, training=None):
        x = activate(self.gate(x), self.activation) * self.inner(x)
        return self.outer(self.inner_dropout(x, training=training))
