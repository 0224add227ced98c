"""The steps of the decode loops with a language model of KerasHub."""

from typing import NamedTuple

import keras_hub
import tensorflow as tf

from tfllm.decoding import Beginning, NewTokens
from tfllm.huggingface.kerashub_reading import Reading
from tfllm.layers.cache import empty_cache, grow
from tfllm.models.branches import branches, of_parents


class CacheShape(NamedTuple):
    """Of a model's cache.

    Attributes:
        num_layers: l.
        width: h * d, of all keys or values of a token in a layer.
        in_pairs: The model takes a pair of float[b, s, h, d] for each layer, not
            float[b, l, 2, s, h, d].
    """

    num_layers: int
    width: int
    in_pairs: bool

    @classmethod
    def of(cls, model) -> "CacheShape":
        """As the model's own `generate` makes it."""
        backbone = model.backbone
        sizes = {name: value for name, value in vars(backbone).items() if value is not None}
        names = ("num_query_heads", "num_attention_heads", "num_heads")
        heads = next(sizes[name] for name in names if name in sizes)
        head_dim = sizes.get("head_dim", backbone.hidden_dim // heads)
        return cls(
            backbone.num_layers,
            sizes.get("num_key_value_heads", heads) * head_dim,
            isinstance(model, keras_hub.models.Gemma3CausalLM),
        )

    def stand_in(self, rows, entries):
        """A cache with nothing in it but so many rows and entries, as the model takes it."""
        if self.in_pairs:
            pair = tf.zeros([rows, entries, 1, 0])
            return ((pair, pair),) * self.num_layers
        return tf.zeros([rows, self.num_layers, 2, entries, 1, 0])


class CachedSteps:
    """`call_with_cache`, for the decode loops.

    The state is a `KVCache` of float[b, 1, s, h * d] for each layer.

    Args:
        model: A `keras_hub.models.CausalLM`.
    """

    def __init__(self, model):
        self.model = model
        self.shape = CacheShape.of(model)

    def begin(self, prompt, lengths):  # noqa: ARG002 - all of it is read
        """All is read, and the caches are empty."""
        rows = tf.shape(prompt)[0]
        caches = tuple(
            empty_cache(rows, 1, self.shape.width, self.model.compute_dtype)
            for _ in range(self.shape.num_layers)
        )
        return Beginning(prompt, tf.zeros([rows], tf.int32), caches)

    def grow(self, caches, entries, length):  # noqa: ARG002 - entries are all there is
        """As of `tfllm.decoding.Decodable`."""
        return tuple(grow(cache, entries) for cache in caches)

    def step(self, new: NewTokens, caches):
        """Hidden states float[b * n, m] after new tokens, and the caches."""
        rows, _, entries = tf.unstack(tf.shape(new.visible))
        reading = Reading(self.model, new, caches)
        with reading.open():
            _, hidden, _ = self.model.call_with_cache(
                new.token_ids, self.shape.stand_in(rows, entries), tf.constant(0)
            )
        return tf.reshape(hidden, [-1, hidden.shape[-1]]), tuple(reading.caches)


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
        room = tf.maximum(length - tf.shape(state)[2], 0)
        return tf.pad(state, [[0, 0], [0, 0], [0, room]])

    def step(self, new: NewTokens, state):
        """Hidden states float[b * n, m] after new tokens, and the tokens."""
        rows = tf.shape(new.token_ids)[0]
        token_ids, positions = tf.reshape(new.token_ids, [-1]), tf.reshape(new.positions, [-1])
        texts = of_parents(state, new)
        here = tf.range(tf.shape(texts)[1])[None] == positions[:, None]
        texts = tf.where(here, token_ids[:, None], texts)
        hidden = self.hidden_states(texts[:, : self.context_length])
        return tf.gather(hidden, positions, batch_dims=1), branches(texts, rows)
