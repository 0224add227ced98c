"""Pairs of strings to the inputs of an encoder–decoder model."""

import keras
import keras_hub
import tensorflow as tf

from tfllm.errors import UserError


def require_seq2seq_tokenizer(tokenizer, backbone) -> None:
    """Refuses a tokenizer that an encoder–decoder model cannot use.

    Raises:
        UserError: it has more tokens than the model, or no end of a text.
    """
    for side, size, most in (
        ("source", tokenizer.source_vocabulary_size(), backbone.source_vocabulary_size),
        ("target", tokenizer.vocabulary_size(), backbone.vocabulary_size),
    ):
        if size > most:
            raise UserError(
                f"The tokenizer has {size} {side} tokens, more than the model's {most}."
            )
    if tokenizer.eos_id < 0:
        raise UserError(
            "The tokenizer of an encoder–decoder model needs an end token, this one has "
            f"eos_id={tokenizer.eos_id}."
        )


@keras.saving.register_keras_serializable("tfllm")
class Seq2SeqLMPreprocessor(keras_hub.models.Seq2SeqLMPreprocessor):
    """A source and its target per row, each with an end; cut or padded to one length.

    Args:
        tokenizer: Of `tfllm.tokenizers`.
        encoder_sequence_length: s, tokens of a source.
        decoder_sequence_length: t, tokens of a target.
        decoder_start_token_id: What the decoder reads first; None means the tokenizer's padding.

    Call arguments:
        x: string[b] or a string, sources. Or a dict of `encoder_text` and `decoder_text`.
        y: Targets, as many; None with a dict.
        sample_weight: float32[b], a weight per pair; or None.

    Returns:
        x: dict of `encoder_token_ids` and `encoder_padding_mask`, int32[b, s], and of
            `decoder_token_ids` and `decoder_padding_mask`, int32[b, t].
        y: int32[b, t], the next token.
        sample_weight: float32[b, t], 0 where there is none.

    Raises:
        UserError: there are no targets.
    """

    def __init__(
        self,
        tokenizer,
        encoder_sequence_length=256,
        decoder_sequence_length=256,
        decoder_start_token_id=None,
        **kwargs,
    ):
        super().__init__(
            tokenizer=tokenizer,
            encoder_sequence_length=encoder_sequence_length,
            decoder_sequence_length=decoder_sequence_length,
            **kwargs,
        )
        self.decoder_start_token_id = decoder_start_token_id

    def build(self, input_shape):  # noqa: ARG002 - KerasHub's makes packers that are not used here
        self.built = True

    @property
    def start_id(self) -> int:
        """What the decoder reads first."""
        start = self.decoder_start_token_id
        return self.tokenizer.padding_id if start is None else start

    def call(self, x, y=None, sample_weight=None):
        if isinstance(x, dict):
            x, y = x["encoder_text"], x["decoder_text"]
        if y is None:
            raise UserError("An encoder–decoder model is trained on pairs (source, target).")
        source, target = (tf.convert_to_tensor(texts, tf.string) for texts in (x, y))
        single = source.shape.rank == 0
        source, target = (texts[None] if single else texts for texts in (source, target))
        source_ids, source_present = self._rows(
            self.source_ids(source, self.encoder_sequence_length), self.encoder_sequence_length
        )
        wanted, present = self._rows(
            self.target_ids(target, self.decoder_sequence_length), self.decoder_sequence_length
        )
        start = tf.fill([tf.shape(wanted)[0], 1], self.start_id)
        weight = tf.cast(present, tf.float32)
        if sample_weight is not None:
            weight *= tf.reshape(tf.cast(sample_weight, tf.float32), [-1, 1])
        inputs = {
            "encoder_token_ids": source_ids,
            "encoder_padding_mask": tf.cast(source_present, tf.int32),
            "decoder_token_ids": tf.concat([start, wanted[:, :-1]], 1),
            "decoder_padding_mask": tf.cast(present, tf.int32),
        }
        out = (inputs, wanted, weight)
        return tf.nest.map_structure(lambda t: t[0], out) if single else out

    def source_ids(self, texts, most: int | None = None) -> tf.RaggedTensor:
        """int32[b, None], string[b] as the encoder reads it: cut to `most` tokens with the end."""
        return self._with_end(self.tokenizer.tokenize(texts), most)

    def target_ids(self, texts, most: int | None = None) -> tf.RaggedTensor:
        """int32[b, None], string[b] as the decoder writes it: cut to `most` tokens with the end."""
        return self._with_end(self.tokenizer.tokenize_target(texts), most)

    def _with_end(self, ids, most):
        ids = tf.cast(ids, tf.int32)
        ids = ids if most is None else ids[:, : most - 1]
        return tf.concat([ids, tf.fill([ids.nrows(tf.int32), 1], self.tokenizer.eos_id)], 1)

    def _rows(self, ids, length):
        padded = ids.to_tensor(self.tokenizer.padding_id, shape=[None, length])
        return padded, tf.sequence_mask(ids.row_lengths(), length)

    def get_config(self):
        return {
            **super().get_config(),
            "encoder_sequence_length": self.encoder_sequence_length,
            "decoder_sequence_length": self.decoder_sequence_length,
            "decoder_start_token_id": self.decoder_start_token_id,
        }
