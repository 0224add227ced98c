"""What our tasks share: training that is right under a strategy, and presets."""

import functools

import keras
import tensorflow as tf

from tfllm.errors import UserError
from tfllm.layers.clusters import (
    are_compiled,
    are_worth_compiling,
    compiled_clusters,
    suits_this_replica,
)
from tfllm.layers.dropout import step_scope
from tfllm.models.distributed_fit import (
    DistributedFit,
    finite_on_all_replicas,
    place_of_rows,
    require_equal_parts,
    require_right_under,
    summed_over_replicas,
)
from tfllm.models.lora_merging import merged
from tfllm.models.microbatches import accumulate, num_rows
from tfllm.models.one_program import compiles, is_one_program, one_program
from tfllm.models.presets import compute_in_float32, require_preset, save_aside
from tfllm.models.text_task import TextTask


class Task(DistributedFit, TextTask):
    """Mixed in before a task class of KerasHub.

    Trains with plain `compile` and `fit`. With `loss="auto"` the loss is the mean over all
    weighted targets of the global batch, however many replicas share it; Keras's own losses
    average per replica, which is wrong when the replicas' weights differ.

    A subclass calls `_set_up` before KerasHub's constructor, and gives `text` and, where its
    targets are not the indices of classes, `target_weights` and `target_losses`.
    """

    def _set_up(self, backbone, preprocessor, seed=0):
        super()._set_up(backbone, preprocessor)
        self.seed = seed
        self.microbatches = 1
        self.label_smoothing = 0.0
        self._jit_of_step = False
        self._mean_loss = keras.metrics.Mean(name="loss")
        self._own_loss = True

    # Training

    def compile(  # noqa: PLR0913 - Keras's and two more
        self,
        optimizer="auto",
        loss="auto",
        *,
        metrics=None,
        weighted_metrics=None,
        microbatches=1,
        label_smoothing=0.0,
        jit_compile="auto",
        **kwargs,
    ):
        """As `keras.Model.compile`.

        Args:
            optimizer: "auto" is Adam with a rate of 2e-5, for fine-tuning.
            loss: "auto" is the task's own, see the class.
            metrics: Metrics that ignore weights; none by default.
            weighted_metrics: Metrics beside the loss; none by default.
            microbatches: Equal parts of each replica's batch that are computed one after the
                other, for their memory; the step is that of the whole batch.
            label_smoothing: Share of a target's probability that goes to all classes alike, in
                [0, 1), in training alone.
            jit_compile: Whether XLA compiles the training step as a whole, see `one_program`.
                "auto" does it on GPUs, for batches of one length. `evaluate` and `predict` are not
                compiled.
            **kwargs: Of `keras.Model.compile`.

        Raises:
            UserError: `microbatches` or `label_smoothing` is out of range, or comes with another
                loss; or a setting is wrong under the model's strategy, see `distributed_fit`.

        Source:
            Label smoothing: Szegedy et al. 2016, section 7, https://arxiv.org/abs/1512.00567
        """
        self._own_loss = loss == "auto"
        self._has_metrics = bool(metrics or weighted_metrics)
        if microbatches < 1 or not 0 <= label_smoothing < 1:
            raise UserError(
                "microbatches must be at least 1 and label_smoothing in [0, 1): got "
                f"{microbatches} and {label_smoothing}."
            )
        if not self._own_loss and (microbatches > 1 or label_smoothing):
            raise UserError('microbatches and label_smoothing need loss="auto", the task\'s own.')
        self.microbatches = microbatches
        self.label_smoothing = label_smoothing
        optimizer = keras.optimizers.get(
            keras.optimizers.Adam(2e-5) if optimizer == "auto" else optimizer
        )
        require_right_under(
            self.distribute_strategy,
            optimizer,
            loss,
            jit_compile=jit_compile,
            steps_per_execution=kwargs.get("steps_per_execution", 1),
        )
        self._jit_of_step = jit_compile
        super().compile(
            optimizer=optimizer,
            loss=None if loss == "auto" else loss,
            metrics=metrics,
            weighted_metrics=weighted_metrics,
            jit_compile=False,  # Keras would compile the sums over replicas too, and fail
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

    def target_weights(self, y, weight):
        """How much each target counts, by the data alone.

        Args:
            y: The targets.
            weight: The sample weights, or None.

        Returns:
            float32, one number per target; or a dict of such, by the name of each part of the
            loss: the loss is the sum of their weighted means.
        """
        return tf.ones(tf.shape(y)) if weight is None else tf.cast(weight, tf.float32)

    def target_losses(self, y, outputs, label_smoothing=0.0):
        """The loss of each target, here the cross-entropy of int32[...] under logits.

        Args:
            y: The targets.
            outputs: What the model says.
            label_smoothing: As of `compile`.

        Returns:
            float32, in the shape of `target_weights`; or a dict with its names.
        """
        return cross_entropy(y, outputs, label_smoothing)

    def outputs_of(self, x, y, training):  # noqa: ARG002 - a task may say more where y asks for it
        """What the model says, as `target_losses` takes it."""
        return self(x, training=training)

    def scores_in_parts(self) -> bool:
        """Whether a step may compute the loss of a vocabulary by `vocabulary_loss`."""
        return not self._has_metrics  # they look at all logits

    def summed_losses(self, x, y, weights, label_smoothing):
        """The loss of each part, as a weighted sum, and what the model says.

        A task without metrics may have a way to the sums that is shorter than by `outputs_of`; it
        then says None.
        """
        outputs = self.outputs_of(x, y, training=True)
        losses = self.target_losses(y, outputs, label_smoothing)
        return _sums(tf.nest.map_structure(tf.multiply, losses, weights)), outputs

    @property
    def is_one_program(self) -> bool:
        """Whether XLA compiles each length of the batches that the model trains on."""
        return is_one_program(self._jit_of_step, self.distribute_strategy)

    def train_step(self, data):
        if compiles(self._jit_of_step, data, self.microbatches):
            if self.distribute_strategy.num_replicas_in_sync == 1:
                return one_program(self._train_step)(data)
            return self._train_step(data, of_replica=one_program)
        with compiled_clusters(suits_this_replica(data)):
            return self._train_step(data)

    def _train_step(self, data, of_replica=None):
        """
        Args:
            data: A batch.
            of_replica: What makes a program of a replica's gradients, or None.
        """
        if not self._own_loss:
            require_equal_parts(num_rows(data))
            with step_scope(self.optimizer.iterations, self.seed):
                super().train_step(data)
            return self.metrics_of_all_replicas()
        x, y, weight = keras.utils.unpack_x_y_sample_weight(data)
        weights = self.target_weights(y, weight)
        counts = summed_over_replicas(_sums(weights))
        first_row, _ = place_of_rows(num_rows((x, y, weight, weights)))

        def gradients(rows_before, *data):
            return self._gradients(data, counts, first_row + rows_before)

        of_batch = functools.partial(accumulate, gradients, num_parts=self.microbatches)
        of_batch = of_replica(of_batch) if of_replica else of_batch
        found, sums = of_batch((x, y, weight, weights))
        found = finite_on_all_replicas(found, self.optimizer)
        with compiled_clusters(are_compiled() or of_replica is not None):
            self.optimizer.apply_gradients(zip(found, self.trainable_weights, strict=True))
        self._log_loss(sums, counts)
        return self.metrics_of_all_replicas()

    def _gradients(self, data, counts, first_row):
        """Of a part of the batch, and the sums of its losses."""
        x, y, weight, weights = data
        rows = first_row, num_rows(data)
        with step_scope(self.optimizer.iterations, self.seed, rows), tf.GradientTape() as tape:
            sums, outputs = self.summed_losses(x, y, weights, self.label_smoothing)
            loss = tf.add_n(list(map(tf.math.divide_no_nan, sums, counts)))
            scaled = self.optimizer.scale_loss(loss)
        if outputs is not None:
            self.compute_metrics(x, y, outputs, sample_weight=weight)
        return tape.gradient(scaled, self.trainable_weights), sums

    def gradients_of_part(self, x, y, weight, *, on_cpus):
        """The gradients of the trained weights as a step computes them for one microbatch.

        For a graph that is never run: of no strategy, and without the update.

        Args:
            x: The inputs, as the backbone takes them.
            y: The targets.
            weight: The sample weights, or None.
            on_cpus: Whether it is for a CPU, where clusters are compiled.
        """
        with compiled_clusters(on_cpus and are_worth_compiling((x, y, weight))):
            weights = self.target_weights(y, weight)
            return self._gradients((x, y, weight, weights), _sums(weights), 0)[0]

    def test_step(self, data):
        if not self._own_loss:
            super().test_step(data)
            return self.metrics_of_all_replicas()
        x, y, weight = keras.utils.unpack_x_y_sample_weight(data)
        weights = self.target_weights(y, weight)
        outputs = self.outputs_of(x, y, training=False)
        losses = self.target_losses(y, outputs)
        self.compute_metrics(x, y, outputs, sample_weight=weight)
        self._log_loss(
            _sums(tf.nest.map_structure(tf.multiply, losses, weights)),
            summed_over_replicas(_sums(weights)),
        )
        return self.metrics_of_all_replicas()

    def _log_loss(self, sums, counts):
        """The global means on each replica: Keras logs the plain mean of what the replicas show."""
        means = map(tf.math.divide_no_nan, summed_over_replicas(sums), counts)
        self._mean_loss.update_state(tf.add_n(list(means)), counts[0])

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

        with merged(self):
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


def cross_entropy(y, logits, label_smoothing=0.0) -> tf.Tensor:
    """float32[...], of int32[...] under float32[..., c], in nats."""
    # A loop forgets the sizes; TensorFlow would assert them on the host, which no TPU can.
    logits = tf.ensure_shape(logits, y.shape.concatenate(logits.shape[-1:]))
    loss = tf.nn.sparse_softmax_cross_entropy_with_logits(y, logits)
    if not label_smoothing:
        return loss
    everywhere = tf.reduce_logsumexp(logits, -1) - tf.reduce_mean(logits, -1)
    return (1 - label_smoothing) * loss + label_smoothing * everywhere


def _sums(tensors) -> list[tf.Tensor]:
    """The sum of each tensor; of a dict in the order of its names."""
    return [tf.reduce_sum(tensor) for tensor in tf.nest.flatten(tensors)]


def require_no_smoothing(label_smoothing: float, what: str) -> None:
    """Refuses label smoothing where a target is no class."""
    if label_smoothing:
        raise UserError(f"{what} has no classes: label_smoothing must be 0, got {label_smoothing}.")
