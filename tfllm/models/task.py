"""What our tasks share: training that is right under a strategy, and presets."""

import keras
import tensorflow as tf

from tfllm.errors import UserError
from tfllm.layers.dropout import step_scope
from tfllm.models.presets import compute_in_float32, require_preset, save_aside
from tfllm.models.text_task import TextTask


class Task(TextTask):
    """Mixed in before a task class of KerasHub.

    Trains with plain `compile` and `fit`. With `loss="auto"` the loss is the mean over all
    weighted targets of the global batch, however many replicas share it; Keras's own losses
    average per replica, which is wrong when the replicas' weights differ.

    A subclass calls `_set_up` before KerasHub's constructor, and gives `text` and, where its
    targets are not the indices of classes, `target_losses`.
    """

    def _set_up(self, backbone, preprocessor, seed=0):
        super()._set_up(backbone, preprocessor)
        self.seed = seed
        self._mean_loss = keras.metrics.Mean(name="loss")
        self._own_loss = True

    # Training

    def compile(
        self, optimizer="auto", loss="auto", *, metrics=None, weighted_metrics=None, **kwargs
    ):
        """As `keras.Model.compile`.

        Args:
            optimizer: "auto" is Adam with a rate of 2e-5, for fine-tuning.
            loss: "auto" is the task's own, see the class.
            metrics: Metrics that ignore weights; none by default.
            weighted_metrics: Metrics beside the loss; none by default.
            **kwargs: Of `keras.Model.compile`.
        """
        self._own_loss = loss == "auto"
        super().compile(
            optimizer=keras.optimizers.Adam(2e-5) if optimizer == "auto" else optimizer,
            loss=None if loss == "auto" else loss,
            metrics=metrics,
            weighted_metrics=weighted_metrics,
            **kwargs,
        )

    def compile_from_config(self, config):
        config = keras.saving.deserialize_keras_object(config)
        self.compile(**{**config, "loss": config["loss"] or "auto"})
        self.optimizer.build(self.trainable_variables)

    @property
    def metrics(self):
        # Keras has a "loss" of its own, which stays at 0 while ours trains.
        return [
            metric
            for metric in super().metrics
            if metric.name != "loss" or (metric is self._mean_loss) == self._own_loss
        ]

    @tf.autograph.experimental.do_not_convert  # it would wrap a UserError in its own
    def preprocess_samples(self, x, y=None, sample_weight=None):
        if isinstance(x, dict) and "token_ids" in x:  # prepared records hold token ids already
            return keras.utils.pack_x_y_sample_weight(x, y, sample_weight)
        return super().preprocess_samples(x, y, sample_weight)

    def target_losses(self, y, outputs) -> tf.Tensor:
        """float32, one number per target: here the cross-entropy of int32[...] under logits."""
        return tf.nn.sparse_softmax_cross_entropy_with_logits(y, outputs)

    def train_step(self, data):
        with step_scope(self.optimizer.iterations, self.seed):
            if not self._own_loss:
                return super().train_step(data)
            x, y, weight = keras.utils.unpack_x_y_sample_weight(data)
            with tf.GradientTape() as tape:
                outputs = self(x, training=True)
                loss = self._share_of_loss(y, outputs, weight)
                scaled = self.optimizer.scale_loss(loss)
            variables = self.trainable_weights
            self.optimizer.apply_gradients(
                zip(tape.gradient(scaled, variables), variables, strict=True)
            )
            return self.compute_metrics(x, y, outputs, sample_weight=weight)

    def test_step(self, data):
        if not self._own_loss:
            return super().test_step(data)
        x, y, weight = keras.utils.unpack_x_y_sample_weight(data)
        outputs = self(x, training=False)
        self._share_of_loss(y, outputs, weight)
        return self.compute_metrics(x, y, outputs, sample_weight=weight)

    def _share_of_loss(self, y, outputs, weight):
        """This replica's share of the loss: the replicas' shares add up to the global mean."""
        losses = self.target_losses(y, outputs)
        weight = tf.ones_like(losses) if weight is None else tf.cast(weight, losses.dtype)
        total, count = tf.reduce_sum(losses * weight), tf.reduce_sum(weight)
        everywhere = [total, count]
        replicas = tf.distribute.get_replica_context()
        if replicas is not None and replicas.num_replicas_in_sync > 1:
            everywhere = replicas.all_reduce(tf.distribute.ReduceOp.SUM, everywhere)
        # The global mean on each replica: Keras logs the plain mean of what the replicas show.
        self._mean_loss.update_state(tf.math.divide_no_nan(*everywhere), everywhere[1])
        return tf.math.divide_no_nan(total, everywhere[1])

    # Presets

    def save_to_preset(self, preset_dir, max_shard_size=10):
        """Writes the whole model to a folder, aside first and then renamed.

        Args:
            preset_dir: The folder; an older preset there is replaced.
            max_shard_size: Gigabytes of one file of weights at most.
        """

        def write(aside):
            super(Task, self).save_to_preset(aside, max_shard_size=max_shard_size)
            compute_in_float32(aside)

        save_aside(preset_dir, write)

    def save_task_weights(self, filepath):
        """Writes the weights outside of the backbone, without the state of the optimizer."""
        keras.saving.save_weights(self, filepath, objects_to_skip=self._not_of_the_task())

    def load_task_weights(self, filepath):
        """Reads what `save_task_weights` wrote."""
        keras.saving.load_weights(self, filepath, objects_to_skip=self._not_of_the_task())

    def _not_of_the_task(self):
        optimizer = [] if self.optimizer is None else [self.optimizer]
        return [self.backbone, *self.backbone.layers, *optimizer]

    @classmethod
    def from_preset(cls, preset, load_weights=True, **kwargs):
        """Loads a model from a folder on this disk; nothing is downloaded.

        Args:
            preset: A folder that `save_to_preset` wrote.
            load_weights: False leaves the weights random.
            **kwargs: For the constructor; `dtype` is the policy to load with.

        Raises:
            UserError: there is no preset at that path, it is damaged or of another task.
        """
        folder = require_preset(preset)
        try:
            return super().from_preset(folder, load_weights, **kwargs)
        except (OSError, ValueError) as error:  # a damaged file, or a preset of another task
            raise UserError(f"The preset {folder} cannot be loaded: {error}") from error

    def get_config(self):
        return {**super().get_config(), "seed": self.seed}
