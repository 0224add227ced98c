"""Multi-head attention with an explicit cache."""

import keras
import tensorflow as tf
from keras import ops

from tfllm.layers.cache import KVCache, Window, empty_cache, write
from tfllm.layers.clusters import add_bias, are_compiled
from tfllm.layers.dropout import Dropout
from tfllm.layers.fused import attend, attention_weights, transposed
from tfllm.layers.linear import Linear
from tfllm.layers.served_matrix import Make, ServedMatrix


@keras.saving.register_keras_serializable("tfllm")
class MultiHeadAttention(keras.layers.Layer):
    """Attention of positions to themselves or to a memory; `extend` attends to a cache.

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
        memory: float[b, s, m'], what is looked at; None means `x` itself. Or what `project` made of
            it.
        bias: float[b or 1, h, t, s], added to the scores (relative positions); or None.

    Returns:
        float[b, t, m].

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

    @property
    def cache_dtype(self):
        """Of what `empty_cache` and `project` keep."""
        served = self.served or self.query.served
        return served.cache_dtype if served else self.compute_dtype

    def empty_cache(self, rows) -> KVCache:
        """A cache without entries for `rows` rows (an int32 scalar)."""
        return empty_cache(rows, self.num_heads, self._width_of_head, self.cache_dtype)

    served: ServedMatrix | None = None

    def serve(self, make: Make):
        """Queries, keys and values of self-attention are one product from now on."""
        together = [self.query, self.key, self.value]
        if self._reads_itself:
            bias = [projection.bias for projection in together] if self.use_bias else None
            self.served = make([projection._kernel for projection in together], bias=bias)
        return () if self.served is None else together

    def _queries_keys_values(self, x, rows, length):
        """Of self-attention, each float[b, h, t, d], of float[b, t, m] or float[b * t, m]."""
        together = [self.query, self.key, self.value]
        if are_compiled() and not any(projection.lora_enabled for projection in together):
            return self._in_one_product(x, together, rows, length)
        if self.served is None:
            return [self._heads(projection(x), rows, length) for projection in together]
        flat = tf.reshape(tf.cast(x, tf.float32), [-1, x.shape[-1]])
        return self._parts(self.served(flat), rows, length)

    def _in_one_product(self, x, together, rows, length):
        """As `_queries_keys_values`: to put kernels side by side is cheap beside three products."""
        flat = tf.reshape(tf.cast(x, self.compute_dtype), [-1, x.shape[-1]])
        kernels = [tf.cast(projection.kernel, self.compute_dtype) for projection in together]
        y = tf.matmul(flat, tf.concat(kernels, 1))
        if self.use_bias:
            biases = [tf.cast(projection.bias, self.compute_dtype) for projection in together]
            y = add_bias(y, tf.concat(biases, 0))
        return self._parts(y, rows, length)

    def _parts(self, y, rows, length):
        """Three times float[b, h, t, d] of float[b * t, 3 * h * d]."""
        y = tf.reshape(y, [rows, length, 3, self.num_heads, self._width_of_head])
        return tf.unstack(tf.cast(transposed(y, (2, 0, 3, 1, 4)), self.compute_dtype))

    def _heads(self, x, rows, length):
        """float[b, h, t, d] of float[b, t, h * d] or float[b * t, h * d]."""
        x = tf.reshape(x, [rows, length, self.num_heads, self._width_of_head])
        return transposed(x, (0, 2, 1, 3))

    def project(self, memory) -> KVCache:
        """Keys and values of a memory, so that many calls compute them once.

        Args:
            memory: float[b, s, m'].
        """
        size = tf.unstack(tf.shape(memory)[:2])
        k, v = (self._heads(projection(memory), *size) for projection in (self.key, self.value))
        return KVCache(tf.cast(k, self.cache_dtype), tf.cast(v, self.cache_dtype))

    def extend(self, x, window: Window, cache: KVCache):
        """New tokens, written into a cache and attending to it.

        Args:
            x: float[b * n, m], n new tokens of each row.
            window: Where they go and what they see.
            cache: Extended in place: not to be used again.

        Returns:
            float[b * n, m], and the extended cache.
        """
        q, k, v = self._queries_keys_values(x, window.rows, window.length)
        cache = write(cache, k, v, window.place)
        return self.output_projection(self._look_up(q, cache, window.scores)), cache

    def look(self, x, memory: KVCache, scores, rows, length):
        """New tokens, attending to what `project` made of a memory.

        Args:
            x: float[b * n, m], n new tokens of each row.
            memory: float[b, h, s, d] twice.
            scores: float32[b, 1, 1 or n, s], added to the scores: `unseen`.
            rows: b, an int32 scalar.
            length: n, an int32 scalar.

        Returns:
            float[b * n, m].
        """
        q = self._heads(self.query(x), rows, length)
        return self.output_projection(self._look_up(q, memory, scores))

    def _look_up(self, q, cache: KVCache, added):
        """float[b * n, h * d], what float[b, h, n, d] queries find."""
        k, v = cache
        # A product with few queries is faster if what is scaled are they and not their scores.
        q = q if self._scale == 1.0 else q * self._scale
        scores = tf.matmul(tf.cast(q, k.dtype), k, transpose_b=True)
        weights = tf.nn.softmax(tf.cast(scores, tf.float32) + added)
        y = tf.transpose(tf.matmul(tf.cast(weights, v.dtype), v), (0, 2, 1, 3))
        y = tf.reshape(y, [-1, self.num_heads * self._width_of_head])
        return tf.cast(y, self.compute_dtype)

    def call(self, x, attention_mask=None, *, memory=None, bias=None, training=None):
        size = tf.unstack(tf.shape(x)[:2])
        if memory is None:
            q, k, v = self._queries_keys_values(x, *size)  # each [b, h, t, d]
        else:
            q = self._heads(self.query(x), *size)
            k, v = memory if isinstance(memory, KVCache) else self.project(memory)
            q = tf.cast(q, k.dtype)
        y = self._attend(q, k, v, attention_mask, bias, training)
        return self.output_projection(tf.cast(y, self.compute_dtype))

    def attention_weights(self, x, attention_mask=None, *, bias=None):
        """How much of each position each one takes, in every head, without dropout.

        Args:
            x: float[b, t, m].
            attention_mask: bool[b or 1, t or 1, t], as of a call; None = everywhere.
            bias: float[b or 1, h, t, t], as of a call; or None.

        Returns:
            float32[b, h, t, t], each row of which sums to 1.
        """
        q, k, _ = self._queries_keys_values(x, *tf.unstack(tf.shape(x)[:2]))
        return attention_weights(q, k, attention_mask, bias, self._scale)

    def _attend(self, q, k, v, mask, bias, training):
        if training and self.dropout:
            weights = tf.cast(attention_weights(q, k, mask, bias, self._scale), v.dtype)
            y = tf.matmul(self.weight_dropout(weights, training=training), v)
        else:
            y = attend(q, k, v, mask, bias, self._scale)
        y = transposed(y, (0, 2, 1, 3))  # [b, t, h, d]
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
