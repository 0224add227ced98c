"""A dense layer that multiplies one flat matrix."""

import keras
import tensorflow as tf
from keras import ops

from tfllm.layers.clusters import add_bias
from tfllm.layers.served_matrix import Make, ServedMatrix


@keras.saving.register_keras_serializable("tfllm")
class Linear(keras.layers.Dense):
    """`keras.layers.Dense`, with all leading dimensions folded into one.

    TensorFlow multiplies `[b, t, m] @ [m, n]` as a batch of b products and sums b gradients of the
    kernel; `[b * t, m] @ [m, n]` is one product each way. What Dense knows (LoRA, mixed precision,
    serialization) stays.

    Args:
        units: n, the width of the output.
        **kwargs: Of `keras.layers.Dense`.

    Call arguments:
        inputs: float[..., m].

    Returns:
        float[..., n].
    """

    served: ServedMatrix | None = None

    def serve(self, make: Make):
        """Multiplies by a `ServedMatrix` from now on."""
        self.served = make([self._kernel], bias=[self.bias] if self.use_bias else None)
        return ()

    def call(self, inputs, training=None):
        if len(inputs.shape) == 2:
            return self._multiply(inputs, training)
        flat = ops.reshape(inputs, (-1, inputs.shape[-1]))
        y = self._multiply(flat, training)
        return ops.reshape(y, (*ops.shape(inputs)[:-1], self.units))

    def _multiply(self, x, training):
        if self.served is None and training and self.use_bias:
            return self.activation(add_bias(ops.matmul(x, self.kernel), self.bias))
        if self.served is None:
            return super().call(x, training=training)
        y = self.served(tf.cast(x, tf.float32))
        return self.activation(tf.cast(y, self.compute_dtype))
