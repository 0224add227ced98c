"""Encoder and decoder blocks of the Transformer."""

import keras

from tfllm.layers.attention import MultiHeadAttention
from tfllm.layers.cache import KVCache, Window
from tfllm.layers.dropout import Dropout
from tfllm.layers.feed_forward import FeedForward
from tfllm.layers.normalization import layer_norm


@keras.saving.register_keras_serializable("tfllm")
class EncoderBlock(keras.layers.Layer):
    """Self-attention, then feed-forward, each with a residual and a layer norm.

    Args:
        num_heads: h, divides the model width m.
        intermediate_dim: f, the feed-forward width.
        dropout: Fraction dropped after both sub-layers, in [0, 1).
        attention_dropout: Fraction of the attention weights dropped; None means `dropout`.
        activation_dropout: Of the f units of the feed-forward.
        activation: Of the feed-forward.
        norm_first: True normalises before each sub-layer (GPT-2), False after the residual (the
            original Transformer, BERT, Marian).
        layer_norm_epsilon: Added to the variance.
        kernel_initializer: Of the matrices that read the residual stream.
        output_initializer: Of the two that write to it; None means `kernel_initializer`.

    Call arguments:
        x: float[b, t, m].
        attention_mask: bool[b or 1, t or 1, t], True where a position may look; None = everywhere.
        bias: float[b or 1, h, t, t], added to the attention scores; or None.

    Returns:
        float[b, t, m].

    Source:
        Vaswani et al. 2017, section 3.1, https://arxiv.org/abs/1706.03762; Xiong et al. 2020 on
        where to normalise, https://arxiv.org/abs/2002.04745
    """

    def __init__(
        self,
        num_heads,
        intermediate_dim,
        *,
        dropout=0.0,
        attention_dropout=None,
        activation_dropout=0.0,
        activation="gelu",
        norm_first=True,
        layer_norm_epsilon=1e-5,
        kernel_initializer="glorot_uniform",
        output_initializer=None,
        **kwargs,
    ):
        super().__init__(**kwargs)
        self.num_heads = num_heads
        self.intermediate_dim = intermediate_dim
        self.dropout = dropout
        self.attention_dropout = attention_dropout
        self.activation_dropout = activation_dropout
        self.activation = keras.activations.get(activation)
        self.norm_first = norm_first
        self.layer_norm_epsilon = layer_norm_epsilon
        self.kernel_initializer = keras.initializers.get(kernel_initializer)
        self.output_initializer = keras.initializers.get(output_initializer)

    def build(self, x_shape):
        self.attention = self._attention("attention")
        self.attention.build(x_shape)
        self.feed_forward = self._network("feed_forward")
        self.feed_forward.build(x_shape)
        self.attention_norm = self._norm("attention_norm", x_shape)
        self.feed_forward_norm = self._norm("feed_forward_norm", x_shape)
        self.residual_dropout = Dropout(
            self.dropout, dtype=self.dtype_policy, name="residual_dropout"
        )
        self.built = True

    def _initializers(self):
        def fresh(initializer):
            return keras.initializers.get(keras.initializers.serialize(initializer))

        return {
            "kernel_initializer": fresh(self.kernel_initializer),
            "output_initializer": fresh(self.output_initializer or self.kernel_initializer),
        }

    def _attention(self, name):
        return MultiHeadAttention(
            self.num_heads,
            dropout=self.dropout if self.attention_dropout is None else self.attention_dropout,
            dtype=self.dtype_policy,
            name=name,
            **self._initializers(),
        )

    def _network(self, name):
        return FeedForward(
            self.intermediate_dim,
            self.activation,
            dropout=self.activation_dropout,
            dtype=self.dtype_policy,
            name=name,
            **self._initializers(),
        )

    def _norm(self, name, shape):
        return layer_norm(
            shape, epsilon=self.layer_norm_epsilon, dtype=self.dtype_policy, name=name
        )

    def _add(self, x, y, norm, training):
        x = x + self.residual_dropout(y, training=training)
        return x if self.norm_first else norm(x)

    def _sublayer(self, x, sublayer, norm, training):
        """`x + sublayer(x)`, normalised before or after."""
        return self._add(x, sublayer(norm(x) if self.norm_first else x), norm, training)

    def _feed_forward(self, x, training):
        return self._sublayer(
            x, lambda x: self.feed_forward(x, training=training), self.feed_forward_norm, training
        )

    def call(self, x, attention_mask=None, *, bias=None, training=None):
        x = self._sublayer(
            x,
            lambda x: self.attention(x, attention_mask, bias=bias, training=training),
            self.attention_norm,
            training,
        )
        return self._feed_forward(x, training)

    def get_config(self):
        return {
            **super().get_config(),
            "num_heads": self.num_heads,
            "intermediate_dim": self.intermediate_dim,
            "dropout": self.dropout,
            "attention_dropout": self.attention_dropout,
            "activation_dropout": self.activation_dropout,
            "activation": keras.activations.serialize(self.activation),
            "norm_first": self.norm_first,
            "layer_norm_epsilon": self.layer_norm_epsilon,
            "kernel_initializer": keras.initializers.serialize(self.kernel_initializer),
            "output_initializer": keras.initializers.serialize(self.output_initializer),
        }


