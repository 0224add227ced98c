"""Bytes of tokens, looked up in a graph."""

import numpy as np
import pytest
import tensorflow as tf

from tfllm.tokenizers.byte_table import ByteTable

ENTRIES = [b"", b"a", "é".encode(), b"\xff\x00z", b" of"]


@pytest.mark.parametrize("dtype", [tf.int32, tf.int64])
def test_each_id_gets_its_bytes_whatever_they_are(dtype):
    ids = [[1, 0, 3], [4, 2, 1]]
    found = ByteTable(ENTRIES).look_up(tf.constant(ids, dtype))
    assert found.numpy().tolist() == [[ENTRIES[i] for i in row] for row in ids]


def test_an_id_that_is_none_gets_nothing():
    found = ByteTable(ENTRIES).look_up(tf.constant([-1, 1, 5, 2**31 - 1, -(2**31)]))
    assert found.numpy().tolist() == [b"", b"a", b"", b"", b""]


@pytest.mark.parametrize("shape", [[0], [0, 3], [3, 0]])
def test_no_ids_get_no_bytes(shape):
    found = ByteTable(ENTRIES).look_up(tf.zeros(shape, tf.int32))
    assert found.shape == shape
    assert found.dtype == tf.string


def test_a_table_without_entries_knows_no_id():
    table = ByteTable([])
    assert table.longest == 0
    assert table.look_up(tf.constant([0, 1])).numpy().tolist() == [b"", b""]


def test_a_graph_holds_the_entries_as_numbers():
    table = ByteTable([b"%d" % i for i in range(1000)])
    spec = tf.TensorSpec([None], tf.int32)
    concrete = tf.function(table.look_up, input_signature=[spec], autograph=False)
    graph = concrete.get_concrete_function().graph
    held = [tensor for tensor, _ in graph.captures if tensor.dtype == tf.string]
    held += [op.outputs[0] for op in graph.get_operations() if op.type == "Const"]
    assert max((np.prod(t.shape) for t in held if t.dtype == tf.string), default=0) <= 256
    assert table.longest == 3
