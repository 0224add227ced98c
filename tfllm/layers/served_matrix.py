"""Matrices as an export multiplies by them: rounded once, and packed once by the kernel.

The products of the rounded ones are ops of TensorFlow's oneDNN build that no public function makes:
their names begin with an underscore and promise nothing. They are in every x86-64 release of
TensorFlow and of its server, but not every processor has what they need: an export tries them as it
is loaded. A plain MatMul would read a matrix that is a variable as it lies in memory, at each token
anew; these pack it for the processor at the first call and keep that.
"""

from collections.abc import Callable
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
        self,
        variables: list[keras.Variable],
        *,
        bias: list[keras.Variable] | None = None,
        transposed: bool = False,
        as_matrix: Callable[[np.ndarray], np.ndarray] = np.asarray,
    ) -> "ServedMatrix | None":
        """The matrix that all columns of the variables make, or None where they stay.

        Args:
            variables: Matrices side by side.
            bias: What is added to the products with each of them; or None.
            transposed: As of `ServedMatrix`.
            as_matrix: What makes a matrix of a variable's value, if it is none.
        """


class ServedMatrix(tf.Module):
    """A matrix [m, n] that rows are multiplied by, and that rows can be taken from; and a bias.

    Each call in a graph packs weights of its own: graphs call it once, in a loop if need be.

    Args:
        matrix: float[m, n]; with `transposed` float[n, m], as a table of embeddings is.
        bias: float[n], added to each product; or None.
        transposed: Which of the two.
        name: Of the variables.

    Attributes:
        ops: Names of the internal ops that a call needs.
        processor: What has their kernels, and answers rightly by them; "" with `ops` empty.
        cache_dtype: Of keys and values that are kept in an export with such matrices: half the
            memory to read at each token.
    """

    ops: ClassVar[frozenset[str]] = frozenset()
    processor: ClassVar[str] = ""
    cache_dtype: ClassVar[str] = "bfloat16"

    def __init__(
        self,
        matrix: np.ndarray,
        *,
        bias: np.ndarray | None = None,
        transposed: bool = False,
        name: str,
    ):
        super().__init__(name=name)
        self.transposed = transposed
        self.width = matrix.shape[1 if transposed else 0]
        self.units = matrix.shape[0 if transposed else 1]
        self._store(np.asarray(matrix, np.float32))
        self.bias = None if bias is None else self._bias(np.asarray(bias, np.float32))

    def __call__(self, x: tf.Tensor) -> tf.Tensor:
        """float32[b, n] of float32[b, m]."""
        raise NotImplementedError

    def rows(self, ids: tf.Tensor) -> tf.Tensor:
        """float32[..., m], with `transposed`: the rows of the table that int32[...] name.

        Gathered from the variable's value: a gather from the variable itself would make each later
        reading of it copy all of it.
        """
        raise NotImplementedError

    def _store(self, matrix):
        raise NotImplementedError

    def _bias(self, bias):
        return tf.Variable(bias, trainable=False, name="bias")

    def _shaped(self, y):
        y.set_shape([None, self.units])
        return y


class Float32Matrix(ServedMatrix):
    """As it is, with the ops of any TensorFlow; of a table the transpose is stored.

    A few rows are multiplied by it faster that way than by the table as it lies.
    """

    cache_dtype = "float32"

    def _store(self, matrix):
        matrix = np.ascontiguousarray(matrix.T) if self.transposed else matrix
        self.values = tf.Variable(matrix, trainable=False, name="values")

    def rows(self, ids):
        flat = tf.gather(self.values.value(), tf.reshape(ids, [-1]), axis=1)
        shape = tf.concat([tf.shape(ids), [self.width]], 0)
        return tf.reshape(tf.transpose(flat), shape)

    def __call__(self, x):
        rows = tf.shape(x)[0]
        # One row alone would be summed up in another order than among others.
        x = tf.pad(x, [[0, tf.maximum(2 - rows, 0)], [0, 0]])
        y = tf.matmul(x, self.values)[:rows]
        return y if self.bias is None else tf.nn.bias_add(y, self.bias)


