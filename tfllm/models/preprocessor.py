"""Strings to the inputs of a language model."""

import keras
import keras_hub
import tensorflow as tf

from tfllm.errors import UserError
from tfllm.tokenizers import Tokenizer


def language_model_inputs() -> dict[str, keras.KerasTensor]:
    """The three inputs of every language model's backbone, each int32[b, t].

    `segment_ids` numbers the documents of a packed row from 1; 0 is padding. `positions` counts
    from 0 in each document.
    """
    return {
        name: keras.Input((None,), dtype="int32", name=name)
        for name in ("token_ids", "segment_ids", "positions")
    }


def require_language_model_tokenizer(tokenizer: Tokenizer, vocabulary_size: int) -> None:
    """Refuses a tokenizer that a language model of that size cannot use.

    Raises:
        UserError: it has more tokens than the model, or no begin or end of a text.
    """
    if tokenizer.vocabulary_size() > vocabulary_size:
        raise UserError(
            f"The tokenizer has {tokenizer.vocabulary_size()} tokens, more than the model's "
            f"vocabulary_size of {vocabulary_size}."
        )
    if min(tokenizer.bos_id, tokenizer.eos_id) < 0:
        raise UserError(
            "A language model's tokenizer needs a begin and an end token, this one has "
            f"bos_id={tokenizer.bos_id}, eos_id={tokenizer.eos_id}."
        )


@keras.saving.register_keras_serializable("tfllm")
class CausalLMPreprocessor(keras_hub.models.CausalLMPreprocessor):
    """One document per row: begin, tokens, end; cut or padded to one length.

    What is longer than `sequence_length` is cut off. To train on whole documents, prepare them
    (`tfllm prepare`) and train on the packed records.

    Args:
        tokenizer: Of `tfllm.tokenizers`.
        sequence_length: t, positions of a row.

    Call arguments:
        x: string[b] or a string, documents.
        y: Not used; the targets are the next tokens.
        sample_weight: float32[b], a weight per document; or None.

    Returns:
        x: dict of `token_ids`, `segment_ids` and `positions`, each int32[b, t].
        y: int32[b, t], the next token.
        sample_weight: float32[b, t], 0 where there is none.
    """

    def __init__(self, tokenizer, sequence_length=256, **kwargs):
        super().__init__(tokenizer=tokenizer, sequence_length=sequence_length, **kwargs)

    def build(self, input_shape):  # noqa: ARG002 - KerasHub's makes a packer that is not used here
        self.built = True

    def call(self, x, y=None, sample_weight=None, sequence_length=None):  # noqa: ARG002
        length = sequence_length or self.sequence_length
        texts = tf.convert_to_tensor(x, tf.string)
        single = texts.shape.rank == 0
        texts = texts[None] if single else texts
        rows = tf.shape(texts)[:1]
        tokenizer = self.tokenizer
        ids = tf.concat(
            [
                tf.fill([rows[0], 1], tokenizer.bos_id),
                tf.cast(tokenizer.tokenize(texts), tf.int32),
                tf.fill([rows[0], 1], tokenizer.eos_id),
            ],
            axis=1,
        )[:, : length + 1]
        present = tf.sequence_mask(ids.row_lengths(), length + 1)  # [b, t + 1]
        ids = ids.to_tensor(tokenizer.padding_id, shape=[None, length + 1])
        weight = tf.cast(present[:, 1:], tf.float32)
        if sample_weight is not None:
            weight *= tf.reshape(tf.cast(sample_weight, tf.float32), [-1, 1])
        x = {
            "token_ids": ids[:, :-1],
            "segment_ids": tf.cast(present[:, :-1], tf.int32),
            "positions": tf.tile(tf.range(length)[None], tf.stack([rows[0], 1])),
        }
        out = (x, ids[:, 1:], weight)
        return tf.nest.map_structure(lambda t: t[0], out) if single else out
