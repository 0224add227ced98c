"""The signatures of a model that guesses masked tokens."""

import tensorflow as tf

from tfllm import contract
from tfllm.errors import UserError
from tfllm.models.encoder_task import EncoderText
from tfllm.models.text_functions import first_error

_TOP_K = 5


class MaskedLMText(EncoderText):
    """The signatures of `contract.MASKED_LM_SIGNATURES`.

    Args:
        model: A `MaskedLM`.
        tokenizer: A `WordPieceTokenizer` with a mask.
        top_k: Tokens in an answer.

    Raises:
        UserError: there is no mask, or `top_k` is no number of tokens.
    """

    task = "masked_lm"
    signatures = contract.MASKED_LM_SIGNATURES

    def __init__(self, model, tokenizer, top_k: int = _TOP_K):
        super().__init__(model, tokenizer)
        if tokenizer.mask_id < 0:
            raise UserError(
                f"The tokenizer of a masked language model needs {tokenizer.special_tokens['mask']}"
                " in its vocabulary."
            )
        most = model.backbone.vocabulary_size
        if not 1 <= top_k <= most:
            raise UserError(f"top_k must be from 1 to {most}, the model's tokens; got {top_k}.")
        self.top_k = top_k

    def fill_mask(self, text):
        """See `contract.SIGNATURES`."""
        inputs, error = self.read(text)
        token_ids = inputs["token_ids"]
        is_mask = token_ids == self.tokenizer.mask_id
        place = tf.argmax(is_mask, -1, output_type=tf.int32)
        score, found = self.in_groups(
            {**inputs, "mask_positions": place[:, None]},
            self._guesses,
            [tf.TensorSpec([self.top_k], dtype) for dtype in (tf.float32, tf.int32)],
        )
        error = first_error([(error != "", error), (~tf.reduce_any(is_mask, -1), self._no_mask())])
        fine = (error == "")[:, None]
        return {
            "token": tf.where(fine, tf.gather(self._tokens(), found), ""),
            "score": tf.where(fine, score, 0.0),
            "text": tf.where(fine, self._filled(inputs, is_mask, place, found), ""),
            "error": error,
        }

    def _guesses(self, inputs):
        """The best tokens for one mask of each row: float32[n, k] and int32[n, k]."""
        logits = self.model(inputs, training=False)[:, 0]
        return tf.math.top_k(tf.nn.softmax(logits), self.top_k)

    def _no_mask(self) -> str:
        return (
            f"the text has no {self.tokenizer.special_tokens['mask']} in its first "
            f"{self.sequence_length - 2} tokens"
        )

    def _tokens(self):
        tokens = self.tokenizer.get_vocabulary()
        # A table may have more rows than there are tokens (a multiple of 64, say).
        unused = self.model.backbone.vocabulary_size - len(tokens)
        return tf.constant([*tokens, *[""] * unused])

    def _filled(self, inputs, is_mask, place, found):
        """string[b, k]: texts with each of int32[b, k] tokens at int32[b] place."""
        num_masks = tf.reduce_sum(tf.cast(is_mask, tf.int32), -1)
        shown = tf.where(inputs["padding_mask"] == 1, inputs["token_ids"], contract.PADDING)
        here = tf.one_hot(place, tf.shape(shown)[1], True, False, dtype=tf.bool)[:, None]
        filled = tf.where(here, found[:, :, None], shown[:, None])  # [b, k, t]
        flat = tf.reshape(filled, [-1, tf.shape(shown)[1]])
        # As transformers: all special tokens are shown where they are wanted, the other masks.
        texts = tf.where(
            tf.repeat(num_masks == 1, self.top_k),
            self.tokenizer.detokenize(flat),
            self.tokenizer.detokenize(flat, skip_special_tokens=False),
        )
        return tf.reshape(texts, tf.shape(found))

    def some_texts(self):
        mask_token = self.tokenizer.special_tokens["mask"]
        some = self.some_text()
        return ["", mask_token, f"{some} {mask_token} {some} {mask_token}", some]

    def metadata(self):
        return {**super().metadata(), "top_k": self.top_k}
