"""Elementwise work of a training step that a CPU does in few passes over the memory.

TensorFlow's kernels multiply matrices at the speed of the processor, and do what is elementwise one
op at a time, each reading and writing all of its tensors. XLA is the other way round on a CPU: it
fuses what is elementwise, but its products, its transposes and its sums over rows are slower. So
only groups of elementwise ops are compiled by XLA, as parts of functions with gradients of their
own, and the rest stays where it is.

They are compiled inside `compiled_clusters` alone, which a training step on CPUs enters. An export
never has them: a stock server refuses what XLA must compile. On a GPU or a TPU it is the whole step
that should be compiled, of plain ops.
"""

import contextlib
import math
import os
import threading
from collections.abc import Callable, Iterator

import tensorflow as tf

# Positions in a batch: the step of a smaller one is shorter than compiling is long. Where the
# number of rows is not known, so many are assumed.
_WORTH_COMPILING = 1024
_ROWS = 16

_WIDTH = "xla_cpu_prefer_vector_width"

_scope = threading.local()  # MirroredStrategy traces each replica in a thread of its own


@contextlib.contextmanager
def compiled_clusters(really: bool = True) -> Iterator[None]:
    """Within it, clusters are compiled (or not, if not `really`)."""
    outer = are_compiled()
    _scope.on = really
    if really:
        _ask_for_wide_vectors()
    try:
        yield
    finally:
        _scope.on = outer


def _ask_for_wide_vectors() -> None:
    """XLA takes half of the width of AVX-512 unless told, which it is when it first compiles."""
    flags = os.environ.get("XLA_FLAGS", "")
    if _WIDTH not in flags:
        os.environ["XLA_FLAGS"] = f"{flags} --{_WIDTH}=512".strip()


def are_compiled() -> bool:
    """Whether a cluster that is called here and now is compiled."""
    return getattr(_scope, "on", False)


def suits_this_replica(inputs) -> bool:
    """Whether a training step on these inputs should compile its clusters.

    It should on CPUs, for batches that are worth it and whose lengths are known: XLA compiles anew
    for each shape that it meets, which the number of rows seldom changes, but texts padded to the
    longest of a batch always do.

    Args:
        inputs: Tensors with rows first, dicts and tuples of them, and None.
    """
    if tf.distribute.has_strategy():
        names = tf.distribute.get_strategy().extended.worker_devices
    else:
        names = [device.name for device in tf.config.list_logical_devices()]
    return all("CPU" in name.upper() for name in names) and are_worth_compiling(inputs)


def are_worth_compiling(inputs) -> bool:
    """Whether a training step on a CPU should compile its clusters for these inputs.

    Args:
        inputs: As of `suits_this_replica`.
    """
    shapes = [tensor.shape for tensor in tf.nest.flatten(inputs) if tensor is not None]
    if not all(shape[1:].is_fully_defined() for shape in shapes):
        return False
    return max((shape[0] or _ROWS) * math.prod(shape[1:]) for shape in shapes) >= _WORTH_COMPILING


def cluster(function: Callable) -> Callable:
    """A function of tensors and plain keyword arguments that XLA compiles wherever it is called."""
    return tf.function(function, jit_compile=True, autograph=False)


def narrowed(x, dtype) -> tf.Tensor:
    """float32[...] as `dtype`, within a cluster; rounded to the nearest, as `tf.cast` does.

    XLA's own rounding to bfloat16 cares for every NaN (here those that arithmetic makes stay NaN),
    for which LLVM computes all of a cluster in vectors of half the width.
    """
    if dtype != tf.bfloat16:
        return tf.cast(x, dtype)
    bits = tf.bitcast(x, tf.uint32)
    is_odd = tf.bitwise.bitwise_and(tf.bitwise.right_shift(bits, 16), 1)
    bits = tf.bitwise.right_shift(bits + 0x7FFF + is_odd, 16)
    return tf.bitcast(tf.cast(bits, tf.uint16), tf.bfloat16)


def sum_of_rows(x) -> tf.Tensor:
    """float[m] of float[..., m]."""
    x = tf.reshape(x, [-1, x.shape[-1]])
    if not are_compiled():
        return tf.reduce_sum(x, 0)
    return tf.matmul(tf.ones([1, tf.shape(x)[0]], x.dtype), x)[0]  # faster on a CPU


def add_bias(x, bias) -> tf.Tensor:
    """`x + bias`, of float[n, m] and float[m], with a gradient that is right in bfloat16.

    TensorFlow's own adds the rows up in bfloat16 on a CPU: of 4,096 rows the half is lost.
    """

    @tf.custom_gradient
    def added(x, bias):
        return tf.nn.bias_add(x, bias), lambda dy: (dy, sum_of_rows(dy))

    return added(x, tf.cast(bias, x.dtype))
