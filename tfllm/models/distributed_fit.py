"""What Keras does wrong under a `tf.distribute` strategy, put right or refused: all in this file.

Found with Keras 3.15 on TensorFlow 2.20 and 2.21. Nothing of Keras is patched: these are methods
of its trainer, overridden. `tfllm.optimizers.AdamW` has what concerns the optimizer.

1. Under MultiWorkerMirroredStrategy `fit` takes the metrics of a step together by their first axis,
   and they are scalars: it fails. Here a step returns them with one axis more.
2. `fit` and `evaluate` first build the model on an average of the replicas' batches, and fail where
   those are of unequal sizes, or under MultiWorkerMirroredStrategy no single tensor
   (https://github.com/keras-team/keras/issues/20585). Here one replica's part is taken.
3. What a step logs of a metric is the plain mean of the replicas' means, wrong where their weights
   differ. Here each replica logs the metric of the whole global batch.
4. `compile` takes settings that fail in the first step, or train on another gradient than one
   device would. Here it refuses them.
"""

import keras
import tensorflow as tf

from tfllm.errors import UserError
from tfllm.optimizers import AdamW

_BY_WEIGHT = "mean_with_sample_weight"
_CLIPPING = ("clipnorm", "global_clipnorm", "clipvalue")


def has_several_workers(strategy: tf.distribute.Strategy) -> bool:
    """Whether a strategy spans several processes that all run the same program."""
    return isinstance(strategy, tf.distribute.MultiWorkerMirroredStrategy) and bool(
        strategy.cluster_resolver.cluster_spec().as_dict()
    )


def summed_over_replicas(values):
    """The sum of each tensor over the replicas, inside one of them; on one device the tensor."""
    context = tf.distribute.get_replica_context()
    if context is not None and context.num_replicas_in_sync > 1:
        return context.all_reduce(tf.distribute.ReduceOp.SUM, values)
    return values


def place_of_rows(rows):
    """Where this replica's rows are in the global batch, of which it may have more than another.

    Args:
        rows: How many it has; a tensor, if that is not known at tracing.

    Returns:
        int32 scalars: the rows before them, and all of the global batch.
    """
    context = tf.distribute.get_replica_context()
    replicas = 1 if context is None else context.num_replicas_in_sync
    if replicas == 1:
        return 0, rows
    here = context.replica_id_in_sync_group
    if isinstance(rows, int):
        return here * rows, replicas * rows
    counts = summed_over_replicas(tf.one_hot(here, replicas, on_value=rows, off_value=0))
    return tf.reduce_sum(tf.where(tf.range(replicas) < here, counts, 0)), tf.reduce_sum(counts)


class DistributedFit:
    """Mixed in before `keras.Model`.

    Attributes:
        step_per_shape: Whether batches of each shape get a graph of their own, in which all sizes
            are known: for a few shapes, where XLA compiles the step.
    """

    distribute_strategy: tf.distribute.Strategy  # of Keras
    step_per_shape = False

    def _maybe_symbolic_build(self, iterator=None, data_batch=None):
        strategy = self.distribute_strategy
        if iterator is not None and strategy.num_replicas_in_sync > 1:
            _, _, batches = next(iter(iterator))
            data_batch = tf.nest.map_structure(
                lambda value: strategy.experimental_local_results(value)[0], next(batches)
            )
            iterator = None
        super()._maybe_symbolic_build(iterator, data_batch)

    def _make_function(self, step_function):
        if not self.step_per_shape:
            return self._function_of_any_shape(step_function)
        functions = {}

        def function(iterator):
            data = next(iterator)
            shapes = tuple(
                None if tensor is None else tensor.shape
                for tensor in tf.nest.flatten(data, expand_composites=True)
            )
            if shapes not in functions:
                functions[shapes] = self._function_of_any_shape(step_function)
            return functions[shapes]([data])

        return function

    def _function_of_any_shape(self, step_function):
        if not has_several_workers(self.distribute_strategy):
            return super()._make_function(step_function)

        def step(data):
            return tf.nest.map_structure(lambda value: value[None], step_function(data))

        return super()._make_function(step)

    def metrics_of_all_replicas(self):
        """What `get_metrics_result` says, but of the global batch; outside of control flow."""
        context = tf.distribute.get_replica_context()
        if context is None or context.num_replicas_in_sync == 1:
            return self.get_metrics_result()
        # A tensor as it is read from a variable has no device, where TensorFlow wants one.
        local = [[tf.identity(v) for v in metric.variables] for metric in self.metrics]
        results = {}
        for metric, sums in zip(self.metrics, summed_over_replicas(local), strict=True):
            result = metric.stateless_result(sums)
            results.update(result if isinstance(result, dict) else {metric.name: result})
        return results