@keras.saving.register_keras_serializable("tfllm")
class DecoderBlock(EncoderBlock):
    """Self-attention, then (if asked) attention to a memory; `extend` goes on from a cache.

    Args:
        num_heads: h.
        intermediate_dim: f.
        cross_attention: Whether there is attention to an encoder's output.
        **kwargs: Of `EncoderBlock`.

    Call arguments:
        x: float[b, t, m].
        attention_mask: bool[b or 1, t or 1, t], True where a position may look. The causal mask is
            the caller's: packing needs another one.
        memory: float[b, u, m'], the encoder's output; None without cross-attention. Or what
            `memory_attention.project` made of it.
        memory_mask: bool[b or 1, t or 1, u]; None = everywhere.
        bias: float[b or 1, h, t, t], added to the self-attention scores; or None.

    Returns:
        float[b, t, m].
    """

    def __init__(self, num_heads, intermediate_dim, *, cross_attention=False, **kwargs):
        super().__init__(num_heads, intermediate_dim, **kwargs)
        self.cross_attention = cross_attention

    def build(self, x_shape, memory_shape=None):
        super().build(x_shape)
        if self.cross_attention:
            self.memory_attention = self._attention("memory_attention")
            self.memory_attention.build(x_shape, memory_shape)
            self.memory_attention_norm = self._norm("memory_attention_norm", x_shape)

    def call(
        self, x, attention_mask=None, *, memory=None, memory_mask=None, bias=None, training=None
    ):
        x = self._sublayer(
            x,
            lambda x: self.attention(x, attention_mask, bias=bias, training=training),
            self.attention_norm,
            training,
        )
        if self.cross_attention:
            x = self._sublayer(
                x,
                lambda x: self.memory_attention(x, memory_mask, memory=memory, training=training),
                self.memory_attention_norm,
                training,
            )
        return self._feed_forward(x, training)

    def extend(self, x, window: Window, cache: KVCache, *, memory=None, memory_scores=None):
        """New tokens behind those in a cache.

        Args:
            x: float[b * n, m], n new tokens of each row.
            window: Where they go in the cache and what they see there.
            cache: Of the self-attention, extended in place: not to be used again.
            memory: What `memory_attention.project` made of the encoder's output, of b rows; None
                without cross-attention.
            memory_scores: float32[b, 1, 1, u], added to the scores of the memory: `unseen`.

        Returns:
            float[b * n, m], and the extended cache.
        """
        read = self.attention_norm(x) if self.norm_first else x
        y, cache = self.attention.extend(read, window, cache)
        x = self._add(x, y, self.attention_norm, False)
        if self.cross_attention:
            x = self._sublayer(
                x,
                lambda x: self.memory_attention.look(
                    x, memory, memory_scores, window.rows, window.length
                ),
                self.memory_attention_norm,
                False,
            )
        return self._feed_forward(x, False), cache

    def get_config(self):
        return {**super().get_config(), "cross_attention": self.cross_attention}
