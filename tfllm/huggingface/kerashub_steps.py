"""One token per row and step with a language model of KerasHub, each row at a position of its own.

KerasHub's `call_with_cache` takes one position for all rows: it decodes a batch from its shortest
prompt on and reads the longer ones again, token by token. Here each row is a call of its own where
the positions differ, and `tf.vectorized_map` makes one call of them again.
"""

from typing import NamedTuple

import keras_hub
import tensorflow as tf

from tfllm.decoding import Beginning, NewTokens
from tfllm.huggingface.servable_cache import cache_written_by, one_position, whole
from tfllm.layers.cache import KVCache, places, write
from tfllm.models.branches import branches, of_parents


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
    """`call_with_cache`, for the decode loops.

    The state is a `KVCache` of float[b, p, l, s, h * d] for the p texts of each row: all layers of
    a text are written at once, in place.

    Args:
        model: A `keras_hub.models.CausalLM`.
    """

    def __init__(self, model):
        self.model = model
        self.shape = CacheShape.of(model)

    def begin(self, prompt, lengths):
        """All is read at once, and the last token of each prompt is read again."""
        layers, heads, width, _ = self.shape
        rows, length = tf.unstack(tf.shape(prompt))
        empty = tf.zeros([rows, layers, 2, length, heads, width], self.model.compute_dtype)
        with cache_written_by(whole):
            _, _, cache = self.model.call_with_cache(
                prompt, self.shape.for_model(empty), tf.constant(0)
            )
        cache = tf.reshape(self.shape.as_tensor(cache), [rows, layers, 2, length, heads * width])
        last = tf.gather(prompt, lengths[:, None] - 1, batch_dims=1)
        return Beginning(last, lengths - 1, branches(KVCache(cache[:, :, 0], cache[:, :, 1])))

    def grow(self, state, entries, length):  # noqa: ARG002 - each text has a cache of its own
        """As of `tfllm.decoding.Decodable`."""
        return _padded(state, 3, length)

    def step(self, new: NewTokens, state):
        """Hidden states float[b * n, m] after new tokens, and the state."""
        layers, heads, width, _ = self.shape
        rows = tf.shape(new.token_ids)[0]
        token_ids, positions = tf.reshape(new.token_ids, [-1]), tf.reshape(new.positions, [-1])
        caches = of_parents(state, new)
        seen = tf.stack(caches, 2)
        length = tf.shape(seen)[3]
        seen = tf.reshape(seen, [-1, layers, 2, length, heads, width])

        def at(token_ids, position, cache):
            """Texts that stand at one position: float[b, m] and their new float[b, l, 2, h, d]."""
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
            hidden, fresh = tf.cond(
                tf.reduce_all(positions == positions[0]),
                lambda: [*at(token_ids, positions[0], seen)],
                each,
            )
        fresh = tf.reshape(fresh, [-1, layers, 2, 1, heads * width])
        place = places(positions, 1, layers, length)
        caches = write(KVCache(*caches), fresh[:, :, 0], fresh[:, :, 1], place)
        return hidden, branches(caches, rows)


class WholeSteps:
    """Reads all tokens again at each step, for the decode loops.

    For models whose `call_with_cache` gives other logits than the model itself. The state is the
    tokens, int32[b, p, s], of the p texts of each row.

    Args:
        hidden_states: int32[b, t] to float[b, t, m], of the model without a cache.
        context_length: Tokens that it takes at most.
    """

    def __init__(self, hidden_states, context_length: int):
        self.hidden_states = hidden_states
        self.context_length = context_length

    def begin(self, prompt, lengths):
        """As of `tfllm.decoding.Decodable`."""
        last = tf.gather(prompt, lengths[:, None] - 1, batch_dims=1)
        return Beginning(last, lengths - 1, branches(prompt))

    def grow(self, state, entries, length):  # noqa: ARG002 - each text is a row of its own
        """As of `tfllm.decoding.Decodable`."""
        return _padded(state, 2, length)

    def step(self, new: NewTokens, state):
        """Hidden states float[b * n, m] after new tokens, and the tokens."""
        rows = tf.shape(new.token_ids)[0]
        token_ids, positions = tf.reshape(new.token_ids, [-1]), tf.reshape(new.positions, [-1])
        texts = of_parents(state, new)
        here = tf.range(tf.shape(texts)[1])[None] == positions[:, None]
        texts = tf.where(here, token_ids[:, None], texts)
        hidden = self.hidden_states(texts[:, : self.context_length])
        return tf.gather(hidden, positions, batch_dims=1), branches(texts, rows)


def _padded(state, axis: int, length):
    """The state with so many entries on an axis, if it has fewer."""

    def longer(x):
        room = tf.maximum(length - tf.shape(x)[axis], 0)
        paddings = [[0, 0]] * axis + [[0, room]] + [[0, 0]] * (x.shape.rank - axis - 1)
        return tf.pad(x, paddings)

    return tf.nest.map_structure(longer, state)
