"""Marian: the Transformer as it was published, for translation."""

import keras

from tfllm.layers import (
    DecoderBlock,
    Dropout,
    EncoderBlock,
    Normal,
    SinusoidalPositions,
    TokenEmbedding,
    activation_of,
)
from tfllm.models.seq2seq_backbone import Seq2SeqBackbone
from tfllm.models.seq2seq_lm import Seq2SeqLM
from tfllm.models.seq2seq_preprocessor import Seq2SeqLMPreprocessor
from tfllm.models.sizes import require_sizes


@keras.saving.register_keras_serializable("tfllm")
class LogitsBias(keras.layers.Layer):
    """A number per token, added to its logit. Training leaves it as it is.

    Call arguments:
        logits: float32[..., v].

    Returns:
        float32[..., v].
    """

    def build(self, logits_shape):
        self.bias = self.add_weight(
            name="bias", shape=(1, logits_shape[-1]), initializer="zeros", trainable=False
        )
        self.built = True

    def call(self, logits):
        return logits + keras.ops.cast(self.bias[0], logits.dtype)


@keras.saving.register_keras_serializable("tfllm")
class MarianBackbone(Seq2SeqBackbone):
    """Source and target token ids to hidden states, as the models of Marian do.

    Args:
        vocabulary_size: v, of the target.
        num_layers: Blocks of the encoder.
        num_heads: h of the encoder.
        hidden_dim: m.
        intermediate_dim: f of the encoder.
        source_vocabulary_size: Where the source has a table of its own; None means that it shares
            the target's.
        num_decoder_layers: None means `num_layers`.
        num_decoder_heads: None means `num_heads`.
        decoder_intermediate_dim: None means `intermediate_dim`.
        activation: "swish" (or "silu"), "gelu" or "relu".
        tie_embeddings: Whether logits are scored against the target's table.
        scale_embedding: Whether embeddings are multiplied by the square root of m.
        max_sequence_length: Tokens of a source, and of a target, at most.
        dropout: After the embeddings and the sub-layers, in [0, 1).
        attention_dropout: Of the attention weights.
        activation_dropout: Of the f units of the feed-forward.
        dtype: Policy of all layers.
        **kwargs: Of `keras_hub.models.Backbone`.

    Inputs and outputs:
        See `Seq2SeqBackbone`.

    Source:
        Vaswani et al. 2017, section 3, https://arxiv.org/abs/1706.03762; Junczys-Dowmunt et al.
        2018, https://arxiv.org/abs/1804.00344
    """

    def __init__(  # noqa: PLR0913 - the sizes of a model
        self,
        vocabulary_size,
        num_layers,
        num_heads,
        hidden_dim,
        intermediate_dim,
        source_vocabulary_size=None,
        num_decoder_layers=None,
        num_decoder_heads=None,
        decoder_intermediate_dim=None,
        activation="swish",
        tie_embeddings=True,
        scale_embedding=True,
        max_sequence_length=512,
        dropout=0.0,
        attention_dropout=0.0,
        activation_dropout=0.0,
        dtype=None,
        **kwargs,
    ):
        shared = source_vocabulary_size is None
        if num_decoder_layers is None:
            num_decoder_layers = num_layers
        if num_decoder_heads is None:
            num_decoder_heads = num_heads
        if decoder_intermediate_dim is None:
            decoder_intermediate_dim = intermediate_dim
        require_sizes(
            vocabulary_size=vocabulary_size,
            num_layers=num_layers,
            num_heads=num_heads,
            hidden_dim=hidden_dim,
            intermediate_dim=intermediate_dim,
            source_vocabulary_size=vocabulary_size if shared else source_vocabulary_size,
            num_decoder_layers=num_decoder_layers,
            num_decoder_heads=num_decoder_heads,
            decoder_intermediate_dim=decoder_intermediate_dim,
            max_sequence_length=max_sequence_length,
        )

        def embedding(size, tied, name):
            return TokenEmbedding(
                size,
                hidden_dim,
                tied=tied,
                embeddings_initializer=Normal(),
                output_initializer=Normal(),
                dtype=dtype,
                name=name,
            )

        def blocks(kind, number, heads, inner, name, **more):
            return [
                kind(
                    heads,
                    inner,
                    dropout=dropout,
                    attention_dropout=attention_dropout,
                    activation_dropout=activation_dropout,
                    activation=activation_of(activation),
                    norm_first=False,
                    kernel_initializer=Normal(),
                    dtype=dtype,
                    name=f"{name}_{i}",
                    **more,
                )
                for i in range(number)
            ]

        # === Layers ===
        self.token_embedding = embedding(vocabulary_size, tie_embeddings, "token_embedding")
        self.source_embedding = (
            self.token_embedding
            if shared
            else embedding(source_vocabulary_size, True, "source_embedding")
        )
        self.position_embedding = SinusoidalPositions(
            hidden_dim, dtype=dtype, name="position_embedding"
        )
        self.embedding_dropout = Dropout(dropout, dtype=dtype, name="embedding_dropout")
        self.encoder_blocks = blocks(
            EncoderBlock, num_layers, num_heads, intermediate_dim, "encoder_block"
        )
        self.decoder_blocks = blocks(
            DecoderBlock,
            num_decoder_layers,
            num_decoder_heads,
            decoder_intermediate_dim,
            "decoder_block",
            cross_attention=True,
        )
        self.logits_bias = LogitsBias(dtype="float32", name="logits_bias")
        self.logits_bias.build((None, vocabulary_size))
        self._embedding_scale = hidden_dim**0.5 if scale_embedding else 1.0

        # === Functional model ===
        super().__init__(dtype=dtype, **kwargs)

        # === Config ===
        self.vocabulary_size = vocabulary_size
        self.num_layers = num_layers
        self.num_heads = num_heads
        self.hidden_dim = hidden_dim
        self.intermediate_dim = intermediate_dim
        self.shares_vocabulary = shared
        self.source_vocabulary_size = vocabulary_size if shared else source_vocabulary_size
        self.num_decoder_layers = num_decoder_layers
        self.num_decoder_heads = num_decoder_heads
        self.decoder_intermediate_dim = decoder_intermediate_dim
        self.activation = activation
        self.tie_embeddings = tie_embeddings
        self.scale_embedding = scale_embedding
        self.max_sequence_length = max_sequence_length
        self.dropout = dropout
        self.attention_dropout = attention_dropout
        self.activation_dropout = activation_dropout

    def _embed(self, embedding, token_ids, positions):
        x = embedding(token_ids) * self._embedding_scale + self.position_embedding(positions)
        return self.embedding_dropout(x)

    def embed_source(self, token_ids, positions):
        return self._embed(self.source_embedding, token_ids, positions)

    def embed_target(self, token_ids, positions):
        return self._embed(self.token_embedding, token_ids, positions)

    def logits(self, hidden):
        return self.logits_bias(self.token_embedding(hidden, reverse=True))

    def scored_by(self, hidden):
        return *super().scored_by(hidden)[:2], self.logits_bias.bias[0]

    def get_config(self):
        names = (
            "vocabulary_size", "num_layers", "num_heads", "hidden_dim", "intermediate_dim",
            "num_decoder_layers", "num_decoder_heads", "decoder_intermediate_dim", "activation",
            "tie_embeddings", "scale_embedding", "max_sequence_length", "dropout",
            "attention_dropout", "activation_dropout",
        )  # fmt: skip
        return {
            **super().get_config(),
            **{name: getattr(self, name) for name in names},
            "source_vocabulary_size": (
                None if self.shares_vocabulary else self.source_vocabulary_size
            ),
        }


@keras.saving.register_keras_serializable("tfllm")
class MarianSeq2SeqLMPreprocessor(Seq2SeqLMPreprocessor):
    """`Seq2SeqLMPreprocessor` by which KerasHub finds the one for `MarianBackbone`."""

    backbone_cls = MarianBackbone


@keras.saving.register_keras_serializable("tfllm")
class MarianSeq2SeqLM(Seq2SeqLM):
    """A Marian that writes a target after reading a source; see `Seq2SeqLM`."""

    backbone_cls = MarianBackbone
    preprocessor_cls = MarianSeq2SeqLMPreprocessor
