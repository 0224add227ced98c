"""The products of KerasHub's layers with their matrices, as an export computes them."""

import functools
import math
import re
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import keras
import keras_hub
import numpy as np
import tensorflow as tf

from tfllm.layers import ServedMatrix
from tfllm.layers.served_matrix import Make


class MatrixForm(NamedTuple):
    """A kernel as the matrix [m, n] that it is.

    Attributes:
        axes: Of the kernel: those that are summed over, in the order of the input's last ones, and
            then those of the output.
        num_summed: How many are summed over.
    """

    axes: tuple[int, ...]
    num_summed: int

    @classmethod
    def of(cls, equation: str) -> "MatrixForm | None":
        """As an einsum of inputs and a kernel has it, such as "btd,dnh->btnh".

        Returns:
            None if it is no product of rows with one matrix: each of several experts has its own.
        """
        inputs, kernel, output = re.split(",|->", equation.replace("...", ""))
        summed = [x for x in inputs if x in kernel and x not in output]
        new = [x for x in output if x in kernel and x not in inputs]
        rows = [x for x in inputs if x not in summed]
        if (
            [*inputs] != [*rows, *summed]
            or [*output] != [*rows, *new]
            or sorted(kernel) != sorted(summed + new)
        ):
            return None
        return cls(tuple(kernel.index(x) for x in summed + new), len(summed))

    def matrix(self, kernel: np.ndarray) -> np.ndarray:
        """float[m, n] of a kernel."""
        ordered = kernel.transpose(self.axes)
        return ordered.reshape(math.prod(ordered.shape[: self.num_summed]), -1)


def products(model, make: Make) -> Iterator[tuple[Any, str, Callable]]:
    """What the layers of a model compute instead, as `replaced` takes it.

    Those of a dense layer, of an `EinsumDense` and of the token embedding are served; what is none
    of these, and what a layer adds to its product, stays.

    Args:
        model: A `keras_hub.models.CausalLM` in float32, without LoRA.
        make: As of `tfllm.layers.served_matrix`.
    """
    experts = getattr(model.backbone, "num_experts", None)
    for layer in model._flatten_layers():
        of = type(layer).call
        if not layer.built or layer.quantization_mode is not None:
            continue
        if of is keras.layers.Dense.call and layer.units == experts:
            call = None  # it chooses among experts: a small error chooses another one
        elif of is keras.layers.Dense.call:
            call = _dense(layer, MatrixForm((0, 1), 1), make)
        elif of is keras.layers.EinsumDense.call:
            call = _dense(layer, MatrixForm.of(layer.equation), make)
        elif of is keras_hub.layers.ReversibleEmbedding.call:
            call = _embedding(layer, make)
        else:
            call = None
        if call is not None:
            yield layer, "call", call


def _dense(layer, form: MatrixForm | None, make: Make):
    if form is None or (served := make([layer._kernel], as_matrix=form.matrix)) is None:
        return None
    units = [layer._kernel.shape[axis] for axis in form.axes[form.num_summed :]]

    def call(inputs, training=None):  # noqa: ARG001 - as of the layer
        y = _product(served, inputs, form.num_summed, units)
        y = y if layer.bias is None else y + layer.bias
        return y if layer.activation is None else layer.activation(y)

    return call


def _embedding(layer, make: Make):
    if layer.tie_weights:
        served = make([layer.embeddings], transposed=True)
    else:
        served = make([layer.reverse_embeddings])
    if served is None:
        return None
    return functools.partial(_embed_or_score, layer, served, layer.call)


def _embed_or_score(layer, served: ServedMatrix, of_layer, inputs, reverse=False):
    if reverse:
        logits = _product(served, inputs, 1, [served.units])
        cap = layer.logit_soft_cap
        return logits if cap is None else tf.tanh(logits / cap) * cap
    return served.rows(tf.cast(inputs, tf.int32)) if layer.tie_weights else of_layer(inputs)


def _product(served: ServedMatrix, x, num_summed: int, units) -> tf.Tensor:
    """float32[..., *units] of float[..., *summed]."""
    rows = tf.shape(x)[: x.shape.rank - num_summed]
    y = served(tf.reshape(tf.cast(x, tf.float32), [-1, served.width]))
    y = tf.reshape(y, tf.concat([rows, units], 0))
    y.set_shape(x.shape[: x.shape.rank - num_summed].concatenate(units))
    return y
