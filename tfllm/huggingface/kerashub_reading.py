"""KerasHub's cached layers, with rows and texts that stand at positions of their own.

`call_with_cache` of KerasHub takes one position for all rows, and writes to its cache by an op that
the stock server does not run. What depends on the position are the memory, the mask and the layers
that encode positions, never a matrix: these are replaced by ours while a graph is traced. So the
matrices see all rows at once, and no row is computed in a graph of its own.
"""

import functools
import inspect
from contextlib import contextmanager

import keras
import keras_hub
import tensorflow as tf

from tfllm.decoding import NewTokens
from tfllm.huggingface.replaced import replaced
from tfllm.layers.cache import KVCache, places, put

_softmax = tf.nn.softmax
_broadcast_to = keras.ops.broadcast_to
_WINDOWS = ("use_sliding_window_attention", "sliding_window_size", "sliding_window")


class Reading:
    """New tokens, as the layers of a model come to read them.

    Args:
        model: A `keras_hub.models.CausalLM`.
        new: What is read.
        caches: `KVCache` of float[b, 1, s, h * d] for each layer; used up.

    Attributes:
        caches: With the new tokens, once the model has read them.
    """

    def __init__(self, model, new: NewTokens, caches):
        self.caches: list[KVCache] = []
        self._new = new
        self._layers = list(model._flatten_layers())
        # Its rotary layer takes a vector of `positions`, the others a matrix too.
        self._one_position = isinstance(model, keras_hub.models.Phi3CausalLM)
        self._distance = new.positions[..., None] - new.entry_positions[:, None]
        self._masks = [self._within(window) for window in windows(model)]
        self._memories = [memory for cache in caches for memory in cache]
        self._shape = tf.shape(self._memories[0])
        rows, entries = tf.unstack(tf.shape(new.visible))[::2]
        self._entries = tf.broadcast_to(new.entry_positions, [rows, entries])
        length = tf.shape(new.token_ids)[1]
        self._place = places(new.start, length, 1, entries)
        self._written: list[tf.Tensor] = []

    @contextmanager
    def open(self):
        """While it is open, the model reads these tokens, whatever position it is told.

        Raises:
            RuntimeError: the model did not come to all its masks and memories.
        """
        functions = [
            (keras.ops, "slice_update", self._slice_update),
            (keras.ops, "broadcast_to", self._broadcast_to),
            (keras.ops, "cumsum", self._cumsum),
            (tf.nn, "softmax", _softmax_of_matrix),
        ]
        windows = [
            (layer, name, None)
            for layer in self._layers
            for name in _WINDOWS
            if name in vars(layer)
        ]
        with replaced([*functions, *windows, *self._calls()]):
            yield
        if self._masks or self._memories:
            raise RuntimeError(
                f"Of this model {len(self._masks)} masks and {len(self._memories)} memories were "
                "not asked for: it does not read as KerasHub 0.32 does."
            )
        self.caches = [KVCache(*pair) for pair in zip(self._written[::2], self._written[1::2])]  # noqa: B905

    def _within(self, window):
        visible = self._new.visible
        return visible if window is None else visible & (self._distance < window)

    def _calls(self):
        for layer in self._layers:
            if isinstance(layer, keras_hub.layers.AlibiBias):
                yield layer, "call", functools.partial(self._add_alibi, layer.call)
            elif isinstance(layer, keras_hub.layers.TokenAndPositionEmbedding):
                pass  # the layers in it do it
            elif "start_index" in (options := inspect.signature(layer.call).parameters):
                batched = "positions" in options and not self._one_position
                encode = self._encode if batched else self._encode_each
                yield layer, "call", functools.partial(encode, layer.call)

    def _encode(self, of_positions, inputs, start_index=0, positions=None):  # noqa: ARG002
        """What encodes positions from `start_index` on, with those of the tokens."""
        return of_positions(inputs, positions=self._new.positions)

    def _encode_each(self, of_one, inputs, start_index=0, **options):  # noqa: ARG002
        """The same where the layer takes one position for all rows: a call for each token."""
        rows, length = tf.unstack(tf.shape(inputs)[:2])
        tokens = tf.reshape(inputs, [-1, 1, *inputs.shape[2:]])

        def at(token):
            x, position = token
            found = of_one(x[None], start_index=position, **options)
            return tf.nest.map_structure(lambda y: y[0], found)

        found = tf.vectorized_map(at, (tokens, tf.reshape(self._new.positions, [-1])))
        return tf.nest.map_structure(lambda y: tf.reshape(y, [rows, length, *y.shape[2:]]), found)

    def _add_alibi(self, of_entries, scores):
        """Scores float[b, h, n, s] and what the positions of the entries add to them.

        Of two entries the layer adds minus the slope to the first, nothing to the last.
        """
        slopes = -of_entries(tf.zeros([1, scores.shape[1], 1, 2], scores.dtype))[..., :1]
        return scores + slopes * tf.cast(self._entries, scores.dtype)[:, None, None]

    def _slice_update(self, inputs, start_indices, updates):  # noqa: ARG002 - they have none
        """Writes float[b, n, h, d] to the next memory: float[b, s, h, d]."""
        memory = self._memories.pop(0)
        written = put(memory, updates, self._place, self._shape)
        self._written.append(written)
        heads = tf.reshape(written, [self._shape[0], self._shape[2], *updates.shape[2:]])
        return tf.cast(heads, updates.dtype)

    def _broadcast_to(self, x, shape):
        # Only causal masks are broadcast as truth values: one in each layer.
        if getattr(x, "dtype", None) != tf.bool:
            return _broadcast_to(x, shape)
        return self._masks.pop(0)

    def _cumsum(self, x, axis=None, dtype=None):  # noqa: ARG002
        """Counts entries (Falcon's ALiBi): their positions and one."""
        return self._entries + 1


def windows(model) -> list[int | None]:
    """Tokens that each layer of a model sees at most, the newest among them; None: all."""
    return [_window(model, layer) for layer in model.backbone.transformer_layers]


def _window(model, layer) -> int | None:
    for part in (layer, *layer._flatten_layers()):
        settings = vars(part)
        if settings.get("use_sliding_window_attention", True) and (
            size := settings.get("sliding_window_size") or settings.get("sliding_window")
        ):
            # GPT-OSS sees a window before the newest token, the others one with it.
            return size + isinstance(model, keras_hub.models.GptOssCausalLM)
    return None


def _softmax_of_matrix(logits, axis=None, name=None):
    """Of two dimensions: oneDNN's, which the stock server has switched on, takes no five."""
    if axis not in (None, -1):
        return _softmax(logits, axis, name)
    logits = tf.convert_to_tensor(logits)
    shape = tf.shape(logits)
    flat = _softmax(tf.reshape(logits, [-1, shape[-1]]), name=name)
    flat = tf.reshape(flat, shape)
    flat.set_shape(logits.shape)
    return flat
