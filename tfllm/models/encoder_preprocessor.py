"""Strings to the inputs of an encoder, in Keras."""

import keras
import keras_hub
import tensorflow as tf

from tfllm.errors import UserError
from tfllm.models.encoder_inputs import encoder_inputs
from tfllm.models.encoders import ENCODERS
from tfllm.tokenizers import Tokenizer
from tfllm.tokenizers.wordpiece import WordPieceTokenizer

_LEAST = 4  # begin, one token, two separators


def require_encoder_tokenizer(tokenizer: Tokenizer, vocabulary_size: int) -> None:
    """Refuses a tokenizer that an encoder of that size cannot use.

    Raises:
        UserError: it has more tokens than the model, or none that begins and ends an input.
    """
    if not isinstance(tokenizer, WordPieceTokenizer):
        raise UserError(f"An encoder needs a WordPieceTokenizer, got a {type(tokenizer).__name__}.")
    if tokenizer.vocabulary_size() > vocabulary_size:
        raise UserError(
            f"The tokenizer has {tokenizer.vocabulary_size()} tokens, more than the model's "
            f"vocabulary_size of {vocabulary_size}."
        )
    if min(tokenizer.cls_id, tokenizer.sep_id) < 0:
        special = tokenizer.special_tokens
        raise UserError(
            f"An encoder's tokenizer needs {special['cls']} and {special['sep']} in its vocabulary."
        )


@keras.saving.register_keras_serializable("tfllm")
class EncoderPreprocessor(keras_hub.models.Preprocessor):
    """One text or a pair of texts per row; cut to one length, the longer of a pair first.

    Args:
        tokenizer: A `WordPieceTokenizer`.
        sequence_length: Tokens of a row at most, special tokens included.
        padding: "longest" pads to a little more than the longest row of a batch, "max_length" to
            `sequence_length`, as a TPU needs it.

    Call arguments:
        x: string[b], texts; or a tuple of two, pairs of texts ("" as the second is none).
        y: Passed on.
        sample_weight: Passed on.

    Returns:
        x: dict of `token_ids`, `segment_ids` and `padding_mask`, each int32[b, t].
        y, sample_weight: As they came.

    Raises:
        UserError: at construction, an argument is none of these.
    """

    backbone_cls = ENCODERS
    tokenizer_cls = WordPieceTokenizer

    def __init__(self, tokenizer, sequence_length=512, padding="longest", **kwargs):
        if sequence_length < _LEAST:
            raise UserError(f"sequence_length must be at least {_LEAST}, got {sequence_length}.")
        if padding not in ("longest", "max_length"):
            raise UserError(f'padding must be "longest" or "max_length", got {padding!r}.')
        super().__init__(**kwargs)
        self.tokenizer = tokenizer
        self.sequence_length = sequence_length
        self.padding = padding
        self.built = True

    def call(self, x, y=None, sample_weight=None):
        first, second = x if isinstance(x, tuple) else (x, None)
        first = tf.convert_to_tensor(first, tf.string)
        second = None if second is None else tf.convert_to_tensor(second, tf.string)
        inputs, _ = encoder_inputs(
            self.tokenizer, first, second, self.sequence_length, self.padding == "longest"
        )
        return keras.utils.pack_x_y_sample_weight(inputs, y, sample_weight)

    def get_config(self):
        return {
            **super().get_config(),
            "sequence_length": self.sequence_length,
            "padding": self.padding,
        }
