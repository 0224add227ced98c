"""A language model that guesses masked tokens."""

import json
from pathlib import Path

import keras
import keras_hub
import tensorflow as tf

from tfllm.calls import MaskedLMCalls
from tfllm.errors import UserError
from tfllm.layers import Linear, step_scope, uniform_of_step
from tfllm.layers.vocabulary_loss import vocabulary_loss
from tfllm.models.bert import bert_initializer
from tfllm.models.distributed_fit import place_of_rows
from tfllm.models.encoder_inputs import encoder_inputs
from tfllm.models.encoder_task import EncoderTask
from tfllm.models.masked_lm_head import MaskedLMHead, OutputBias, Perplexity
from tfllm.models.masked_lm_text import MaskedLMText
from tfllm.models.microbatches import num_rows
from tfllm.models.task import cross_entropy
from tfllm.tokenizers.masking import Masking, mask

_SALT = 0x3A5C  # masks are not drawn with the numbers of dropout
_OF_BERT = Masking()
# Beside the inputs of a batch that was masked here: its tokens before that.
_BEFORE = "token_ids_before"


@keras.saving.register_keras_serializable("tfllm")
class MaskedLM(EncoderTask, MaskedLMCalls, keras_hub.models.MaskedLM):
    """Guesses what stands behind a mask.

    Trains with plain `compile` and `fit`, on a dataset of strings or of pairs of them, of which a
    part of the tokens is masked anew at each step; or on batches that are masked already, with
    `mask_positions`, their targets and weights. With `loss="auto"` the loss is the mean
    cross-entropy over all masked tokens of the global batch.

    Targets and weights may be dicts of `tokens`, int32[b, p] and float32[b, p], and of `pair`,
    int32[b] and float32[b]: whether the second text follows the first one (0) or not (1). Then the
    mean cross-entropy of these is added. `fit` and `evaluate` show `masked_accuracy` and
    `masked_perplexity`, the exponential of the loss of the tokens alone, and `pair_accuracy`.

    Args:
        backbone: A `BertBackbone` or `LSTMEncoderBackbone`.
        preprocessor: An `EncoderPreprocessor`; None when only token ids are used.
        next_sentence: Whether there is a head that says if a text follows another one.
        masking: `Masking` of strings, or a dict of it; None to take masked batches alone.
        seed: Of dropout and of the masks.

    Call arguments:
        inputs: The backbone's inputs, and `mask_positions` int32[b, p], the places to guess.

    Returns:
        Logits, float32[b, p, v].

    Raises:
        UserError: there is no `pooled_output` to judge the next sentence by; in training, there
            are targets of pairs and no head for them.

    Source:
        Devlin et al. 2019, https://arxiv.org/abs/1810.04805; BertForPreTraining of `transformers`.
    """

    def __init__(
        self,
        backbone,
        preprocessor=None,
        next_sentence=False,
        masking=_OF_BERT,
        seed=0,
        **kwargs,
    ):
        if next_sentence and not backbone.has_pooler:
            raise UserError("next_sentence needs a backbone with has_pooler=True.")
        self._set_up(backbone, preprocessor, seed)
        self.masking = None if masking is None else Masking.of(masking)
        dtype = backbone.dtype_policy
        self.head = MaskedLMHead(
            backbone.activation, backbone.layer_norm_epsilon, dtype=dtype, name="head"
        )
        self.output_bias = OutputBias(dtype=dtype, name="output_bias")
        self.next_sentence_head = (
            Linear(2, kernel_initializer=bert_initializer(), dtype=dtype, name="next_sentence_head")
            if next_sentence
            else None
        )
        self.masked_perplexity = Perplexity(name="masked_perplexity")
        self.masked_accuracy = keras.metrics.Mean(name="masked_accuracy")
        self.pair_accuracy = keras.metrics.Mean(name="pair_accuracy") if next_sentence else None
        inputs = {
            **backbone.input,
            "mask_positions": keras.Input((None,), dtype="int32", name="mask_positions"),
        }
        hidden = backbone(backbone.input)
        logits = self._guesses(hidden, inputs["mask_positions"])
        if next_sentence:
            self.next_sentence_head.build((None, backbone.hidden_dim))
        super().__init__(inputs=inputs, outputs=logits, **kwargs)

    def _guesses(self, hidden, positions):
        """float32[b, p, v], logits of the tokens at int32[b, p]."""
        guessed = self.head(hidden["sequence_output"], positions)
        return self.output_bias(self.backbone.token_embedding(guessed, reverse=True))

    @tf.autograph.experimental.do_not_convert
    def preprocess_samples(self, x, y=None, sample_weight=None):
        data = super().preprocess_samples(x, y, sample_weight)
        x, *_ = keras.utils.unpack_x_y_sample_weight(data)
        if self.masking is None or "mask_positions" in x:
            return data
        # The same masks each time: those of an evaluation. A training step draws its own.
        numbers = tf.random.stateless_uniform
        masked, y, is_guessed = mask(
            x, self._tokenizer(), self.masking, lambda shape, n: numbers(shape, (self.seed, n))
        )
        return masked | {_BEFORE: x["token_ids"]}, y, _weighted(is_guessed, sample_weight)

    def call(self, inputs, training=None, **kwargs):
        inputs = {name: inputs[name] for name in self.input}
        return super().call(inputs, training=training, **kwargs)

    def outputs_of(self, x, y, training):
        if not isinstance(y, dict):
            return super().outputs_of(x, y, training)
        hidden = self._hidden_of(x, y, training)
        return {
            "tokens": self._guesses(hidden, x["mask_positions"]),
            "pair": self._pair_logits(hidden),
        }

    def _hidden_of(self, x, y, training):
        if isinstance(y, dict) and self.next_sentence_head is None:
            raise UserError(
                "The batches have pairs to judge, and this model was made with next_sentence=False."
            )
        return self.backbone({name: x[name] for name in self.backbone.input}, training=training)

    def _pair_logits(self, hidden):
        return tf.cast(self.next_sentence_head(hidden["pooled_output"]), tf.float32)

    def target_weights(self, y, weight):
        if not isinstance(y, dict):
            return super().target_weights(y, weight)
        weight = dict.fromkeys(y) if weight is None else weight
        return {name: super(MaskedLM, self).target_weights(y[name], weight[name]) for name in y}

    def target_losses(self, y, outputs, label_smoothing=0.0):
        if not isinstance(y, dict):
            return super().target_losses(y, outputs, label_smoothing)
        return {name: cross_entropy(y[name], outputs[name], label_smoothing) for name in y}

    def summed_losses(self, x, y, weights, label_smoothing):
        if not self.scores_in_parts():
            return super().summed_losses(x, y, weights, label_smoothing)
        hidden = self._hidden_of(x, y, training=True)
        tokens, of_tokens = (
            (y["tokens"], weights["tokens"]) if isinstance(y, dict) else (y, weights)
        )
        scored = vocabulary_loss(
            self.head(hidden["sequence_output"], x["mask_positions"]),
            self.backbone.token_embedding.output_embeddings,
            tokens,
            of_tokens,
            label_smoothing,
            self.output_bias.bias,
        )
        self._count_tokens(scored.is_best, scored.cross_entropies, of_tokens)
        if not isinstance(y, dict):
            return [scored.loss], None
        logits = self._pair_logits(hidden)
        self._count_pairs(y, logits, weights)
        losses = cross_entropy(y["pair"], logits, label_smoothing)
        sums = {"tokens": scored.loss, "pair": tf.reduce_sum(losses * weights["pair"])}
        return tf.nest.flatten(sums), None  # in the order of their names

    def compute_metrics(self, x, y, y_pred, sample_weight=None):
        tokens, logits, weights = y, y_pred, self.target_weights(y, sample_weight)
        if isinstance(y, dict):
            self._count_pairs(y, y_pred["pair"], weights)
            tokens, logits, weights = y["tokens"], y_pred["tokens"], weights["tokens"]
        self._count_tokens(_is_best(tokens, logits), cross_entropy(tokens, logits), weights)
        return super().compute_metrics(x, y, y_pred, sample_weight)

    def _count_tokens(self, is_best, cross_entropies, weights):
        self.masked_accuracy.update_state(is_best, weights)
        self.masked_perplexity.update_state(cross_entropies, weights)

    def _count_pairs(self, y, logits, weights):
        self.pair_accuracy.update_state(_is_best(y["pair"], logits), weights["pair"])

    def train_step(self, data):
        return self._shown(super().train_step(self._masked_anew(data)), data)

    def test_step(self, data):
        return self._shown(super().test_step(data), data)

    def _shown(self, logs, data):
        """What is shown of a step: of pairs only where there were any."""
        _, y, _ = keras.utils.unpack_x_y_sample_weight(data)
        if not isinstance(y, dict):
            logs.pop("pair_accuracy", None)
        return logs

    def _masked_anew(self, data):
        """A batch of strings with the masks of this step; another batch as it is."""
        x, _, weight = keras.utils.unpack_x_y_sample_weight(data)
        if _BEFORE not in x:
            return data
        x = {**x, "token_ids": x[_BEFORE]}
        rows = num_rows((x, weight))
        first_row, _ = place_of_rows(rows)
        with step_scope(self.optimizer.iterations, self.seed + _SALT, (first_row, rows)):
            x, y, masked = mask(
                x, self._tokenizer(), self.masking, lambda shape, _: uniform_of_step(shape)
            )
        return x, y, _weighted(masked, tf.reduce_max(weight, -1))

    def next_sentence(self, first, second):
        """How probable it is that a text follows another one.

        Args:
            first: A str or a list of them.
            second: As many.

        Returns:
            A probability, or an array float32[b] of them.

        Raises:
            UserError: the model has no head for it.
        """
        if self.next_sentence_head is None:
            raise UserError(
                "This model does not judge the next sentence: it was made with next_sentence=False."
            )
        inputs, _ = encoder_inputs(
            self._tokenizer(),
            tf.reshape(tf.constant(first), [-1]),
            tf.reshape(tf.constant(second), [-1]),
            self.preprocessor.sequence_length,
        )
        pooled = self.backbone(inputs, training=False)["pooled_output"]
        follows = tf.nn.softmax(tf.cast(self.next_sentence_head(pooled), tf.float32))[:, 0].numpy()
        return float(follows[0]) if isinstance(first, str) else follows

    def load_task_weights(self, filepath):
        """As `Task.load_task_weights`; a preset that judges no pairs leaves that head a new one."""
        config = Path(filepath).parent / "task.json"
        if self.next_sentence_head is None or not config.exists():
            super().load_task_weights(filepath)
            return
        judges = json.loads(config.read_text(encoding="utf-8"))["config"].get("next_sentence")
        skipped = [] if judges else [self.next_sentence_head]
        keras.saving.load_weights(
            self, filepath, objects_to_skip=[*self._not_of_the_task(), *skipped]
        )

    def text(self, **options):
        return MaskedLMText(self, self._tokenizer(), **options)

    def get_config(self):
        return {
            **super().get_config(),
            "next_sentence": self.next_sentence_head is not None,
            "masking": None if self.masking is None else self.masking._asdict(),
        }


def _weighted(masked, weight):
    """float32[b, p], by the weights of the rows if there are any."""
    return masked if weight is None else masked * tf.cast(weight, masked.dtype)[:, None]


def _is_best(targets, logits):
    """float32[...], whether each of int32[...] is the likeliest of float32[..., c]."""
    return tf.cast(tf.argmax(logits, -1, output_type=targets.dtype) == targets, tf.float32)