def require_right_under(strategy, optimizer, loss, *, jit_compile, steps_per_execution) -> None:
    """Refuses settings of `compile` that are wrong on several replicas.

    Args:
        strategy: What the model trains under.
        optimizer: A Keras optimizer.
        loss: As of `keras.Model.compile`, or "auto".
        jit_compile: As of it.
        steps_per_execution: As of it.

    Raises:
        UserError: naming the setting and what to use instead.
    """
    replicas = strategy.num_replicas_in_sync
    if replicas == 1:
        return
    inner = getattr(optimizer, "inner_optimizer", optimizer)  # of LossScaleOptimizer
    clipped = [name for name in _CLIPPING if getattr(inner, name, None)]
    if clipped and not isinstance(inner, AdamW):
        raise UserError(
            f"{type(inner).__name__} clips each replica's part of the gradient before they are "
            f"summed ({clipped[0]}={getattr(inner, clipped[0])}, {replicas} replicas), which is "
            "another gradient than on one device: use tfllm.optimizers.AdamW, which clips the sum."
        )
    if inner.gradient_accumulation_steps:
        raise UserError(
            f"gradient_accumulation_steps works on one device: got "
            f"{inner.gradient_accumulation_steps} under a strategy of {replicas} replicas. Leave "
            "it out and give compile microbatches, which compute a batch in parts."
        )
    if steps_per_execution != 1:
        raise UserError(
            f"steps_per_execution must be 1 under a strategy: got {steps_per_execution} for "
            f"{replicas} replicas, which Keras cannot run."
        )
    if jit_compile is True and loss != "auto":
        raise UserError(
            f"jit_compile must be left out for a loss of Keras under a strategy: Keras cannot "
            f'compile the step of {replicas} replicas. loss="auto" can.'
        )
    if any(getattr(part, "reduction", "") == _BY_WEIGHT for part in tf.nest.flatten(loss)):
        raise UserError(
            f"A loss with the reduction {_BY_WEIGHT} divides by each replica's own weights: use "
            'loss="auto", which divides by those of the whole global batch.'
        )
    if loss != "auto" and optimizer is not inner:
        raise UserError(
            f"{type(optimizer).__name__} asks one replica whether a step is to be skipped: under a "
            'strategy it is right with loss="auto" alone.'
        )


def require_equal_parts(rows) -> None:
    """Refuses a loss of the user's own where replicas may have unequally many rows.

    Raises:
        UserError: at tracing, their number is not known, so that a last batch may have fewer.
    """
    replicas = tf.distribute.get_strategy().num_replicas_in_sync
    if replicas > 1 and not isinstance(rows, int):
        raise UserError(
            "A loss of Keras divides by each replica's own rows, and a last batch may leave one "
            f"with fewer of {replicas}: batch with drop_remainder=True, or use "
            'loss="auto", which divides by the weights of the whole global batch.'
        )


def finite_on_all_replicas(gradients, optimizer):
    """Gradients that are finite on all replicas or on none, for an optimizer that scales the loss.

    `keras.optimizers.LossScaleOptimizer` asks one replica whether the step is to be skipped.

    Args:
        gradients: A dense tensor per variable, of this replica, or None.
        optimizer: Whose they are for.

    Returns:
        `gradients`, of which none is a number if one of any replica is not finite.
    """
    if not isinstance(optimizer, keras.optimizers.LossScaleOptimizer):
        return gradients
    there = [gradient for gradient in gradients if gradient is not None]
    finite = tf.reduce_all([tf.reduce_all(tf.math.is_finite(g)) for g in there])
    failed = summed_over_replicas(tf.cast(~finite, tf.float32)) > 0
    return [
        g if g is None else tf.where(failed, tf.constant(float("nan"), g.dtype), g)
        for g in gradients
    ]
