"""The blocks of T5: no biases, no means, no scaled scores."""

import keras

from tfllm.layers import (
    DecoderBlock,
    EncoderBlock,
    FeedForward,
    GatedFeedForward,
    MultiHeadAttention,
    Normal,
)


class _T5Sublayers(EncoderBlock):
    """What makes a block one of T5.

    Args:
        num_heads: h.
        head_dim: d, of any width.
        intermediate_dim: f.
        gated: Whether the feed-forward has a gate (T5 1.1).
        **kwargs: Of the block.
    """

    def __init__(self, num_heads, head_dim, intermediate_dim, *, gated=False, **kwargs):
        super().__init__(num_heads, intermediate_dim, **kwargs)
        self.head_dim = head_dim
        self.gated = gated

    def build(self, x_shape, *others):
        self._width = x_shape[-1]
        super().build(x_shape, *others)

    # Initial weights: what the scores are not divided by is taken from the queries' kernel.

    def _attention(self, name):
        return MultiHeadAttention(
            self.num_heads,
            self.head_dim,
            dropout=self.dropout,
            use_bias=False,
            scale=1.0,
            kernel_initializer=Normal(self._width**-0.5),
            query_initializer=Normal((self._width * self.head_dim) ** -0.5),
            output_initializer=Normal((self.num_heads * self.head_dim) ** -0.5),
            dtype=self.dtype_policy,
            name=name,
        )

    def _network(self, name):
        kind = GatedFeedForward if self.gated else FeedForward
        return kind(
            self.intermediate_dim,
            self.activation,
            dropout=self.dropout,
            use_bias=False,
            kernel_initializer=Normal(self._width**-0.5),
            output_initializer=Normal(self.intermediate_dim**-0.5),
            dtype=self.dtype_policy,
            name=name,
        )

    def _norm(self, name, shape):
        norm = keras.layers.RMSNormalization(
            epsilon=self.layer_norm_epsilon, dtype=self.dtype_policy, name=name
        )
        norm.build(shape)
        return norm

    def get_config(self):
        return {**super().get_config(), "head_dim": self.head_dim, "gated": self.gated}


@keras.saving.register_keras_serializable("tfllm")
class T5EncoderBlock(_T5Sublayers):
    """`EncoderBlock` as in T5.

    Args:
        num_heads: h.
        head_dim: d, of any width.
        intermediate_dim: f.
        gated: Whether the feed-forward has a gate (T5 1.1).
        **kwargs: Of `EncoderBlock`, whose norms come first and only scale by the root mean square.

    Source:
        Raffel et al. 2020, section 2.1, https://arxiv.org/abs/1910.10683; the initial weights as in
        `T5PreTrainedModel._init_weights` of Hugging Face `transformers`.
    """


@keras.saving.register_keras_serializable("tfllm")
class T5DecoderBlock(_T5Sublayers, DecoderBlock):
    """`DecoderBlock` as in T5, with cross-attention; else as `T5EncoderBlock`."""

    def __init__(self, *args, cross_attention=True, **kwargs):
        super().__init__(*args, cross_attention=cross_attention, **kwargs)

    def build(self, x_shape, memory_shape=None):
        super().build(x_shape, memory_shape)
