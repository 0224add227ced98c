"""From a model with LoRA to a plain one with the same answers."""

import contextlib
from collections.abc import Iterator
from typing import Any

import keras


def merge_lora(model) -> int:
    """Adds LoRA's matrices to the kernels that they change; the model is a plain one again.

    What trains stays as it is, so that the kernels are still frozen: load the saved model to train
    all of it.

    Args:
        model: A task, of ours or of KerasHub.

    Returns:
        The number of kernels that were changed.
    """
    return len([_merge(layer) for layer in _with_lora(model)])


@contextlib.contextmanager
def merged(model) -> Iterator[None]:
    """Inside `with`, a model with LoRA is the plain one that `merge_lora` would make of it.

    Behind it, all is as before, to the bit. A model without LoRA is left alone.

    Args:
        model: As of `merge_lora`.
    """
    layers = _with_lora(model)
    before = [_merge(layer) for layer in layers]
    try:
        yield
    finally:
        for layer, kernel in zip(layers, before, strict=True):
            _take_apart(layer, kernel)


def _with_lora(model) -> list[Any]:
    # An adapter of ours is no layer, and has a model of KerasHub.
    layer = model if isinstance(model, keras.layers.Layer) else model.model
    return [inner for inner in layer._flatten_layers() if getattr(inner, "lora_enabled", False)]


def _merge(layer):
    """Returns the kernel as it was.

    In float32: under mixed precision Keras's own sum, and what it saves, is rounded to bfloat16.
    """
    before = layer._kernel.numpy()
    change = layer.lora_kernel_a.numpy() @ layer.lora_kernel_b.numpy()
    layer._kernel.assign(before + layer.lora_alpha / layer.lora_rank * change)
    layer.lora_enabled = False
    for variable in (layer.lora_kernel_a, layer.lora_kernel_b):
        layer._untrack_variable(variable)
    return before


def _take_apart(layer, kernel):
    layer._kernel.assign(kernel)
    layer._tracker.unlock()
    for variable in (layer.lora_kernel_a, layer.lora_kernel_b):
        layer._track_variable(variable)
    layer._tracker.lock()
    layer.lora_enabled = True
