"""GPT: a decoder-only Transformer with learned positions and norms before the sub-layers."""

import keras
import keras_hub
import tensorflow as tf

from tfllm.decoding import Beginning, NewTokens
from tfllm.layers import (
    DecoderBlock,
    Dropout,
    LayerNormalization,
    Normal,
    PositionEmbedding,
    SegmentMask,
    TokenEmbedding,
    Window,
    activation_of,
    grow,
)
from tfllm.models.causal_lm import CausalLM
from tfllm.models.preprocessor import CausalLMPreprocessor, language_model_inputs
from tfllm.models.sizes import require_sizes


@keras.saving.register_keras_serializable("tfllm")
class GPTBackbone(keras_hub.models.Backbone):
    """Token ids to hidden states, each position looking back within its document.

    Args:
        vocabulary_size: v.
        num_layers: Number of blocks.
        num_heads: h, divides `hidden_dim`.
        hidden_dim: m.
        intermediate_dim: f; None means 4 m.
        max_sequence_length: Positions there are embeddings for: the context.
        dropout: Fraction dropped after the embeddings, after each sub-layer and of the attention
            weights, in [0, 1).
        layer_norm_epsilon: Added to the variance.
        activation: Of the feed-forward; "gelu_tanh", as GPT-2, or a name of Keras.
        tie_embeddings: Whether the output layer is the token embedding.
        dtype: Policy of all layers.

    Inputs (a dict):
        token_ids: int32[b, t].
        segment_ids: int32[b, t], the document of each token, from 1; 0 = padding.
        positions: int32[b, t], from 0 in each document.

    Output:
        float[b, t, m].

    Source:
        Radford et al. 2019 (GPT-2), section 2.3: norms first, one more at the end, initial weights
        of the residual layers scaled by 1 / sqrt(number of residual layers).
    """

    def __init__(  # noqa: PLR0913  the numbers that make a model
        self,
        vocabulary_size,
        num_layers,
        num_heads,
        hidden_dim,
        intermediate_dim=None,
        max_sequence_length=1024,
        dropout=0.0,
        layer_norm_epsilon=1e-5,
        activation="gelu_tanh",
        tie_embeddings=True,
        dtype=None,
        **kwargs,
    ):
        if intermediate_dim is None:
            intermediate_dim = 4 * hidden_dim
        require_sizes(
            vocabulary_size=vocabulary_size,
            num_layers=num_layers,
            num_heads=num_heads,
            hidden_dim=hidden_dim,
            intermediate_dim=intermediate_dim,
            max_sequence_length=max_sequence_length,
        )

        def normal(stddev=0.02):
            return Normal(stddev)

        # === Layers ===
        self.token_embedding = TokenEmbedding(
            vocabulary_size,
            hidden_dim,
            tied=tie_embeddings,
            embeddings_initializer=normal(),
            dtype=dtype,
            name="token_embedding",
        )
        self.position_embedding = PositionEmbedding(
            max_sequence_length,
            hidden_dim,
            embeddings_initializer=normal(),
            dtype=dtype,
            name="position_embedding",
        )
        self.embedding_dropout = Dropout(dropout, dtype=dtype, name="embedding_dropout")
        self.blocks = [
            DecoderBlock(
                num_heads,
                intermediate_dim,
                dropout=dropout,
                activation=activation_of(activation),
                layer_norm_epsilon=layer_norm_epsilon,
                kernel_initializer=normal(),
                output_initializer=normal(0.02 * (2 * num_layers) ** -0.5),
                dtype=dtype,
                name=f"block_{i}",
            )
            for i in range(num_layers)
        ]
        self.final_norm = LayerNormalization(
            epsilon=layer_norm_epsilon, dtype=dtype, name="final_norm"
        )

        # === Functional model ===
        inputs = language_model_inputs()
        mask = SegmentMask(name="segment_mask")(inputs["segment_ids"])
        x = self._embed(inputs["token_ids"], inputs["positions"])
        for block in self.blocks:
            x = block(x, mask)
        super().__init__(inputs=inputs, outputs=self.final_norm(x), dtype=dtype, **kwargs)

        # === Config ===
        self.vocabulary_size = vocabulary_size
        self.num_layers = num_layers
        self.num_heads = num_heads
        self.hidden_dim = hidden_dim
        self.intermediate_dim = intermediate_dim
        self.max_sequence_length = max_sequence_length
        self.dropout = dropout
        self.layer_norm_epsilon = layer_norm_epsilon
        self.activation = activation
        self.tie_embeddings = tie_embeddings

    def _embed(self, token_ids, positions):
        x = self.token_embedding(token_ids) + self.position_embedding(positions)
        return self.embedding_dropout(x)

    rewinds = True  # what was read last can be read anew

    def begin(self, prompt, lengths):  # noqa: ARG002 - all of it is read
        """As of `tfllm.decoding.Decodable`: all is read, and the caches are empty."""
        rows = tf.shape(prompt)[0]
        caches = tuple(block.attention.empty_cache(rows) for block in self.blocks)
        return Beginning(prompt, tf.zeros([rows], tf.int32), caches)

    def grow(self, caches, entries, length):  # noqa: ARG002 - entries are all there is
        """As of `tfllm.decoding.Decodable`."""
        return tuple(grow(cache, entries) for cache in caches)

    def step(self, new: NewTokens, caches):
        """Reads new tokens: as of `tfllm.decoding.Decodable`, but

        Returns:
            float[b * n, m], their hidden states; and the caches.
        """
        x = self._embed(tf.reshape(new.token_ids, [-1]), tf.reshape(new.positions, [-1]))
        window = Window.of(new.start, new.visible, self.num_heads)
        after = []
        for block, cache in zip(self.blocks, caches, strict=True):
            x, cache = block.extend(x, window, cache)
            after.append(cache)
        return self.final_norm(x), tuple(after)

    def get_config(self):
        return {
            **super().get_config(),
            "vocabulary_size": self.vocabulary_size,
            "num_layers": self.num_layers,
            "num_heads": self.num_heads,
            "hidden_dim": self.hidden_dim,
            "intermediate_dim": self.intermediate_dim,
            "max_sequence_length": self.max_sequence_length,
            "dropout": self.dropout,
            "layer_norm_epsilon": self.layer_norm_epsilon,
            "activation": self.activation,
            "tie_embeddings": self.tie_embeddings,
        }


@keras.saving.register_keras_serializable("tfllm")
class GPTCausalLMPreprocessor(CausalLMPreprocessor):
    """`CausalLMPreprocessor` by which KerasHub finds the one for `GPTBackbone`."""

    backbone_cls = GPTBackbone


@keras.saving.register_keras_serializable("tfllm")
class GPTCausalLM(CausalLM):
    """A GPT that predicts the next token; see `CausalLM`."""

    backbone_cls = GPTBackbone
    preprocessor_cls = GPTCausalLMPreprocessor
