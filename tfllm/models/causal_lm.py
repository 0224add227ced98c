"""A language model that predicts the next token: training, generation, scores, presets."""

from collections.abc import Sequence

import keras
import keras_hub
import tensorflow as tf

from tfllm import contract, rows
from tfllm.errors import UserError
from tfllm.layers.dropout import step_scope
from tfllm.models.preprocessor import require_language_model_tokenizer
from tfllm.models.presets import compute_in_float32, require_preset, save_aside
from tfllm.models.text_generator import TextGenerator, input_specs


class CausalLM(keras_hub.models.CausalLM):
    """Base of the language models; `CausalLM.from_preset` returns the right one.

    Trains with plain `compile` and `fit`, on a dataset of strings or of prepared records. With
    `loss="auto"` the loss is the mean cross-entropy over all weighted targets of the global batch,
    however many replicas share it; Keras's own losses average per replica, which is wrong when
    the replicas' weights differ.

    Args:
        backbone: A backbone of `tfllm.models`.
        preprocessor: Turns strings into the backbone's inputs; None when only token ids are used.
        seed: Of dropout.

    Call arguments:
        inputs: The backbone's inputs, a dict of int32[b, t].

    Returns:
        Logits, float32[b, t, v].

    Raises:
        UserError: the preprocessor's rows are longer than the backbone takes.
    """

    def __init__(self, backbone, preprocessor=None, seed=0, **kwargs):
        self.backbone = backbone
        self.preprocessor = preprocessor
        inputs = backbone.input
        logits = backbone.token_embedding(backbone(inputs), reverse=True)
        self.seed = seed
        self._text_functions = None
        self._traced_variables = None
        self._mean_loss = keras.metrics.Mean(name="loss")
        self._own_loss = True
        if preprocessor is not None and preprocessor.sequence_length > backbone.max_sequence_length:
            raise UserError(
                f"The preprocessor makes rows of {preprocessor.sequence_length} tokens, the "
                f"backbone takes {backbone.max_sequence_length}: give the preprocessor a smaller "
                "sequence_length."
            )
        super().__init__(inputs=inputs, outputs=logits, **kwargs)

    # Training

    def compile(self, optimizer="auto", loss="auto", *, weighted_metrics=None, **kwargs):
        """As `keras.Model.compile`.

        Args:
            optimizer: "auto" is Adam with a rate of 2e-5, for fine-tuning.
            loss: "auto" is the cross-entropy of the next token, see the class.
            weighted_metrics: Metrics beside the loss; none by default.
            **kwargs: Of `keras.Model.compile`.
        """
        self._own_loss = loss == "auto"
        super().compile(
            optimizer=optimizer,
            loss=None if loss == "auto" else loss,
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
        if isinstance(x, dict):  # prepared records hold token ids already
            return keras.utils.pack_x_y_sample_weight(x, y, sample_weight)
        if self.preprocessor is not None:
            require_language_model_tokenizer(self._tokenizer(), self.backbone.vocabulary_size)
        return super().preprocess_samples(x, y, sample_weight)

    def train_step(self, data):
        with step_scope(self.optimizer.iterations, self.seed):
            if not self._own_loss:
                return super().train_step(data)
            x, y, weight = keras.utils.unpack_x_y_sample_weight(data)
            with tf.GradientTape() as tape:
                logits = self(x, training=True)
                loss = self._token_loss(y, logits, weight)
                scaled = self.optimizer.scale_loss(loss)
            variables = self.trainable_weights
            self.optimizer.apply_gradients(
                zip(tape.gradient(scaled, variables), variables, strict=True)
            )
            return self.compute_metrics(x, y, logits, sample_weight=weight)

    def test_step(self, data):
        if not self._own_loss:
            return super().test_step(data)
        x, y, weight = keras.utils.unpack_x_y_sample_weight(data)
        logits = self(x, training=False)
        self._token_loss(y, logits, weight)
        return self.compute_metrics(x, y, logits, sample_weight=weight)

    def _token_loss(self, y, logits, weight):
        """This replica's share of the loss: the replicas' shares add up to the global mean."""
        losses = tf.nn.sparse_softmax_cross_entropy_with_logits(y, logits)
        weight = tf.ones_like(losses) if weight is None else tf.cast(weight, losses.dtype)
        total, count = tf.reduce_sum(losses * weight), tf.reduce_sum(weight)
        everywhere = [total, count]
        replicas = tf.distribute.get_replica_context()
        if replicas is not None and replicas.num_replicas_in_sync > 1:
            everywhere = replicas.all_reduce(tf.distribute.ReduceOp.SUM, everywhere)
        # The global mean on each replica: Keras logs the plain mean of what the replicas show.
        self._mean_loss.update_state(tf.math.divide_no_nan(*everywhere), everywhere[1])
        return tf.math.divide_no_nan(total, everywhere[1])

    # Decoding

    @property
    def end_token_id(self) -> int:
        """The token that ends a text."""
        return self._tokenizer().eos_id

    def prefill(self, token_ids, lengths, capacity):
        """One pass over prompts: logits float32[b, v] after each row's last token, and a state."""
        hidden, state = self.backbone.prefill(token_ids, lengths, capacity)
        return self.backbone.token_embedding(hidden, reverse=True), state

    def step(self, token_ids, positions, visible, state):
        """One more token per row: logits float32[b, v] after it, and the state."""
        hidden, state = self.backbone.step(token_ids, positions, visible, state)
        return self.backbone.token_embedding(hidden, reverse=True), state

    def _tokenizer(self):
        if self.preprocessor is None:
            raise UserError(
                "This model has no preprocessor, so it cannot read or write text: construct it "
                "with one, or load it with `from_preset`."
            )
        return self.preprocessor.tokenizer

    def text_functions(self):
        """The `tf.function`s behind `generate`, `score`, `tokenize`, `detokenize`, by name."""
        # LoRA brings variables that a graph traced before it does not read.
        variables = [variable.path for variable in self.variables]
        if self._traced_variables != variables:
            text = TextGenerator(self, self._tokenizer())
            self._traced_variables = variables
            # One trace each, for any number of rows.
            self._text_functions = {
                name: tf.function(
                    getattr(text, name), input_signature=input_specs(signature), autograph=False
                )
                for name, signature in contract.GENERATOR_SIGNATURES.items()
                if name != contract.SERVING_DEFAULT
            }
        return self._text_functions

    def _run(self, signature, *inputs):
        outputs = self.text_functions()[signature](*inputs)
        return {name: tensor.numpy() for name, tensor in outputs.items()}

    def generate(
        self,
        prompt: str | Sequence[str],
        *,
        max_new_tokens=64,
        temperature=0.0,
        top_k=0,
        top_p=1.0,
        min_p=0.0,
        repetition_penalty=1.0,
        seed=0,
        stop: Sequence[str] | Sequence[Sequence[str]] = (),
    ) -> contract.Generation | list[contract.Generation]:
        """Continues each prompt; the same graph that an export runs.

        Args:
            prompt: One prompt or several.
            max_new_tokens: New tokens at most.
            temperature: 0 = the best token each time.
            top_k: Sample among the k best tokens; 0 = off.
            top_p: Sample among the fewest tokens that reach this probability; 1 = off.
            min_p: Sample among tokens at least this times as probable as the best; 0 = off.
            repetition_penalty: Divides the scores of tokens seen before; 1 = off.
            seed: Of the sample.
            stop: Up to four strings that end the text.

        Each setting may also be a list, one value per prompt; `stop` a list of lists.

        Returns:
            `Generation`, or a list of them if `prompt` is a list.

        Raises:
            UserError: an input has the wrong type or number.
        """
        prompts = rows.text_rows(prompt, "prompt")
        columns = rows.sampling_columns(
            len(prompts),
            stop=stop,
            max_new_tokens=max_new_tokens,
            temperature=temperature,
            top_k=top_k,
            top_p=top_p,
            min_p=min_p,
            repetition_penalty=repetition_penalty,
            seed=seed,
        )
        if not prompts:
            return []
        settings = (tf.constant(columns[field.name], field.dtype) for field in contract.SAMPLING)
        out = self._run(contract.GENERATE, tf.constant(prompts), *settings)
        generations = rows.answers(contract.Generation, out)
        return generations[0] if isinstance(prompt, str) else generations

    def score(
        self, prompts: str | Sequence[str], completions: str | Sequence[str]
    ) -> contract.Score | list[contract.Score]:
        """How likely each completion is after its prompt.

        Args:
            prompts: One text or several; may be empty.
            completions: As many.

        Returns:
            `Score`, or a list of them if `prompts` is a list.

        Raises:
            UserError: an input has the wrong type or number.
        """
        columns = {
            "prompts": rows.text_rows(prompts, "prompts"),
            "completions": rows.text_rows(completions, "completions"),
        }
        rows.same_number(**columns)
        out = self._run(contract.SCORE, *(tf.constant(c, tf.string) for c in columns.values()))
        scores = rows.answers(contract.Score, out)
        return scores[0] if isinstance(prompts, str) else scores

    def tokenize(self, text: str | Sequence[str]) -> list[int] | list[list[int]]:
        """Token ids of a text or of each of several, without begin and end."""
        texts = tf.constant(rows.text_rows(text, "text"), tf.string)
        out = self._run(contract.TOKENIZE, texts)
        several = [
            ids[:n].tolist() for ids, n in zip(out["token_ids"], out["num_tokens"], strict=True)
        ]
        return several[0] if isinstance(text, str) else several

    def detokenize(self, token_ids: Sequence[int] | Sequence[Sequence[int]]) -> str | list[str]:
        """The text of a list of token ids, or the texts of a list of such lists."""
        several, is_one = rows.token_rows(token_ids)
        out = self._run(contract.DETOKENIZE, tf.constant(several, tf.int32))
        texts = rows.plain(out["text"].tolist())
        return texts[0] if is_one else texts

    # Presets

    def save_to_preset(self, preset_dir, max_shard_size=10):
        """Writes the whole model to a folder, aside first and then renamed.

        Args:
            preset_dir: The folder; an older preset there is replaced.
            max_shard_size: Gigabytes of one file of weights at most.
        """

        def write(aside):
            super(CausalLM, self).save_to_preset(aside, max_shard_size=max_shard_size)
            compute_in_float32(aside)

        save_aside(preset_dir, write)

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
