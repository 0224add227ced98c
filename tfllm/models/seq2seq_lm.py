"""A model that reads a source and writes a target: training, generation, scores, presets."""

import dataclasses

import keras
import keras_hub
import tensorflow as tf

from tfllm.calls import GeneratorCalls
from tfllm.decoding import NewTokens, wanted
from tfllm.errors import UserError
from tfllm.layers import padding_mask
from tfllm.layers.vocabulary_loss import vocabulary_loss
from tfllm.models.generation import GenerationSettings
from tfllm.models.seq2seq_preprocessor import require_seq2seq_tokenizer
from tfllm.models.seq2seq_text_generator import Seq2SeqTextGenerator
from tfllm.models.task import Task


class Writing:
    """The decoder, whoever read its sources.

    Args:
        backbone: A `Seq2SeqBackbone`, or one that can be called alike.
    """

    def __init__(self, backbone):
        self._backbone = backbone

    def grow(self, state, entries, length):
        """As of `tfllm.decoding.Decodable`."""
        return self._backbone.grow(state, entries, length)

    def step(self, new: NewTokens, state):
        """As of `tfllm.decoding.Decodable`."""
        hidden, state = self._backbone.step(new, state)
        return self.logits(wanted(hidden, new)), state

    def logits(self, hidden):
        """float32[..., v] of hidden states float[..., m]."""
        return self._backbone.logits(hidden)


class Reading(Writing):
    """Sources that were read once: what the decode loop steps through.

    A `tfllm.decoding.Decodable` in which all beams of a source look at the same memory.

    Args:
        backbone: A `Seq2SeqBackbone`, or one that can be called alike.
        token_ids: int32[b, s], sources.
        lengths: int32[b], tokens of each.

    Attributes:
        memories: What the decoder's layers look at: a `KVCache` float[b, h, s, d] for each.
    """

    def __init__(self, backbone, token_ids, lengths):
        super().__init__(backbone)
        present = tf.sequence_mask(lengths, tf.shape(token_ids)[1], tf.int32)
        self.memories = backbone.project(backbone.encode(token_ids, present))
        self._mask = padding_mask(present)

    def begin(self, prompt, lengths):
        """As of `tfllm.decoding.Decodable`, of beginnings of targets."""
        return self._backbone.begin(prompt, lengths, self.memories, self._mask)

    def hidden_states(self, token_ids):
        """float[b, t, m], after each of int32[b, t], which begin at position 0."""
        return self._backbone.decode(token_ids, self.memories, self._mask)


class Seq2SeqLM(Task, GeneratorCalls, keras_hub.models.Seq2SeqLM):
    """Base of the encoder–decoder models; `Seq2SeqLM.from_preset` returns the right one.

    Trains with plain `compile` and `fit`, on a dataset of pairs (source, target) of strings. With
    `loss="auto"` the loss is the mean cross-entropy over all weighted targets of the global batch,
    however many replicas share it.

    Args:
        backbone: A `Seq2SeqBackbone`.
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
        if preprocessor is not None:
            length = max(preprocessor.encoder_sequence_length, preprocessor.decoder_sequence_length)
            if length > backbone.max_sequence_length:
                raise UserError(
                    f"The preprocessor makes rows of {length} tokens, the backbone takes "
                    f"{backbone.max_sequence_length}: give the preprocessor a smaller "
                    "encoder_sequence_length or decoder_sequence_length."
                )
        inputs = backbone.input
        logits = backbone.logits(backbone(inputs)["decoder_sequence_output"])
        super().__init__(inputs=inputs, outputs=logits, **kwargs)

    @tf.autograph.experimental.do_not_convert  # it would wrap a UserError in its own
    def preprocess_samples(self, x, y=None, sample_weight=None):
        if isinstance(x, dict) and "encoder_token_ids" in x:  # token ids already
            return keras.utils.pack_x_y_sample_weight(x, y, sample_weight)
        if self.preprocessor is not None:
            require_seq2seq_tokenizer(self._tokenizer(), self.backbone)
        return super().preprocess_samples(x, y, sample_weight)

    def summed_losses(self, x, y, weights, label_smoothing):
        if not self.scores_in_parts():
            return super().summed_losses(x, y, weights, label_smoothing)
        hidden = self.backbone(x, training=True)["decoder_sequence_output"]
        hidden, table, bias = self.backbone.scored_by(hidden)
        return [vocabulary_loss(hidden, table, y, weights, label_smoothing, bias).loss], None

    def text(self, **options):
        return Seq2SeqTextGenerator(self, self._tokenizer(), **options)

    def writing(self) -> Writing:
        """The decoder, for sources that were read before."""
        return Writing(self.backbone)

    def reading(self, token_ids, lengths) -> Reading:
        """Reads int32[b, s] sources, of int32[b] tokens each."""
        return Reading(self.backbone, token_ids, lengths)

    def get_config(self):
        return {**super().get_config(), "generation": dataclasses.asdict(self.generation)}
