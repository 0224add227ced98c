"""The LSTM, with its state as argument and result and a gradient of its own.

Autodiff through the loop multiplies and sums two weight gradients per time step. Here the loop
forward holds one recurrent product per step, the loop backward emits only the gradient of the
gates, and the weights' gradients are single products over all steps.
"""

from functools import partial
from typing import NamedTuple

import keras
import tensorflow as tf
from keras import ops

from tfllm.layers.clusters import are_compiled, cluster
from tfllm.layers.dropout import Dropout
from tfllm.layers.served_matrix import Make, ServedMatrix


class LSTMState(NamedTuple):
    """What one LSTM layer carries from one position to the next.

    Attributes:
        h: float[b, u], the output.
        c: float32[b, u], the cell.
    """

    h: tf.Tensor
    c: tf.Tensor


def _cell(zx, product, c, keep):
    """One step; float32 inside.

    Args:
        zx: float[b, 4u], the gates' inputs but for the recurrent product.
        product: float[b, 4u], of the old h.
        c: float32[b, u], the old cell.
        keep: float[b, 1], as of `recurrence`.

    Returns:
        h, the new cell and the gates.
    """
    keep = tf.cast(keep, tf.float32)
    z = tf.cast(zx, tf.float32) + tf.cast(product, tf.float32) * keep
    i, f, g, o = tf.split(z, 4, axis=-1)
    i, f, g, o = tf.sigmoid(i), tf.sigmoid(f), tf.tanh(g), tf.sigmoid(o)
    c = f * (c * keep) + i * g
    return tf.cast(o * tf.tanh(c), zx.dtype), c, tf.cast(tf.concat([i, f, g, o], -1), zx.dtype)


def _cell_gradient(from_above, from_next, keep_next, gates, old_c, keep, c):
    """The gradient of `_cell`.

    Args:
        from_above: Gradients of h and the new cell as the results of this step.
        from_next: The same as what the next step is given, but for its `keep_next`.
        keep_next: float[b, 1], of the next step.
        gates: As `_cell` gave them.
        old_c: float32[b, u], as of `_cell`.
        keep: float[b, 1], as of `_cell`.
        c: The new cell.

    Returns:
        Gradients of z, and of the old cell but for `keep`.
    """
    keep_next = tf.cast(keep_next, tf.float32)
    dh, dc = (
        tf.cast(above, tf.float32) + tf.cast(following, tf.float32) * keep_next
        for above, following in zip(from_above, from_next, strict=True)
    )
    i, f, g, o = tf.split(tf.cast(gates, tf.float32), 4, axis=-1)
    tanh_c, old_c = tf.tanh(c), old_c * tf.cast(keep, tf.float32)
    dc = dc + dh * o * (1 - tanh_c**2)
    dz = tf.concat(
        [dc * g * i * (1 - i), dc * old_c * f * (1 - f), dc * i * (1 - g**2),
         dh * tanh_c * o * (1 - o)],
        axis=-1,
    )  # fmt: skip
    return tf.cast(dz, gates.dtype), dc * f


_cell_cluster, _cell_gradient_cluster = cluster(_cell), cluster(_cell_gradient)


def _steps(zx):
    """t of float[t, b, 4u]: a number where the graph knows it, so that it knows all shapes."""
    return tf.shape(zx)[0] if zx.shape[0] is None else zx.shape[0]


def _arrays(zx, *of):
    """One array over time per dtype and width."""
    steps, rows = _steps(zx), zx.shape[1:2]
    return [tf.TensorArray(dtype, steps, element_shape=rows + [width]) for dtype, width in of]


def _forward(zx, multiply, h0, c0, keep):
    """`recurrence`, with a function for the recurrent product; and its gates float[t, b, 4u]."""
    steps, units = _steps(zx), zx.shape[-1] // 4
    cell = _cell_cluster if are_compiled() else _cell

    def step(t, h, c, hs, cs, gs):
        h, c, gates = cell(zx[t], multiply(h), c, keep[t])
        return t + 1, h, c, hs.write(t, h), cs.write(t, c), gs.write(t, gates)

    hs, cs, gs = _arrays(zx, (zx.dtype, units), (tf.float32, units), (zx.dtype, 4 * units))
    *_, hs, cs, gs = tf.while_loop(
        lambda t, *_: t < steps, step, (0, h0, c0, hs, cs, gs), maximum_iterations=steps
    )
    return hs.stack(), cs.stack(), gs.stack()


