"""A language model that predicts the next token: training, generation, scores, presets."""

import dataclasses

import keras_hub
import tensorflow as tf

from tfllm.calls import GeneratorCalls
from tfllm.decoding import NewTokens, wanted
from tfllm.errors import UserError
from tfllm.layers.vocabulary_loss import vocabulary_loss
from tfllm.models.causal_text_generator import CausalTextGenerator
from tfllm.models.generation import GenerationSettings
from tfllm.models.preprocessor import require_language_model_tokenizer
from tfllm.models.task import Task


class CausalLM(Task, GeneratorCalls, keras_hub.models.CausalLM):
    """Base of the language models; `CausalLM.from_preset` returns the right one.

    Trains with plain `compile` and `fit`, on a dataset of strings or of prepared records. With
    `loss="auto"` the loss is the mean cross-entropy over all weighted targets of the global batch,
    however many replicas share it.

    Args:
        backbone: A backbone of `tfllm.models`.
        preprocessor: Turns strings into the backbone's inputs; None when only token ids are used.
        seed: Of dropout.
        generation: `GenerationSettings`, or a dict of them, or None for the plain ones.

    Call arguments:
        inputs: The backbone's inputs, a dict of int32[b, t].

    Returns:
        Logits, float32[b, t, v].

    Raises:
        UserError: the preprocessor's rows are longer than the backbone takes.
    """

    def __init__(self, backbone, preprocessor=None, seed=0, generation=None, **kwargs):
        self._set_up(backbone, preprocessor, seed)
        self.generation = GenerationSettings.of(generation)
        inputs = backbone.input
        logits = backbone.token_embedding(backbone(inputs), reverse=True)
        if preprocessor is not None and preprocessor.sequence_length > backbone.max_sequence_length:
            raise UserError(
                f"The preprocessor makes rows of {preprocessor.sequence_length} tokens, the "
                f"backbone takes {backbone.max_sequence_length}: give the preprocessor a smaller "
                "sequence_length."
            )
        super().__init__(inputs=inputs, outputs=logits, **kwargs)

    @tf.autograph.experimental.do_not_convert
    def preprocess_samples(self, x, y=None, sample_weight=None):
        if self.preprocessor is not None and not isinstance(x, dict):
            require_language_model_tokenizer(self._tokenizer(), self.backbone.vocabulary_size)
        return super().preprocess_samples(x, y, sample_weight)

    def summed_losses(self, x, y, weights, label_smoothing):
        if not self.scores_in_parts():
            return super().summed_losses(x, y, weights, label_smoothing)
        hidden = self.backbone(x, training=True)
        table = self.backbone.token_embedding.output_embeddings
        return [vocabulary_loss(hidden, table, y, weights, label_smoothing).loss], None

    def text(self, **options):
        return CausalTextGenerator(self, self._tokenizer(), **options)

    def begin(self, prompt, lengths):
        """As of `tfllm.decoding.Decodable`."""
        return self.backbone.begin(prompt, lengths)

    def grow(self, state, entries, length):
        """As of `tfllm.decoding.Decodable`."""
        return self.backbone.grow(state, entries, length)

    def step(self, new: NewTokens, state):
        """As of `tfllm.decoding.Decodable`."""
        hidden, state = self.backbone.step(new, state)
        return self.logits(wanted(hidden, new)), state

    def hidden_states(self, token_ids):
        """float[b, t, m], after each of int32[b, t], which begin at position 0."""
        return self.backbone(
            {
                "token_ids": token_ids,
                "segment_ids": tf.ones_like(token_ids),
                "positions": tf.zeros_like(token_ids) + tf.range(tf.shape(token_ids)[1])[None],
            },
            training=False,
        )

    def logits(self, hidden):
        """float32[..., v] of hidden states float[..., m]."""
        return self.backbone.token_embedding(hidden, reverse=True)

    def get_config(self):
        return {**super().get_config(), "generation": dataclasses.asdict(self.generation)}
