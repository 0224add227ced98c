"""Multi-head attention with an explicit cache."""

import keras
import tensorflow as tf
from keras import ops

from tfllm.layers.cache import KVCache, empty_cache, write
from tfllm.layers.dropout import Dropout
from tfllm.layers.linear import Linear
from tfllm.layers.served_matrix import Make, ServedMatrix

_MASKED = -1e9  # a score that softmax turns into 0 in float32


@keras.saving.register_keras_serializable("tfllm")
class MultiHeadAttention(keras.layers.Layer):
    """Attention of new positions to themselves, to a memory, or to a cache that they extend.

    Letters: b batch, t new positions, s all positions, h heads, d head width, m model width.

    Args:
        num_heads: h.
        head_dim: d; None means m / h, which must be whole.
        dropout: Fraction of attention weights dropped in training, in [0, 1).
        use_bias: Whether the four projections add a bias.
        scale: Factor of the scores; None means d ** -0.5 (T5 uses 1).
        kernel_initializer: Of the query, key and value projections.
        query_initializer: Of the query projection, if it has another one.
        output_initializer: Of the output projection; None means `kernel_initializer`.

    Call arguments:
        x: float[b, t, m], the new positions.
        attention_mask: bool[b or 1, t or 1, s], True where a position may look; None = everywhere.
            With a cache its s says how far the cache is read.
        memory: float[b, s, m'], what is looked at; None means `x` itself. Or what `project` made of
            it: then `x` may have n rows for each of the memory's, side by side (beams).
        bias: float[b or 1, h, t, s], added to the scores (relative positions); or None.
        cache: `KVCache` to extend by the new positions, in place; or None.
        start: int32[b], with a cache: the position of `x[:, 0]` in it, per row.

    Returns:
        float[b, t, m]; with a cache also the extended `KVCache`.

    Raises:
        ValueError: at build time, if `head_dim` is None and `num_heads` does not divide m.

    Source:
        Vaswani et al. 2017, section 3.2, https://arxiv.org/abs/1706.03762
    """

    def __init__(
        self,
        num_heads,
        head_dim=None,
        *,
        dropout=0.0,
        use_bias=True,
        scale=None,
        kernel_initializer="glorot_uniform",
        query_initializer=None,
        output_initializer=None,
        **kwargs,
    ):
        super().__init__(**kwargs)
        self.num_heads = num_heads
        self.head_dim = head_dim
        self.dropout = dropout
        self.use_bias = use_bias
        self.scale = scale
        self.kernel_initializer = keras.initializers.get(kernel_initializer)
        self.query_initializer = keras.initializers.get(query_initializer)
        self.output_initializer = keras.initializers.get(output_initializer)

    def build(self, x_shape, memory_shape=None):
        width = x_shape[-1]
        self._reads_itself = memory_shape is None
        if self.head_dim is None and width % self.num_heads:
            raise ValueError(
                f"num_heads must divide the model width: got {self.num_heads} heads for width "
                f"{width}."
            )
        self._width_of_head = self.head_dim or width // self.num_heads
        self._scale = self._width_of_head**-0.5 if self.scale is None else self.scale
        inner = self.num_heads * self._width_of_head
        # `enable_lora` of KerasHub looks for the names query and value.
        self.query = self._projection(
            inner, "query", self.query_initializer or self.kernel_initializer
        )
        self.key = self._projection(inner, "key", self.kernel_initializer)
        self.value = self._projection(inner, "value", self.kernel_initializer)
        self.output_projection = self._projection(
            width, "output", self.output_initializer or self.kernel_initializer
        )
        self.weight_dropout = Dropout(self.dropout, dtype=self.dtype_policy, name="weight_dropout")
        self.query.build(x_shape)
        for projection in (self.key, self.value):
            projection.build(memory_shape or x_shape)
        self.output_projection.build((None, inner))
        self.built = True

    def _projection(self, units, name, initializer):
        return Linear(
            units,
            use_bias=self.use_bias,
            kernel_initializer=keras.initializers.get(keras.initializers.serialize(initializer)),
            dtype=self.dtype_policy,
            name=name,
        )

    def _split_heads(self, x):
        b, t = ops.shape(x)[:2]
        x = ops.reshape(x, (b, t, self.num_heads, self._width_of_head))
        return ops.transpose(x, (0, 2, 1, 3))  # [b, h, t, d]

    def empty_cache(self, rows, length) -> KVCache:
        """A cache of `length` positions for `rows` rows (int32 scalars), filled with zeros."""
        return empty_cache(rows, self.num_heads, length, self._width_of_head, self.compute_dtype)

    served: ServedMatrix | None = None

    def serve(self, make: Make):
        """Queries, keys and values of self-attention are one product from now on."""
        together = [self.query, self.key, self.value]
        if self._reads_itself:
            self.served = make([projection._kernel for projection in together])
        return () if self.served is None else together

    def _queries_keys_values(self, x):
        """Of self-attention, each float[b, h, t, d]."""
        together = [self.query, self.key, self.value]
        if self.served is None:
            return [self._split_heads(projection(x)) for projection in together]
        flat = tf.reshape(tf.cast(x, tf.float32), [-1, x.shape[-1]])
        y = self.served(flat)
        if self.use_bias:
            y += tf.concat([projection.bias for projection in together], 0)
        b, t = tf.unstack(tf.shape(x)[:2])
        y = tf.reshape(y, [b, t, 3, self.num_heads, self._width_of_head])
        return tf.unstack(tf.cast(tf.transpose(y, (2, 0, 3, 1, 4)), self.compute_dtype))

    def project(self, memory) -> KVCache:
        """Keys and values of a memory, so that many calls compute them once.

        Args:
            memory: float[b, s, m'].
        """
        return KVCache(self._split_heads(self.key(memory)), self._split_heads(self.value(memory)))

    def call(
        self,
        x,
        attention_mask=None,
        *,
        memory=None,
        bias=None,
        cache=None,
        start=None,
        training=None,
    ):
        if isinstance(memory, KVCache):
            return self._read(x, memory, attention_mask, training)
        if memory is None:
            q, k, v = self._queries_keys_values(x)  # each [b, h, t, d]
        else:
            q = self._split_heads(self.query(x))
            k, v = self.project(memory)  # [b, h, s, d]
        if cache is None:
            return self.output_projection(self._attend(q, k, v, attention_mask, bias, training))
        cache = write(cache, k, v, start)
        read = ops.shape(attention_mask)[-1]
        k, v = cache.k[:, :, :read], cache.v[:, :, :read]
        return self.output_projection(self._attend(q, k, v, attention_mask, bias, training)), cache

    def _read(self, x, memory: KVCache, mask, training):
        """Attends to a memory; rows of `x` that share one are read as positions of one row."""
        width = x.shape[-1]
        together = tf.reshape(x, tf.stack([tf.shape(memory.k)[0], -1, width]))
        q = self._split_heads(self.query(together))
        y = self.output_projection(self._attend(q, *memory, mask, None, training))
        return tf.reshape(y, tf.stack([*tf.unstack(tf.shape(x)[:2]), width]))

    def attention_weights(self, x, attention_mask=None, *, bias=None):
        """How much of each position each one takes, in every head, without dropout.

        Args:
            x: float[b, t, m].
            attention_mask: bool[b or 1, t or 1, t], as of a call; None = everywhere.
            bias: float[b or 1, h, t, t], as of a call; or None.

        Returns:
            float32[b, h, t, t], each row of which sums to 1.
        """
        q, k, _ = self._queries_keys_values(x)
        return self._weights_of(q, k, attention_mask, bias)

    def _weights_of(self, q, k, mask, bias):
        scores = tf.matmul(q, k, transpose_b=True)  # [b, h, t, s]
        # Softmax in float32: in bfloat16 a long row of small weights does not add up to 1.
        scores = tf.cast(scores, tf.float32) * self._scale
        if bias is not None:
            scores += tf.cast(bias, tf.float32)
        if mask is not None:
            scores = tf.where(mask[:, None], scores, _MASKED)
        return tf.nn.softmax(scores)

    def _attend(self, q, k, v, mask, bias, training):
        weights = tf.cast(self._weights_of(q, k, mask, bias), v.dtype)
        weights = self.weight_dropout(weights, training=training)
        y = tf.transpose(tf.matmul(weights, v), (0, 2, 1, 3))  # [b, t, h, d]
        b, t = ops.shape(y)[:2]
        return ops.reshape(y, (b, t, self.num_heads * self._width_of_head))

    def get_config(self):
        return {
            **super().get_config(),
            "num_heads": self.num_heads,
            "head_dim": self.head_dim,
            "dropout": self.dropout,
            "use_bias": self.use_bias,
            "scale": self.scale,
            "kernel_initializer": keras.initializers.serialize(self.kernel_initializer),
            "query_initializer": keras.initializers.serialize(self.query_initializer),
            "output_initializer": keras.initializers.serialize(self.output_initializer),
        }