class BFloat16Matrix(ServedMatrix):
    """Rounded to bfloat16; so are what it is multiplied by and the product; sums are float32."""

    ops = frozenset({"_MklNativeFusedMatMul"})
    processor = "an x86-64 processor with AVX-512 (Xeon from Skylake on, AMD from Zen 4 on)"

    def _store(self, matrix):
        self.values = tf.Variable(tf.cast(matrix, tf.bfloat16), trainable=False, name="values")

    def rows(self, ids):
        return tf.cast(tf.gather(self.values.value(), ids), tf.float32)

    def _bias(self, bias):
        return super()._bias(tf.cast(bias, tf.bfloat16))

    def __call__(self, x):
        dtype = tf.bfloat16
        # The op is made for a product and what follows it: there is always something added.
        bias = tf.zeros([self.units], dtype) if self.bias is None else self.bias.value()
        y = _op(
            "_MklNativeFusedMatMul",
            [tf.cast(x, dtype), self.values.value(), bias],
            dtype,
            T=_type(dtype),
            num_args=attr_value_pb2.AttrValue(i=1),
            transpose_b=attr_value_pb2.AttrValue(b=self.transposed),
            fused_ops=_texts("BiasAdd"),
            is_filter_const=attr_value_pb2.AttrValue(b=True),
            _kernel=attr_value_pb2.AttrValue(s=b"MklNameChangeOp"),
        )
        return tf.cast(self._shaped(y), tf.float32)


class Int8Matrix(ServedMatrix):
    """Rounded to int8 with a scale per column; so is each row that it multiplies, in the graph.

    The product of the integers is exact. Nothing is calibrated: a row's scale is its own largest
    number, so no row depends on another.

    Source:
        LLM.int8(), Dettmers et al. 2022, section 2 ("vector-wise" scales),
        https://arxiv.org/abs/2208.07339
    """

    ops = frozenset({"_QuantizedMatMul"})
    processor = (
        "an x86-64 processor with AVX-512 VNNI (Xeon from Cascade Lake on, AMD from Zen 4 on)"
    )

    def _store(self, matrix):
        axis = 1 if self.transposed else 0
        largest = np.abs(matrix).max(axis, keepdims=True)
        scale = np.where(largest > 0, largest, 1.0) / _LARGEST
        self.values = tf.Variable(
            np.rint(matrix / scale).astype(np.int8), trainable=False, name="values"
        )
        self.scale = tf.Variable(scale.ravel(), trainable=False, name="scale")

    def rows(self, ids):
        scale = tf.gather(self.scale.value(), ids)
        return tf.cast(tf.gather(self.values.value(), ids), tf.float32) * scale[..., None]

    def __call__(self, x):
        row_scale = tf.reduce_max(tf.abs(x), -1, keepdims=True) * (1 / _LARGEST)
        # A row of zeros has no scale, and stays what it is.
        rounded = tf.cast(tf.round(x * tf.math.reciprocal_no_nan(row_scale)), tf.int8)
        # A range is 127 scales. Those of the rows are outside: ranges are part of the key by which
        # TensorFlow finds a kernel, numbers of x and places in memory of the matrix. So kernels are
        # shared by matrices of one shape; only a table, of which there is one, and which has many
        # columns to scale, gives the op a scale of its own for each: its range by 127.
        of_row = tf.constant(_LARGEST**2 if self.transposed else _LARGEST)
        of_column = self.scale.value() if self.transposed else tf.constant(_LARGEST)
        y = _op(
            "_QuantizedMatMul",
            [
                tf.bitcast(rounded, tf.qint8),
                tf.bitcast(self.values.value(), tf.qint8),
                tf.zeros([self.units]),
                -of_row,
                of_row,
                of_column,
                of_column,
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
        y = self._shaped(y) * row_scale
        if not self.transposed:
            y *= self.scale
        return y if self.bias is None else y + self.bias


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
