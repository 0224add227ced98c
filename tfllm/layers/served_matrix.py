"""Matrices as an export multiplies by them: rounded once, and packed once by the kernel.

The products are ops of TensorFlow's oneDNN build that no public function makes: their names begin
with an underscore and promise nothing. They are in every x86-64 release of TensorFlow and of its
server. A plain MatMul would read a matrix that is a variable as it lies in memory, at each token
anew; these pack it for the processor at the first call and keep that.
"""

from typing import ClassVar, Protocol

import keras
import numpy as np
import tensorflow as tf
from tensorflow.core.framework import attr_value_pb2

_LARGEST = 127.0  # of int8, both ways, so that zero is zero


class Make(Protocol):
    """What a layer with matrices is given in its method `serve`.

    The layer keeps what it gets in attributes whose names begin with `served`, uses that instead of
    the variables where it is not None, and returns its sublayers that have nothing left to serve.
    """

    def __call__(
        self, variables: list[keras.Variable], *, transposed: bool = False
    ) -> "ServedMatrix | None":
        """The matrix that all columns of the variables make, or None where they stay."""


class ServedMatrix(tf.Module):
    """A matrix [m, n] that rows are multiplied by, and that rows can be taken from.

    A call is one function in the graph, which is not inlined: all calls of one signature share the
    packed weights, where each would pack its own if it were inlined. Signatures share nothing in
    a session.

    Args:
        matrix: float[m, n]; with `transposed` float[n, m], as a table of embeddings is.
        transposed: Which of the two.
        name: Of the variables.

    Attributes:
        ops: Names of the internal ops that a call needs.
    """

    ops: ClassVar[tuple[str, ...]] = ()

    def __init__(self, matrix: np.ndarray, *, transposed: bool = False, name: str):
        super().__init__(name=name)
        self.transposed = transposed
        self.width = matrix.shape[1 if transposed else 0]
        self.units = matrix.shape[0 if transposed else 1]
        self._store(np.asarray(matrix, np.float32))
        self._multiply = tf.function(
            self._product,
            input_signature=[tf.TensorSpec([None, self.width], tf.float32)],
            autograph=False,
            experimental_attributes={"_noinline": True},
        )

    def __call__(self, x: tf.Tensor) -> tf.Tensor:
        """float32[b, n] of float32[b, m]."""
        return self._multiply(x)

    def rows(self, ids: tf.Tensor) -> tf.Tensor:
        """float32[..., m], with `transposed`: the rows of the table that int32[...] name."""
        raise NotImplementedError

    def _store(self, matrix):
        raise NotImplementedError

    def _product(self, x):
        raise NotImplementedError


class BFloat16Matrix(ServedMatrix):
    """Rounded to bfloat16; so are what it is multiplied by and the product; sums are float32."""

    ops = ("_MklNativeFusedMatMul",)

    def _store(self, matrix):
        self.values = tf.Variable(tf.cast(matrix, tf.bfloat16), trainable=False, name="values")

    def rows(self, ids):
        return tf.cast(tf.gather(self.values, ids), tf.float32)

    def _product(self, x):
        dtype = tf.bfloat16
        y = _op(
            "_MklNativeFusedMatMul",
            # The op is made for a product and what follows it: nothing is added.
            [tf.cast(x, dtype), self.values.value(), tf.zeros([self.units], dtype)],
            dtype,
            T=_type(dtype),
            num_args=attr_value_pb2.AttrValue(i=1),
            transpose_b=attr_value_pb2.AttrValue(b=self.transposed),
            fused_ops=_texts("BiasAdd"),
            is_filter_const=attr_value_pb2.AttrValue(b=True),
            _kernel=attr_value_pb2.AttrValue(s=b"MklNameChangeOp"),
        )
        return tf.cast(tf.ensure_shape(y, [None, self.units]), tf.float32)


class Int8Matrix(ServedMatrix):
    """Rounded to int8 with a scale per column; so is each row that it multiplies, in the graph.

    The product of the integers is exact. Nothing is calibrated: a row's scale is its own largest
    number, so no row depends on another.

    Source:
        LLM.int8(), Dettmers et al. 2022, section 2 ("vector-wise" scales),
        https://arxiv.org/abs/2208.07339
    """

    ops = ("_QuantizedMatMul",)

    def _store(self, matrix):
        axis = 1 if self.transposed else 0
        largest = np.abs(matrix).max(axis, keepdims=True)
        scale = np.where(largest > 0, largest, 1.0) / _LARGEST
        self.values = tf.Variable(
            np.rint(matrix / scale).astype(np.int8), trainable=False, name="values"
        )
        self.scale = tf.Variable(scale.ravel(), trainable=False, name="scale")

    def rows(self, ids):
        scale = tf.gather(self.scale, ids)
        return tf.cast(tf.gather(self.values, ids), tf.float32) * scale[..., None]

    def _product(self, x):
        largest = tf.reduce_max(tf.abs(x), -1, keepdims=True)
        # A row of zeros is no row to divide by its largest.
        largest = tf.maximum(largest, np.finfo(np.float32).tiny * _LARGEST)
        rounded = tf.cast(tf.round(x * (_LARGEST / largest)), tf.int8)
        least, most = tf.constant(-_LARGEST), tf.constant(_LARGEST)
        y = _op(
            "_QuantizedMatMul",
            # The ranges are part of the key by which oneDNN finds a kernel: they stay the same,
            # and the scales are outside.
            [
                tf.bitcast(rounded, tf.qint8),
                tf.bitcast(self.values.value(), tf.qint8),
                tf.zeros([self.units]),
                least,
                most,
                least,
                most,
            ],
            tf.float32,
            Tdevice_inputs=_types(tf.qint8, tf.qint8, tf.float32),
            Thost_inputs=_types(*[tf.float32] * 4),
            Tdevice_outputs=_types(tf.float32),
            Thost_outputs=_types(),
            T1=_type(tf.qint8),
            T2=_type(tf.qint8),
            Tbias=_type(tf.float32),
            U=_type(tf.float32),
            Tout=_type(tf.float32),
            transpose_b=attr_value_pb2.AttrValue(b=self.transposed),
            is_weight_const=attr_value_pb2.AttrValue(b=True),
            is_bias_const=attr_value_pb2.AttrValue(b=True),
            fused_ops=_texts("BiasAdd", "Dequantize"),
            input_quant_mode=attr_value_pb2.AttrValue(s=b"SCALED"),
            output_quant_mode=attr_value_pb2.AttrValue(s=b"SCALED"),
        )
        y = tf.ensure_shape(y, [None, self.units])
        return y * (largest / _LARGEST) * self.scale


def _op(name, inputs, dtype, **attrs):
    """An op that no public function makes. `_QuantizedMatMul` needs a name of its own."""
    graph = tf.compat.v1.get_default_graph()
    return graph.create_op(name, inputs, dtypes=[dtype], name="product", attrs=attrs).outputs[0]


def _type(dtype):
    return attr_value_pb2.AttrValue(type=dtype.as_datatype_enum)


def _types(*dtypes):
    value = attr_value_pb2.AttrValue()
    value.list.SetInParent()
    value.list.type.extend(dtype.as_datatype_enum for dtype in dtypes)
    return value


def _texts(*texts):
    value = attr_value_pb2.AttrValue()
    value.list.s.extend(text.encode() for text in texts)
    return value
