"""One token per row and step with a language model of KerasHub, each row at a position of its own.

KerasHub's `call_with_cache` takes one position for all rows: it decodes a batch from its shortest
prompt on and reads the longer ones again, token by token. Here each row is a call of its own where
the positions differ, and `tf.vectorized_map` makes one call of them again.
"""

from typing import NamedTuple

import keras_hub
import tensorflow as tf

from tfllm.huggingface.servable_cache import cache_written_by, one_position, whole
from tfllm.layers.cache import KVCache, write


class CacheShape(NamedTuple):
    """Of a model's cache: float[b, l, 2, s, h, d], keys and values of each layer.

    Attributes:
        num_layers: l.
        num_heads: h, of keys and values.
        head_dim: d.
        in_pairs: The model takes a pair of float[b, s, h, d] per layer instead.
    """

    num_layers: int
    num_heads: int
    head_dim: int
    in_pairs: bool

    @classmethod
    def of(cls, model) -> "CacheShape":
        """As the model's own `generate` makes it."""
        backbone = model.backbone
        sizes = {name: value for name, value in vars(backbone).items() if value is not None}
        names = ("num_query_heads", "num_attention_heads", "num_heads")
        heads = next(sizes[name] for name in names if name in sizes)
        return cls(
            backbone.num_layers,
            sizes.get("num_key_value_heads", heads),
            sizes.get("head_dim", backbone.hidden_dim // heads),
            isinstance(model, keras_hub.models.Gemma3CausalLM),
        )

    def for_model(self, cache: tf.Tensor):
        """The cache as the model takes it."""
        if not self.in_pairs:
            return cache
        return tuple((layer[:, 0], layer[:, 1]) for layer in tf.unstack(cache, axis=1))

    def as_tensor(self, cache) -> tf.Tensor:
        """The cache that the model returned."""
        if not self.in_pairs:
            return cache
        return tf.stack([tf.stack(pair, 1) for pair in cache], 1)


class CachedSteps:
    """`call_with_cache`, for the decode loop.

    The state is a `KVCache` of float[b, l, s, h * d]: all layers of a row are written at once, in
    place, and only what is visible is read.

    Args:
        model: A `keras_hub.models.CausalLM`.
    """

    def __init__(self, model):
        self.model = model
        self.shape = CacheShape.of(model)

    def prefill(self, token_ids, lengths, capacity):
        """Hidden states float[b, m] after each row's last token, and the state."""
        layers, heads, width, _ = self.shape
        rows, length = tf.unstack(tf.shape(token_ids))
        empty = tf.zeros([rows, layers, 2, length, heads, width], self.model.compute_dtype)
        with cache_written_by(whole):
            _, hidden, cache = self.model.call_with_cache(
                token_ids, self.shape.for_model(empty), tf.constant(0)
            )
        cache = tf.reshape(self.shape.as_tensor(cache), [rows, layers, 2, length, heads * width])
        room = [[0, 0], [0, 0], [0, capacity - length], [0, 0]]
        state = KVCache(tf.pad(cache[:, :, 0], room), tf.pad(cache[:, :, 1], room))
        return tf.gather(hidden, lengths - 1, batch_dims=1), state

    def step(self, token_ids, positions, visible, state):
        """Hidden states float[b, m] after one more token per row, and the state."""
        layers, heads, width, _ = self.shape
        rows = tf.shape(token_ids)[0]
        seen = tf.stack([x[:, :, :visible] for x in state], 2)
        seen = tf.reshape(seen, [rows, layers, 2, visible, heads, width])

        def at(token_ids, position, cache):
            """Rows that stand at one position: float[b, m] and their new float[b, l, 2, h, d]."""
            _, hidden, cache = self.model.call_with_cache(
                token_ids[:, None], self.shape.for_model(cache), position
            )
            return hidden[:, 0], tf.gather(self.shape.as_tensor(cache), position, axis=3)

        def each():
            def of_row(row):
                token_id, position, cache = row
                return [x[0] for x in at(token_id[None], position, cache[None])]

            return tf.vectorized_map(of_row, (token_ids, positions, seen))

        # One row is never mapped: Keras squeezes what it adds, and so would lose the rows.
        with cache_written_by(one_position):
            hidden, new = tf.cond(
                tf.reduce_all(positions == positions[0]),
                lambda: [*at(token_ids, positions[0], seen)],
                each,
            )
        new = tf.reshape(new, [rows, layers, 2, 1, heads * width])
        return hidden, write(KVCache(*state), new[:, :, 0], new[:, :, 1], positions)


class WholeSteps:
    """Reads all tokens again at each step, for the decode loop.

    For models whose `call_with_cache` gives other logits than the model itself.

    Args:
        hidden_states: int32[b, t] to float[b, t, m], of the model without a cache.
        context_length: Tokens that it takes at most.
    """

    def __init__(self, hidden_states, context_length: int):
        self.hidden_states = hidden_states
        self.context_length = context_length

    def prefill(self, token_ids, lengths, capacity):
        """Hidden states float[b, m] after each row's last token, and the tokens."""
        hidden = self.hidden_states(token_ids)
        state = tf.pad(token_ids, [[0, 0], [0, capacity - tf.shape(token_ids)[1]]])
        return tf.gather(hidden, lengths - 1, batch_dims=1), state

    def step(self, token_ids, positions, visible, state):
        """Hidden states float[b, m] after one more token per row, and the tokens."""
        here = tf.range(tf.shape(state)[1])[None] == positions[:, None]
        state = tf.where(here, token_ids[:, None], state)
        hidden = self.hidden_states(state[:, : tf.minimum(visible, self.context_length)])
        return tf.gather(hidden, positions, batch_dims=1), state
