"""The recurrent baseline of the encoders: Embedding, LSTMs in both directions."""

import keras
import keras_hub

from tfllm.errors import UserError
from tfllm.layers import (
    BidirectionalLSTM,
    Dropout,
    Linear,
    Normal,
    PositionEmbedding,
    TokenEmbedding,
)
from tfllm.models.pooling import Pooling
from tfllm.models.sizes import require_sizes


@keras.saving.register_keras_serializable("tfllm")
class LSTMEncoderBackbone(keras_hub.models.Backbone):
    """One or two texts to hidden states, each position knowing what stands before and behind it.

    It takes the place of a `BertBackbone` in every task.

    Args:
        vocabulary_size: v.
        num_layers: Number of layers, each of two LSTMs.
        hidden_dim: m, even: the width of embeddings and of both directions together.
        max_sequence_length: Tokens of an input at most. The LSTM itself has no limit; a server
            needs one.
        num_segments: Kinds of text in one input: the first and the second of a pair.
        dropout: Fraction dropped after the embeddings, between the layers and after the last, in
            [0, 1).
        activation: Of the head of a `MaskedLM`.
        layer_norm_epsilon: Added to the variance there.
        has_pooler: Whether there is a `pooled_output`.
        dtype: Policy of all layers.

    Inputs (a dict, each int32[b, t]):
        token_ids: From 0.
        segment_ids: 0 for the first text, 1 for the second.
        padding_mask: 1 for a token, 0 for padding, of which no token knows.

    Outputs (a dict):
        sequence_output: float[b, t, m].
        pooled_output: float[b, m] in [-1, 1], of each unit's largest value in the row.

    Raises:
        UserError: a size is none, or `hidden_dim` is odd.

    Source:
        Conneau et al. 2017, section 3.2, https://arxiv.org/abs/1705.02364: of seven encoders of
        sentences a bidirectional LSTM with max pooling served other tasks best.
    """

    def __init__(
        self,
        vocabulary_size,
        num_layers,
        hidden_dim,
        max_sequence_length=512,
        num_segments=2,
        dropout=0.1,
        activation="gelu",
        layer_norm_epsilon=1e-12,
        has_pooler=True,
        dtype=None,
        **kwargs,
    ):
        require_sizes(
            vocabulary_size=vocabulary_size,
            num_layers=num_layers,
            hidden_dim=hidden_dim,
            max_sequence_length=max_sequence_length,
            num_segments=num_segments,
        )
        require_even(hidden_dim)

        # === Layers ===
        self.token_embedding = TokenEmbedding(
            vocabulary_size,
            hidden_dim,
            embeddings_initializer=Normal(0.05),
            dtype=dtype,
            name="token_embedding",
        )
        self.segment_embedding = PositionEmbedding(  # looked up as a position is, by a number
            num_segments,
            hidden_dim,
            embeddings_initializer=Normal(0.05),
            dtype=dtype,
            name="segment_embedding",
        )
        self.embedding_dropout = Dropout(dropout, dtype=dtype, name="embedding_dropout")
        self.lstm = BidirectionalLSTM(
            num_layers, hidden_dim, dropout=dropout, dtype=dtype, name="lstm"
        )
        self.output_dropout = Dropout(dropout, dtype=dtype, name="output_dropout")
        self.pooling = Pooling("max", name="pooling")
        self.pooler = (
            Linear(hidden_dim, activation="tanh", dtype=dtype, name="pooler")
            if has_pooler
            else None
        )

        # === Functional model ===
        inputs = {
            name: keras.Input((None,), dtype="int32", name=name)
            for name in ("token_ids", "segment_ids", "padding_mask")
        }
        x = self.embedding_dropout(
            self.token_embedding(inputs["token_ids"])
            + self.segment_embedding(inputs["segment_ids"])
        )
        x = self.output_dropout(self.lstm(x, inputs["padding_mask"]))
        outputs = {"sequence_output": x}
        if has_pooler:
            outputs["pooled_output"] = self.pooler(self.summary(x, inputs["padding_mask"]))
        super().__init__(inputs=inputs, outputs=outputs, dtype=dtype, **kwargs)

        # === Config ===
        self.vocabulary_size = vocabulary_size
        self.num_layers = num_layers
        self.hidden_dim = hidden_dim
        self.max_sequence_length = max_sequence_length
        self.num_segments = num_segments
        self.dropout = dropout
        self.activation = activation
        self.layer_norm_epsilon = layer_norm_epsilon
        self.has_pooler = has_pooler

    def summary(self, sequence_output, padding_mask):
        """float[b, m], what a pooler reads of float[b, t, m]; the mask is int32[b, t]."""
        return self.pooling(sequence_output, padding_mask)

    def get_config(self):
        return {
            **super().get_config(),
            "vocabulary_size": self.vocabulary_size,
            "num_layers": self.num_layers,
            "hidden_dim": self.hidden_dim,
            "max_sequence_length": self.max_sequence_length,
            "num_segments": self.num_segments,
            "dropout": self.dropout,
            "activation": self.activation,
            "layer_norm_epsilon": self.layer_norm_epsilon,
            "has_pooler": self.has_pooler,
        }


def require_even(hidden_dim: int) -> None:
    """Refuses a width that two directions cannot share.

    Raises:
        UserError: it is odd.
    """
    if hidden_dim % 2:
        raise UserError(
            f"hidden_dim must be even, half of it for each direction of the LSTM, got {hidden_dim}."
        )