@tf.custom_gradient
def recurrence(zx, recurrent_kernel, h0, c0, keep):
    """Runs the cell over time; time comes first.

    Args:
        zx: float[t, b, 4u], input products with bias; gates in the order i, f, g, o.
        recurrent_kernel: float[u, 4u].
        h0: float[b, u].
        c0: float32[b, u].
        keep: float[t, b, 1]: 0 where a document begins (the state before it is forgotten), else 1.

    Returns:
        h: float[t, b, u] and c: float32[t, b, u] at every position.
    """
    steps, units = _steps(zx), recurrent_kernel.shape[0]
    hs, cs, gs = _forward(zx, lambda h: tf.matmul(h, recurrent_kernel), h0, c0, keep)
    compiled = are_compiled()

    def gradient(dhs, dcs):
        cell_gradient = _cell_gradient_cluster if compiled else _cell_gradient
        old_h = tf.concat([h0[None], hs[:-1]], 0) * keep
        old_c = tf.concat([c0[None], cs[:-1]], 0)
        keep_next = tf.concat([keep[1:], keep[:1]], 0)  # nothing comes from behind the last step
        # A CPU's product of few rows would lay the matrix out anew in every step.
        transposed = tf.transpose(recurrent_kernel)

        def backward(t, dh, dc, dzs):
            dz, dc = cell_gradient(
                (dhs[t], dcs[t]), (dh, dc), keep_next[t], gs[t], old_c[t], keep[t], cs[t]
            )
            dh = tf.matmul(dz, transposed)
            return t - 1, dh, dc, dzs.write(t, dz)

        (dzs,) = _arrays(zx, (zx.dtype, 4 * units))
        _, dh, dc, dzs = tf.while_loop(
            lambda t, *_: t >= 0,
            backward,
            (steps - 1, tf.zeros_like(h0), tf.zeros_like(c0), dzs),
            maximum_iterations=steps,
        )
        dzs = dzs.stack()
        d_kernel = tf.matmul(
            tf.reshape(old_h, [-1, units]), tf.reshape(dzs, [-1, 4 * units]), transpose_a=True
        )
        return dzs, d_kernel, dh * keep[0], dc * tf.cast(keep[0], tf.float32), None

    return (hs, cs), gradient


@keras.saving.register_keras_serializable("tfllm")
class LSTM(keras.layers.Layer):
    """One LSTM layer.

    Args:
        units: u.

    Call arguments:
        x: float[b, t, m].
        state: `LSTMState` to begin with; None means zeros.
        starts: bool[b, t], True where a document begins: the state before it is forgotten; or None.
        lengths: int32[b], positions of each row that count for the state returned, none where it
            is 0; None = all.

    Returns:
        float[b, t, u], and the `LSTMState` after the last position of each row.

    Source:
        Hochreiter and Schmidhuber 1997; with forget gates, Gers et al. 2000; forget bias of 1,
        Jozefowicz et al. 2015, https://proceedings.mlr.press/v37/jozefowicz15.html
    """

    def __init__(self, units, **kwargs):
        # Keras would round the float32 cell of a given state to the compute dtype.
        super().__init__(autocast=False, **kwargs)
        self.units = units

    def build(self, x_shape):
        self.kernel = self.add_weight(name="kernel", shape=(x_shape[-1], 4 * self.units))
        self.recurrent_kernel = self.add_weight(
            name="recurrent_kernel", shape=(self.units, 4 * self.units), initializer=_orthogonal
        )
        self.bias = self.add_weight(
            name="bias", shape=(4 * self.units,), initializer=_forget_bias_of_one
        )
        self.built = True

    def zero_state(self, rows) -> LSTMState:
        """The state before the first position, of `rows` rows (an int32 scalar)."""
        return LSTMState(
            tf.zeros([rows, self.units], self.compute_dtype), tf.zeros([rows, self.units])
        )

    served: ServedMatrix | None = None
    served_recurrent: ServedMatrix | None = None

    def serve(self, make: Make):
        """Multiplies by `ServedMatrix`es from now on; there are no gradients then."""
        self.served, self.served_recurrent = make([self.kernel]), make([self.recurrent_kernel])
        return ()

    def call(self, x, state=None, *, starts=None, lengths=None):
        b, t = ops.shape(x)[:2]
        state = self.zero_state(b) if state is None else state

        def tensor(variable):  # the custom gradient returns its gradients by position
            return tf.identity(tf.cast(variable, self.compute_dtype))

        x, h, c = tensor(tf.transpose(x, (1, 0, 2))), tensor(state.h), tf.cast(state.c, tf.float32)
        flat = tf.reshape(x, [-1, x.shape[-1]])
        zx = (
            tf.matmul(flat, tensor(self.kernel))
            if self.served is None
            else self._product(self.served, flat)
        )
        zx = tf.reshape(tf.nn.bias_add(zx, tensor(self.bias)), [t, b, 4 * self.units])
        if starts is None:
            keep = tf.ones([t, b, 1], zx.dtype)
        else:
            keep = tf.cast(~tf.transpose(starts), zx.dtype)[..., None]
        if self.served_recurrent is None:
            hs, cs = recurrence(zx, tensor(self.recurrent_kernel), h, c, keep)
        else:
            hs, cs, _ = _forward(zx, partial(self._product, self.served_recurrent), h, c, keep)
        if lengths is None:
            state = LSTMState(hs[-1], cs[-1])
        else:
            place = tf.stack([lengths, tf.range(b)], axis=1)  # time, row
            state = LSTMState(
                tf.gather_nd(tf.concat([h[None], hs], 0), place),
                tf.gather_nd(tf.concat([c[None], cs], 0), place),
            )
        return tf.transpose(hs, (1, 0, 2)), state

    def _product(self, matrix: ServedMatrix, x):
        return tf.cast(matrix(tf.cast(x, tf.float32)), self.compute_dtype)

    def get_config(self):
        return {**super().get_config(), "units": self.units}


