"""AdamW that decays matrices only and clips the gradient of the whole global batch."""

import keras
import tensorflow as tf

from tfllm.errors import UserError
from tfllm.layers.clusters import are_compiled, cluster


@cluster
def _updated(w, m, v, gradient, rate, step, *, beta_1, beta_2, epsilon, weight_decay):
    """The weight and its two moments after a step, as `keras.optimizers.AdamW` computes them."""
    w -= w * weight_decay * rate
    m += (gradient - m) * (1 - beta_1)
    v += (tf.square(gradient) - v) * (1 - beta_2)
    alpha = rate * tf.sqrt(1 - tf.pow(beta_2, step)) / (1 - tf.pow(beta_1, step))
    return w - m * alpha / (tf.sqrt(v) + epsilon), m, v


@keras.saving.register_keras_serializable("tfllm")
class AdamW(keras.optimizers.AdamW):
    """`keras.optimizers.AdamW` as language models are trained with it, right under a strategy.

    Args:
        *args: Of `keras.optimizers.AdamW`.
        scales: {path of a variable: factor of its learning rate}, for every variable that is
            trained; None means 1 for all. The decay of a weight is multiplied by its rate, so it
            is scaled alike.
        **kwargs: Of `keras.optimizers.AdamW`.

    What differs from it:

    - Weight decay acts on variables of rank 2 and more (kernels and embeddings), never on biases
      and the gains of norms.
    - `clipnorm`, `global_clipnorm` and `clipvalue` act on the gradient summed over the replicas.
      The stock class clips each replica's part before the sum, which is another gradient.
    - The sparse gradient of an embedding is made dense. The stock class squares the parts of a
      token that occurs twice one by one, so the second moment is not that of the gradient.

    Attributes:
        gradient_norm: `keras.Variable` float[], the Euclidean norm of the last step's whole
            gradient before clipping. It exists once the optimizer is built.
        gradient_norms: The same float[n] of the gradient of each variable.

    Raises:
        UserError: at build time, if `gradient_accumulation_steps` is set under a strategy of
            several replicas, where Keras cannot run it; or if `scales` lacks a variable.

    Source:
        Loshchilov and Hutter 2019, https://arxiv.org/abs/1711.05101; decay on matrices only:
        Radford et al. 2018 ("non bias or gain weights"), section 4.1 of the GPT paper.
    """

    def __init__(self, *args, scales=None, **kwargs):
        super().__init__(*args, **kwargs)
        self.scales = scales

    def build(self, variables):
        if self.built:
            return
        replicas = tf.distribute.get_strategy().num_replicas_in_sync
        if self.gradient_accumulation_steps and replicas > 1:
            raise UserError(
                "gradient_accumulation_steps works on one device: got "
                f"{self.gradient_accumulation_steps} under a strategy of {replicas} replicas. "
                "Leave it out; the replicas already share the global batch."
            )
        super().build(variables)
        self._scale_of_index = [self._scale_of(variable) for variable in variables]
        # Every replica computes it from the same summed gradient: the first one's is the value.
        self.gradient_norm = self.add_variable(
            (), name="gradient_norm", dtype="float32", aggregation="only_first_replica"
        )
        # No variable of the optimizer's state: each step makes it anew.
        self.gradient_norms = keras.Variable(
            tf.zeros([len(variables)]),
            dtype="float32",
            trainable=False,
            aggregation="only_first_replica",
            name="gradient_norms",
        )

    def apply(self, grads, trainable_variables=None):
        grads = [tf.convert_to_tensor(g) if isinstance(g, tf.IndexedSlices) else g for g in grads]
        super().apply(grads, trainable_variables)

    def _scale_of(self, variable) -> float:
        if self.scales is None:
            return 1.0
        if variable.path not in self.scales:
            raise UserError(
                f"scales must have a factor for every variable that is trained: it has none for "
                f"{variable.path}."
            )
        return self.scales[variable.path]

    def update_step(self, gradient, variable, learning_rate):
        if are_compiled() and not self.amsgrad and variable.dtype == tf.float32:
            self._update_in_one_pass(gradient, variable, learning_rate)
            return
        rate = learning_rate * self._scale_of_index[self._get_variable_index(variable)]
        if self._use_weight_decay(variable):
            self.assign_sub(variable, variable * self.weight_decay * rate)
        super().update_step(gradient, variable, rate)

    def _update_in_one_pass(self, gradient, variable, learning_rate):
        i = self._get_variable_index(variable)
        m, v = self._momentums[i].value, self._velocities[i].value
        rate = tf.cast(learning_rate, tf.float32) * self._scale_of_index[i]
        after = _updated(
            tf.convert_to_tensor(variable), tf.convert_to_tensor(m), tf.convert_to_tensor(v),
            gradient, rate, tf.cast(self.iterations + 1, tf.float32),
            beta_1=self.beta_1, beta_2=self.beta_2, epsilon=self.epsilon,
            weight_decay=self.weight_decay if self._use_weight_decay(variable) else 0.0,
        )  # fmt: skip
        for old, new in zip((variable, m, v), after, strict=True):
            old.assign(new)

    def _apply_weight_decay(self, variables):
        """`update_step` does it, where the variable's own rate is known."""

    def _use_weight_decay(self, variable):
        return len(variable.shape) >= 2 and super()._use_weight_decay(variable)

    def _clip_gradients(self, grads):
        # Keras calls this before the sum over the replicas; `_all_reduce_sum_gradients` clips.
        return grads

    def _all_reduce_sum_gradients(self, grads_and_vars):
        grads, variables = zip(*super()._all_reduce_sum_gradients(grads_and_vars), strict=True)
        half_squares = tf.stack([tf.nn.l2_loss(tf.cast(grad, tf.float32)) for grad in grads])
        norm = tf.sqrt(2 * tf.reduce_sum(half_squares))
        self.gradient_norm.assign(norm)
        places = [self._get_variable_index(variable) for variable in variables]
        self.gradient_norms.assign(
            tf.tensor_scatter_nd_update(
                tf.zeros_like(self.gradient_norms.value),  # of those without a gradient
                tf.constant(places)[:, None],
                tf.sqrt(2 * half_squares),
            )
        )
        if self.global_clipnorm:
            grads, _ = tf.clip_by_global_norm(grads, self.global_clipnorm, use_norm=norm)
        else:
            grads = super()._clip_gradients(grads)
        return list(zip(grads, variables, strict=True))

    def update_norms(self) -> tf.Tensor:
        """float32[n], the Euclidean norm of what the last step added to each variable.

        Computed from the moments, which are what the step left: nothing is kept for it.
        """
        step = tf.cast(self.iterations.value, tf.float32)
        rate = self._learning_rate
        if isinstance(rate, keras.optimizers.schedules.LearningRateSchedule):
            rate = rate(step - 1)
        correction = tf.sqrt(1 - self.beta_2**step) / (1 - self.beta_1**step)
        norms = []
        for i, variable in enumerate(self._trainable_variables):
            of_variable = tf.cast(rate, tf.float32) * self._scale_of_index[i]
            mean, square = self._momentums[i].value, self._velocities[i].value
            change = of_variable * correction * mean / (tf.sqrt(square) + self.epsilon)
            if self._use_weight_decay(variable) and self.weight_decay:
                decayed = of_variable * self.weight_decay
                change += decayed * (variable.value + change) / (1 - decayed)
            norms.append(tf.norm(change))
        return tf.stack(norms)

    def get_config(self):
        return {**super().get_config(), "scales": self.scales}
