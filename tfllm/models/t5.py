"""T5: an encoder and a decoder that know positions by their distance."""

import keras

from tfllm.layers import Dropout, Normal, RelativePositionBias, TokenEmbedding, activation_of
from tfllm.models.seq2seq_backbone import Seq2SeqBackbone
from tfllm.models.seq2seq_lm import Seq2SeqLM
from tfllm.models.seq2seq_preprocessor import Seq2SeqLMPreprocessor
from tfllm.models.sizes import require_sizes
from tfllm.models.t5_blocks import T5DecoderBlock, T5EncoderBlock


@keras.saving.register_keras_serializable("tfllm")
class T5Backbone(Seq2SeqBackbone):
    """Source and target token ids to hidden states, as T5 1.0 and 1.1 and mT5 do.

    Args:
        vocabulary_size: v.
        num_layers: Blocks of the encoder.
        num_heads: h.
        hidden_dim: m.
        intermediate_dim: f.
        num_decoder_layers: None means `num_layers`.
        key_value_dim: d, the width of a head; None means m / h.
        activation: Of the feed-forward, or of its gate: "relu" in T5 1.0, "gelu_tanh" in 1.1.
        use_gated_activation: Whether the feed-forward has a gate, as in T5 1.1.
        tie_embeddings: Whether logits are scored against the table of the token embeddings.
        scale_logits: Whether hidden states are multiplied by m ** -0.5 before they are scored;
            None means `tie_embeddings`, as the two versions are.
        num_buckets: Of relative positions.
        max_distance: The distance from which on all share one bucket.
        max_sequence_length: Tokens of a source, and of a target, at most. The model itself knows
            no limit; memory grows with the square.
        dropout: In [0, 1).
        layer_norm_epsilon: Added to the mean square.
        dtype: Policy of all layers.
        **kwargs: Of `keras_hub.models.Backbone`.

    Inputs and outputs:
        See `Seq2SeqBackbone`.

    Source:
        Raffel et al. 2020, section 2.1, https://arxiv.org/abs/1910.10683; for 1.1 Shazeer 2020,
        https://arxiv.org/abs/2002.05202
    """

    def __init__(  # noqa: PLR0913 - the sizes of a model
        self,
        vocabulary_size,
        num_layers,
        num_heads,
        hidden_dim,
        intermediate_dim,
        num_decoder_layers=None,
        key_value_dim=None,
        activation="relu",
        use_gated_activation=False,
        tie_embeddings=True,
        scale_logits=None,
        num_buckets=32,
        max_distance=128,
        max_sequence_length=512,
        dropout=0.0,
        layer_norm_epsilon=1e-6,
        dtype=None,
        **kwargs,
    ):
        if num_decoder_layers is None:
            num_decoder_layers = num_layers
        if key_value_dim is None:
            key_value_dim = hidden_dim // num_heads
        if scale_logits is None:
            scale_logits = tie_embeddings
        require_sizes(
            vocabulary_size=vocabulary_size,
            num_layers=num_layers,
            num_heads=num_heads,
            hidden_dim=hidden_dim,
            intermediate_dim=intermediate_dim,
            num_decoder_layers=num_decoder_layers,
            key_value_dim=key_value_dim,
            num_buckets=num_buckets,
            max_distance=max_distance,
            max_sequence_length=max_sequence_length,
        )

        def relative_positions(bidirectional, name):
            return RelativePositionBias(
                num_heads,
                num_buckets=num_buckets,
                max_distance=max_distance,
                bidirectional=bidirectional,
                embeddings_initializer=Normal(hidden_dim**-0.5),
                dtype=dtype,
                name=name,
            )

        def blocks(kind, number, name):
            return [
                kind(
                    num_heads,
                    key_value_dim,
                    intermediate_dim,
                    gated=use_gated_activation,
                    activation=activation_of(activation),
                    dropout=dropout,
                    layer_norm_epsilon=layer_norm_epsilon,
                    dtype=dtype,
                    name=f"{name}_{i}",
                )
                for i in range(number)
            ]

        def norm(name):
            return keras.layers.RMSNormalization(epsilon=layer_norm_epsilon, dtype=dtype, name=name)

        # === Layers ===
        self.token_embedding = TokenEmbedding(
            vocabulary_size,
            hidden_dim,
            tied=tie_embeddings,
            embeddings_initializer=Normal(1.0),
            output_initializer=Normal(hidden_dim**-0.5),
            dtype=dtype,
            name="token_embedding",
        )
        self.encoder_positions = relative_positions(True, "encoder_positions")
        self.decoder_positions = relative_positions(False, "decoder_positions")
        self.encoder_blocks = blocks(T5EncoderBlock, num_layers, "encoder_block")
        self.decoder_blocks = blocks(T5DecoderBlock, num_decoder_layers, "decoder_block")
        self.encoder_norm = norm("encoder_norm")
        self.decoder_norm = norm("decoder_norm")
        self.stack_dropout = Dropout(dropout, dtype=dtype, name="stack_dropout")

        # === Functional model ===
        super().__init__(dtype=dtype, **kwargs)

        # === Config ===
        self.vocabulary_size = vocabulary_size
        self.source_vocabulary_size = vocabulary_size
        self.num_layers = num_layers
        self.num_heads = num_heads
        self.hidden_dim = hidden_dim
        self.intermediate_dim = intermediate_dim
        self.num_decoder_layers = num_decoder_layers
        self.key_value_dim = key_value_dim
        self.activation = activation
        self.use_gated_activation = use_gated_activation
        self.tie_embeddings = tie_embeddings
        self.scale_logits = scale_logits
        self.num_buckets = num_buckets
        self.max_distance = max_distance
        self.max_sequence_length = max_sequence_length
        self.dropout = dropout
        self.layer_norm_epsilon = layer_norm_epsilon

    def embed_source(self, token_ids, positions):  # noqa: ARG002
        return self.stack_dropout(self.token_embedding(token_ids))

    embed_target = embed_source

    def encoder_bias(self, positions):
        return self.encoder_positions(positions, positions)

    def decoder_bias(self, query_positions, key_positions):
        return self.decoder_positions(query_positions, key_positions)

    def finish_source(self, x):
        return self.stack_dropout(self.encoder_norm(x))

    def finish_target(self, x):
        return self.stack_dropout(self.decoder_norm(x))

    def logits(self, hidden):
        hidden, *_ = self.scored_by(hidden)
        return self.token_embedding(hidden, reverse=True)

    def scored_by(self, hidden):
        if self.scale_logits:
            hidden = hidden * self.hidden_dim**-0.5
        return super().scored_by(hidden)

    def get_config(self):
        names = (
            "vocabulary_size", "num_layers", "num_heads", "hidden_dim", "intermediate_dim",
            "num_decoder_layers", "key_value_dim", "activation", "use_gated_activation",
            "tie_embeddings", "scale_logits", "num_buckets", "max_distance",
            "max_sequence_length", "dropout", "layer_norm_epsilon",
        )  # fmt: skip
        return {**super().get_config(), **{name: getattr(self, name) for name in names}}


@keras.saving.register_keras_serializable("tfllm")
class T5Seq2SeqLMPreprocessor(Seq2SeqLMPreprocessor):
    """`Seq2SeqLMPreprocessor` by which KerasHub finds the one for `T5Backbone`."""

    backbone_cls = T5Backbone


@keras.saving.register_keras_serializable("tfllm")
class T5Seq2SeqLM(Seq2SeqLM):
    """A T5 that writes a target after reading a source; see `Seq2SeqLM`."""

    backbone_cls = T5Backbone
    preprocessor_cls = T5Seq2SeqLMPreprocessor
