"""A language model that guesses masked tokens."""

import keras
import keras_hub
import tensorflow as tf

from tfllm import contract
from tfllm.calls import MaskedLMCalls
from tfllm.errors import UserError
from tfllm.layers import Linear, activation_of, step_scope, uniform_of_step
from tfllm.models.bert import bert_initializer
from tfllm.models.encoder_inputs import encoder_inputs
from tfllm.models.encoder_task import EncoderTask, EncoderText
from tfllm.models.masking import Masking, mask, unmask
from tfllm.models.text_functions import first_error

_SALT = 0x3A5C  # masks are not drawn with the numbers of dropout
_TOP_K = 5
_OF_BERT = Masking()


@keras.saving.register_keras_serializable("tfllm")
class MaskedLMHead(keras.layers.Layer):
    """What stands between the hidden states and the scoring against the embeddings.

    Args:
        activation: As of the backbone.
        layer_norm_epsilon: Added to the variance.

    Call arguments:
        hidden: float[b, t, m].
        positions: int32[b, p], the places that are guessed.

    Returns:
        float[b, p, m].
    """

    def __init__(self, activation="gelu", layer_norm_epsilon=1e-12, **kwargs):
        super().__init__(**kwargs)
        self.activation = activation
        self.layer_norm_epsilon = layer_norm_epsilon

    def build(self, hidden_shape, positions_shape=None):  # noqa: ARG002
        self.dense = Linear(
            hidden_shape[-1],
            activation=activation_of(self.activation),
            kernel_initializer=bert_initializer(),
            dtype=self.dtype_policy,
            name="dense",
        )
        self.norm = keras.layers.LayerNormalization(
            epsilon=self.layer_norm_epsilon, dtype=self.dtype_policy, name="norm"
        )
        self.dense.build(hidden_shape)
        self.norm.build(hidden_shape)
        self.built = True

    def call(self, hidden, positions):
        return self.norm(self.dense(tf.gather(hidden, positions, batch_dims=1)))

    def get_config(self):
        return {
            **super().get_config(),
            "activation": self.activation,
            "layer_norm_epsilon": self.layer_norm_epsilon,
        }


@keras.saving.register_keras_serializable("tfllm")
class OutputBias(keras.layers.Layer):
    """A number for each token, added to its logits float32[..., v]."""

    def build(self, shape):
        self.bias = self.add_weight(name="bias", shape=shape[-1:], initializer="zeros")
        self.built = True

    def call(self, logits):
        return logits + tf.cast(self.bias, logits.dtype)


@keras.saving.register_keras_serializable("tfllm")
class MaskedLM(EncoderTask, MaskedLMCalls, keras_hub.models.MaskedLM):
    """Guesses what stands behind a mask.

    Trains with plain `compile` and `fit`, on a dataset of strings or of pairs of them. A part of
    the tokens is masked anew at each step; with `loss="auto"` the loss is the mean cross-entropy
    over all masked tokens of the global batch.

    Args:
        backbone: A `BertBackbone`.
        preprocessor: An `EncoderPreprocessor`; None when only token ids are used.
        next_sentence: Whether there is a head that says if a text follows another one.
        masking: `Masking`, or a dict of it; None to train on batches that are masked already,
            with `mask_positions`, their targets and weights.
        seed: Of dropout and of the masks.

    Call arguments:
        inputs: The backbone's inputs, and `mask_positions` int32[b, p], the places to guess.

    Returns:
        Logits, float32[b, p, v].

    Raises:
        UserError: there is no `pooled_output` to judge the next sentence by.

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
        inputs = {
            **backbone.input,
            "mask_positions": keras.Input((None,), dtype="int32", name="mask_positions"),
        }
        hidden = backbone(backbone.input)
        guessed = self.head(hidden["sequence_output"], inputs["mask_positions"])
        logits = self.output_bias(backbone.token_embedding(guessed, reverse=True))
        if next_sentence:
            self.next_sentence_head.build((None, backbone.hidden_dim))
        super().__init__(inputs=inputs, outputs=logits, **kwargs)

    @tf.autograph.experimental.do_not_convert
    def preprocess_samples(self, x, y=None, sample_weight=None):
        data = super().preprocess_samples(x, y, sample_weight)
        x, *_ = keras.utils.unpack_x_y_sample_weight(data)
        if self.masking is None or "mask_positions" in x:
            return data
        # The same masks each time: those of an evaluation. A training step draws its own.
        numbers = tf.random.stateless_uniform
        x, y, masked = mask(
            x, self._tokenizer(), self.masking, lambda shape, n: numbers(shape, (self.seed, n))
        )
        return x, y, _weighted(masked, sample_weight)

    def train_step(self, data):
        return super().train_step(data if self.masking is None else self._masked_anew(data))

    def _masked_anew(self, data):
        x, y, weight = keras.utils.unpack_x_y_sample_weight(data)
        x = {**x, "token_ids": unmask(x["token_ids"], x["mask_positions"], y)}
        with step_scope(self.optimizer.iterations, self.seed + _SALT):
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
        logits = self.model({**inputs, "mask_positions": place[:, None]}, training=False)[:, 0]
        best = tf.math.top_k(tf.nn.softmax(logits), self.top_k)
        error = first_error([(error != "", error), (~tf.reduce_any(is_mask, -1), self._no_mask())])
        fine = (error == "")[:, None]
        return {
            "token": tf.where(fine, tf.gather(self._tokens(), best.indices), ""),
            "score": tf.where(fine, best.values, 0.0),
            "text": tf.where(fine, self._filled(inputs, is_mask, place, best.indices), ""),
            "error": error,
        }

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
