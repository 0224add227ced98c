"""Which training steps XLA compiles as a whole, and into how many programs: all in this file.

On a GPU a step is one program of plain ops, whose elementwise parts XLA fuses. On CPUs only
clusters of it are compiled, see `tfllm.layers.clusters`. A TPU runs nothing but such programs:
`TPUStrategy.run` makes them by itself.

Several replicas add their gradients between two programs, which none can hold: the one is forward
and backward, of a whole share of the batch with all its parts, the other the update of a weight.
"""

from collections.abc import Callable
from typing import Literal

import tensorflow as tf

from tfllm.errors import UserError
from tfllm.models.microbatches import num_rows

JitCompile = Literal["auto"] | bool
_TPUS = (tf.distribute.TPUStrategy, tf.distribute.experimental.TPUStrategy)


def is_one_program(jit_compile: JitCompile, strategy: tf.distribute.Strategy) -> bool:
    """Whether the steps of a model are compiled as a whole, so each length anew.

    Args:
        jit_compile: As of `Task.compile`.
        strategy: What the model trains under.
    """
    if isinstance(strategy, _TPUS):
        return True
    return _on_gpus(strategy) if jit_compile == "auto" else jit_compile


def compiles(jit_compile: JitCompile, data, num_parts: int) -> bool:
    """Whether a step is to be compiled by `one_program`, inside a replica.

    Args:
        jit_compile: As of `Task.compile`.
        data: Tensors of the batch with rows first, dicts and tuples of them, and None.
        num_parts: Microbatches.

    Raises:
        UserError: it is asked for, and XLA cannot know the sizes in the batch.
    """
    strategy = tf.distribute.get_strategy()
    if isinstance(strategy, _TPUS) or not is_one_program(jit_compile, strategy):
        return False
    shapes = [tensor.shape for tensor in tf.nest.flatten(data) if tensor is not None]
    known = all(shape[1:].is_fully_defined() for shape in shapes)
    # A part of unknown rows begins and ends where only the running program knows.
    known = known and (num_parts == 1 or isinstance(num_rows(data), int))
    if not known and jit_compile != "auto":
        raise UserError(
            "jit_compile=True needs batches of one length, with microbatches also of one number "
            f"of rows: got {', '.join(map(str, shapes))}. Give the preprocessor "
            'padding="max_length" and batch with drop_remainder=True, or leave jit_compile out.'
        )
    return known


def one_program(function: Callable) -> Callable:
    """A function of tensors as one program of XLA."""
    return tf.function(function, jit_compile=True, autograph=False)


def _on_gpus(strategy: tf.distribute.Strategy) -> bool:
    """Whether all replicas compute on GPUs; the strategy of one device uses the first one."""
    if strategy.num_replicas_in_sync == 1:
        return bool(tf.config.list_logical_devices("GPU"))
    return all("GPU" in name.upper() for name in strategy.extended.worker_devices)
