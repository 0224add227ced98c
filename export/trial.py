"""What an export tries as it is loaded: whether this machine multiplies rightly by its matrices.

The ops of rounded matrices are internal to TensorFlow's oneDNN build, and what they need of the
processor nobody checks: without VNNI the products of int8 are silently wrong (pairs of them are
added in 16 bits, which saturate), and without AVX-512 a product of bfloat16, as of the keys that an
int8 export keeps, ends the whole process. So an export multiplies numbers whose product is known
before it serves anything, whether it has warm-up requests or not: the load fails where an op or its
kernel is missing or wrong.

Source:
    "Nuances of int8 Computations" of oneDNN's developer guide,
    https://uxlfoundation.github.io/oneDNN/dev_guide_int8_computations.html
"""

import re
from collections.abc import Iterable

import numpy as np
import tensorflow as tf
from tensorflow.core.framework import attr_value_pb2

from tfllm.errors import UserError
from tfllm.layers import ServedMatrix

# Plus and minus the largest of int8 in all combinations, so that 16 bits do not hold the sum of
# two products; the sum of all of them is exact in float32.
_ROWS = np.where(np.arange(8 * 64).reshape(8, 64) % 5, 127, -127).astype(np.float32)
_MATRIX = np.where(np.arange(64 * 16).reshape(64, 16) % 3, 127, -127).astype(np.float32)
_TOLERANCE = 2**-7  # relative: what rounding a product to bfloat16 may cost


class Trial(tf.saved_model.experimental.TrackableResource):
    """Multiplies by small matrices whenever an export that holds it is loaded.

    A resource, because a SavedModel initializes those at each load, whatever loads it.

    Args:
        kinds: Of the matrices that the export multiplies by.
    """

    def __init__(self, kinds: Iterable[type[ServedMatrix]]):
        super().__init__()
        # As a kernel and as a table, with several rows and with one: oneDNN has a way for each.
        self._products = [
            (kind(matrix, transposed=transposed, name="trial"), rows, rows @ _MATRIX)
            for kind in kinds
            for matrix, transposed, rows in [(_MATRIX, False, _ROWS), (_MATRIX.T, True, _ROWS[:1])]
        ]

    @property
    def variables(self) -> list[tf.Variable]:
        """What it multiplies by, for the export to hold."""
        return [variable for matrix, _, _ in self._products for variable in matrix.variables]

    def run(self) -> None:
        """Tries it here and now.

        Raises:
            UserError: this machine cannot run the export.
        """
        try:
            tf.function(self._initialize, autograph=False)()
        except (tf.errors.OpError, RuntimeError) as error:  # the latter for an op that is unknown
            needs = ". ".join(dict.fromkeys(_need(matrix) for matrix, _, _ in self._products))
            raise UserError(f"This machine cannot run the export. {needs}.") from error

    def _create_resource(self):
        return tf.raw_ops.VarHandleOp(dtype=tf.bool, shape=[], shared_name="trial")

    def _initialize(self):
        for matrix, rows, expected in self._products:
            need = _need(matrix)
            # TensorFlow names the node of a missing kernel, which so says what is missing.
            with tf.name_scope(re.sub(r"[^A-Za-z0-9-]+", "_", re.sub(r" \(.*?\)", "", need))):
                error = tf.abs(matrix(rows * _one()) - expected)
                is_right = tf.reduce_all(error <= np.abs(expected) * _TOLERANCE)
                tf.debugging.Assert(is_right, [f"{need}. Its products are wrong here."])


def _need(matrix: ServedMatrix) -> str:
    precision = matrix.values.dtype.name
    return (
        f"An export in {precision} needs {matrix.processor} and a TensorFlow with oneDNN: serve "
        "the float32 export on this machine"
    )


def _one() -> tf.Tensor:
    """1.0, by an op that fails where a product of bfloat16 would end the process.

    oneDNN computes both, but only this op catches that oneDNN cannot. The number is in use, since
    TensorFlow drops an op that others merely wait for.
    """
    attrs = {
        "T": attr_value_pb2.AttrValue(type=tf.bfloat16.as_datatype_enum),
        "_kernel": attr_value_pb2.AttrValue(s=b"MklNameChangeOp"),
    }
    graph = tf.compat.v1.get_default_graph()
    only = tf.ones([1, 1], tf.bfloat16)
    softmax = graph.create_op("_MklSoftmax", [only], [tf.bfloat16], name="first", attrs=attrs)
    return tf.cast(softmax.outputs[0], tf.float32)
