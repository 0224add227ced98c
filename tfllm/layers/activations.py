"""Activations by name: those of Keras, and one that it has not by name."""

from collections.abc import Callable

import keras


@keras.saving.register_keras_serializable("tfllm")
def gelu_tanh(x):
    """The tanh form of GELU, which GPT-2 and T5 1.1 were trained with.

    Source:
        Hendrycks and Gimpel 2016, section 2, https://arxiv.org/abs/1606.08415
    """
    return keras.ops.gelu(x, approximate=True)


def activation_of(name: str) -> Callable:
    """The function called "gelu_tanh", or what Keras has under the name ("gelu" is the exact one).

    Raises:
        ValueError: there is none.
    """
    return gelu_tanh if name == "gelu_tanh" else keras.activations.get(name)