def _orthogonal(shape, dtype=None):
    # The decomposition behind it does not exist in bfloat16.
    return tf.cast(keras.initializers.Orthogonal()(shape, "float32"), dtype or tf.float32)


def _forget_bias_of_one(shape, dtype=None):
    one_of_four = tf.constant([0, 1, 0, 0], dtype or tf.float32)  # i, f, g, o
    return tf.repeat(one_of_four, shape[0] // 4)


@keras.saving.register_keras_serializable("tfllm")
class StackedLSTM(keras.layers.Layer):
    """LSTM layers on top of each other, with dropout between them.

    Args:
        num_layers: Number of layers.
        units: u, of each layer.
        dropout: Fraction of the units dropped in training between two layers, in [0, 1).

    Call arguments:
        x: float[b, t, m].
        states: One `LSTMState` per layer, or None for zeros.
        starts: bool[b, t], True where a document begins; or None.
        lengths: int32[b], positions that count for the states returned; None = all.

    Returns:
        float[b, t, u], and a tuple of one `LSTMState` per layer.

    Source:
        Zaremba et al. 2014, https://arxiv.org/abs/1409.2329 (no dropout along time)
    """

    def __init__(self, num_layers, units, *, dropout=0.0, **kwargs):
        super().__init__(autocast=False, **kwargs)  # the states, as in `LSTM`
        self.num_layers = num_layers
        self.units = units
        self.dropout = dropout

    def build(self, x_shape):
        self.lstms = []
        for i in range(self.num_layers):
            lstm = LSTM(self.units, dtype=self.dtype_policy, name=f"lstm_{i}")
            lstm.build(x_shape if i == 0 else (*x_shape[:-1], self.units))
            self.lstms.append(lstm)
        self.between = Dropout(self.dropout, dtype=self.dtype_policy, name="between")
        self.built = True

    def zero_states(self, rows) -> tuple[LSTMState, ...]:
        """The states before the first position, of `rows` rows (an int32 scalar)."""
        return tuple(lstm.zero_state(rows) for lstm in self.lstms)

    def call(self, x, states=None, *, starts=None, lengths=None, training=None):
        states = states or (None,) * self.num_layers
        after = []
        for i, (lstm, state) in enumerate(zip(self.lstms, states, strict=True)):
            if i:
                x = self.between(x, training=training)
            x, state = lstm(x, state, starts=starts, lengths=lengths)
            after.append(state)
        return x, tuple(after)

    def get_config(self):
        return {
            **super().get_config(),
            "num_layers": self.num_layers,
            "units": self.units,
            "dropout": self.dropout,
        }
