"""A dense layer that multiplies one flat matrix."""

import keras
from keras import ops


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

    def call(self, inputs, training=None):
        if len(inputs.shape) == 2:
            return super().call(inputs, training=training)
        flat = ops.reshape(inputs, (-1, inputs.shape[-1]))
        y = super().call(flat, training=training)
        return ops.reshape(y, (*ops.shape(inputs)[:-1], self.units))
