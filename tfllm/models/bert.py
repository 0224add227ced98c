"""BERT: an encoder with learned positions and norms after the sub-layers."""

import keras
import keras_hub

from tfllm.layers import (
    Dropout,
    EncoderBlock,
    LayerNormalization,
    Linear,
    PaddingMask,
    PositionEmbedding,
    Positions,
    TokenEmbedding,
    TruncatedNormal,
    activation_of,
)
from tfllm.models.sizes import require_sizes


@keras.saving.register_keras_serializable("tfllm")
class BertBackbone(keras_hub.models.Backbone):
    """One or two texts to hidden states, each position looking at all others.

    Args:
        vocabulary_size: v.
        num_layers: Number of blocks.
        num_heads: h, divides `hidden_dim`.
        hidden_dim: m.
        intermediate_dim: f.
        max_sequence_length: Positions there are embeddings for.
        num_segments: Kinds of text in one input: the first and the second of a pair.
        dropout: Fraction dropped after the embeddings and after each sub-layer, in [0, 1).
        attention_dropout: Fraction of the attention weights dropped; None means `dropout`.
        activation: Of the feed-forward: "gelu" (the exact one), "gelu_tanh", "relu", "silu", …
        layer_norm_epsilon: Added to the variance.
        has_pooler: Whether there is a `pooled_output`.
        dtype: Policy of all layers.

    Inputs (a dict, each int32[b, t]):
        token_ids: From 0.
        segment_ids: 0 for the first text, 1 for the second.
        padding_mask: 1 for a token, 0 for padding, which nobody looks at.

    Outputs (a dict):
        sequence_output: float[b, t, m].
        pooled_output: float[b, m] in [-1, 1], of the first position.

    Source:
        Devlin et al. 2019, https://arxiv.org/abs/1810.04805; the names are those of KerasHub.
    """

    def __init__(  # noqa: PLR0913
        self,
        vocabulary_size,
        num_layers,
        num_heads,
        hidden_dim,
        intermediate_dim,
        max_sequence_length=512,
        num_segments=2,
        dropout=0.1,
        attention_dropout=None,
        activation="gelu",
        layer_norm_epsilon=1e-12,
        has_pooler=True,
        dtype=None,
        **kwargs,
    ):
        require_sizes(
            vocabulary_size=vocabulary_size,
            num_layers=num_layers,
            num_heads=num_heads,
            hidden_dim=hidden_dim,
            intermediate_dim=intermediate_dim,
            max_sequence_length=max_sequence_length,
            num_segments=num_segments,
        )

        # === Layers ===
        self.token_embedding = TokenEmbedding(
            vocabulary_size,
            hidden_dim,
            embeddings_initializer=bert_initializer(),
            dtype=dtype,
            name="token_embedding",
        )
        self.position_embedding, self.segment_embedding = (
            # A segment is looked up as a position is, by a number from 0.
            PositionEmbedding(
                size, hidden_dim, embeddings_initializer=bert_initializer(), dtype=dtype, name=name
            )
            for size, name in (
                (max_sequence_length, "position_embedding"),
                (num_segments, "segment_embedding"),
            )
        )
        self.embedding_norm = LayerNormalization(
            epsilon=layer_norm_epsilon, dtype=dtype, name="embedding_norm"
        )
        self.embedding_dropout = Dropout(dropout, dtype=dtype, name="embedding_dropout")
        self.blocks = [
            EncoderBlock(
                num_heads,
                intermediate_dim,
                dropout=dropout,
                attention_dropout=attention_dropout,
                activation=activation_of(activation),
                norm_first=False,
                layer_norm_epsilon=layer_norm_epsilon,
                kernel_initializer=bert_initializer(),
                dtype=dtype,
                name=f"block_{i}",
            )
            for i in range(num_layers)
        ]
        self.pooler = pooler(hidden_dim, dtype) if has_pooler else None

        # === Functional model ===
        inputs = {
            name: keras.Input((None,), dtype="int32", name=name)
            for name in ("token_ids", "segment_ids", "padding_mask")
        }
        token_ids = inputs["token_ids"]
        x = (
            self.token_embedding(token_ids)
            + self.segment_embedding(inputs["segment_ids"])
            + self.position_embedding(Positions(name="positions")(token_ids))
        )
        x = self.embedding_dropout(self.embedding_norm(x))
        mask = PaddingMask(name="mask")(inputs["padding_mask"])
        for block in self.blocks:
            x = block(x, mask)
        outputs = {"sequence_output": x}
        if has_pooler:
            outputs["pooled_output"] = self.pooler(self.summary(x, inputs["padding_mask"]))
        super().__init__(inputs=inputs, outputs=outputs, dtype=dtype, **kwargs)

        # === Config ===
        self.vocabulary_size = vocabulary_size
        self.num_layers = num_layers
        self.num_heads = num_heads
        self.hidden_dim = hidden_dim
        self.intermediate_dim = intermediate_dim
        self.max_sequence_length = max_sequence_length
        self.num_segments = num_segments
        self.dropout = dropout
        self.attention_dropout = attention_dropout
        self.activation = activation
        self.layer_norm_epsilon = layer_norm_epsilon
        self.has_pooler = has_pooler

    def summary(self, sequence_output, padding_mask):  # noqa: ARG002
        """float[b, m], what a pooler reads of float[b, t, m]: the first position."""
        return sequence_output[:, 0]

    def get_config(self):
        return {
            **super().get_config(),
            "vocabulary_size": self.vocabulary_size,
            "num_layers": self.num_layers,
            "num_heads": self.num_heads,
            "hidden_dim": self.hidden_dim,
            "intermediate_dim": self.intermediate_dim,
            "max_sequence_length": self.max_sequence_length,
            "num_segments": self.num_segments,
            "dropout": self.dropout,
            "attention_dropout": self.attention_dropout,
            "activation": self.activation,
            "layer_norm_epsilon": self.layer_norm_epsilon,
            "has_pooler": self.has_pooler,
        }


def bert_initializer() -> keras.initializers.Initializer:
    """What all matrices of BERT begin with."""
    return TruncatedNormal()


def pooler(hidden_dim: int, dtype=None) -> Linear:
    """The layer that makes `pooled_output` of the first position's hidden state."""
    return Linear(
        hidden_dim,
        activation="tanh",
        kernel_initializer=bert_initializer(),
        dtype=dtype,
        name="pooler",
    )
