"""The hidden states of a row as one vector."""

import keras
from keras import ops


def _masked_mean(hidden, present):
    present = ops.cast(present, "float32")[..., None]
    return ops.sum(hidden * present, 1) / ops.maximum(ops.sum(present, 1), 1e-9)


def _masked_max(hidden, present):
    return ops.max(ops.where(ops.cast(present, "bool")[..., None], hidden, -1e9), 1)


POOLINGS = {
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
        return POOLINGS[self.mode](ops.cast(hidden, "float32"), present)

    def get_config(self):
        return {**super().get_config(), "mode": self.mode}
