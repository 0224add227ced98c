"""LSTMs that read a text from both ends."""

import keras
import tensorflow as tf
from keras import ops

from tfllm.layers.dropout import Dropout
from tfllm.layers.lstm import LSTM
from tfllm.layers.normalization import layer_norm


def starts_of(segments):
    """Where another segment begins than that of the position before.

    Args:
        segments: int32[b, t].

    Returns:
        bool[b, t], True at each first position.
    """
    first = ops.ones_like(segments[:, :1], dtype="bool")
    return ops.concatenate([first, ops.not_equal(segments[:, 1:], segments[:, :-1])], 1)


@keras.saving.register_keras_serializable("tfllm")
class BidirectionalLSTM(keras.layers.Layer):
    """Layers of two LSTMs each, side by side: one reads from the left, one from the right.

    Both forget all where a segment begins for them, so padding and neighbours reach no token. From
    the second layer on, a layer adds to what it read, which is normalised; what the last one says
    is not, because the largest numbers of a text, by which it is classified, would be lost.

    Args:
        num_layers: Number of layers.
        units: u, of both directions of a layer together; even.
        dropout: Fraction of the units dropped in training between two layers, in [0, 1).

    Call arguments:
        x: float[b, t, m].
        segments: int32[b, t], one number per text of the row; 0 is padding.

    Returns:
        float[b, t, u]. What stands at padding means nothing.

    Raises:
        ValueError: `units` is odd.

    Source:
        Graves and Schmidhuber 2005, https://doi.org/10.1016/j.neunet.2005.06.042; residuals and
        norms as of Chen et al. 2018, section 4, https://arxiv.org/abs/1804.09849, but behind the
        layer, where the loop needs no part of them
    """

    def __init__(self, num_layers, units, *, dropout=0.0, **kwargs):
        super().__init__(**kwargs)
        if units % 2:
            raise ValueError(
                f"units must be even, half for each direction. Received: units={units}"
            )
        self.num_layers = num_layers
        self.units = units
        self.dropout = dropout

    def build(self, x_shape, segments_shape=None):  # noqa: ARG002 - Keras's names
        def lstms(direction):
            made = []
            for i in range(self.num_layers):
                lstm = LSTM(self.units // 2, dtype=self.dtype_policy, name=f"{direction}_{i}")
                lstm.build(x_shape if i == 0 else (*x_shape[:-1], self.units))
                made.append(lstm)
            return made

        self.forward, self.backward = lstms("forward"), lstms("backward")
        self.norms = [
            layer_norm((*x_shape[:-1], self.units), dtype=self.dtype_policy, name=f"norm_{i}")
            for i in range(self.num_layers - 1)
        ]
        self.between = Dropout(self.dropout, dtype=self.dtype_policy, name="between")
        self.built = True

    def call(self, x, segments, training=None):
        from_left, from_right = starts_of(segments), starts_of(tf.reverse(segments, [1]))
        for i in range(self.num_layers):
            read = self.between(x, training=training) if i else x
            right, _ = self.forward[i](read, starts=from_left)
            left, _ = self.backward[i](tf.reverse(read, [1]), starts=from_right)
            found = tf.concat([right, tf.reverse(left, [1])], -1)
            x = x + found if i else found
            if i < len(self.norms):
                x = self.norms[i](x)
        return x

    def get_config(self):
        return {
            **super().get_config(),
            "num_layers": self.num_layers,
            "units": self.units,
            "dropout": self.dropout,
        }
