"""What is left of a graph in an export."""

import numpy as np
import pytest
import tensorflow as tf
from tensorflow.core.protobuf import meta_graph_pb2, saved_model_pb2

from tfllm.export.lean import make_lean


@pytest.fixture
def folder(tmp_path):
    module = tf.Module()
    module.weight = tf.Variable([1.0, 2.0])

    @tf.function(input_signature=[tf.TensorSpec([None, 2], name="x")], autograph=False)
    def f(x):
        def twice(i, y):
            return i + 1, tf.reshape(y * module.weight + tf.constant(3.0), [-1, 2])

        _, y = tf.while_loop(
            lambda i, _: i < 2, twice, (tf.constant(0), tf.reshape(x + tf.constant(3.0), [-1, 2]))
        )
        first = tf.constant(3.0)
        with tf.control_dependencies([first]):
            assured = tf.cond(tf.reduce_all(y > 0), lambda: y, lambda: y + tf.constant(3.0))
        return {"y": assured, "first": first, "again": tf.constant(3.0)}

    path = tmp_path / "model"
    tf.saved_model.save(module, str(path), signatures={"serving_default": f})
    return path


def read(folder):
    return saved_model_pb2.SavedModel.FromString((folder / "saved_model.pb").read_bytes())


def answer(folder, saved_model, x):
    (folder / "saved_model.pb").write_bytes(saved_model.SerializeToString())
    with tf.compat.v1.Session(graph=tf.Graph()) as session:
        loaded = tf.compat.v1.saved_model.load(session, ["serve"], str(folder))
        signature = loaded.signature_def["serving_default"]
        outputs = {name: info.name for name, info in signature.outputs.items()}
        in_session = session.run(outputs, {signature.inputs["x"].name: x})
    live = tf.saved_model.load(str(folder)).signatures["serving_default"](x=tf.constant(x))
    return in_session, {name: tensor.numpy() for name, tensor in live.items()}


def test_a_lean_graph_gives_the_same_answers_in_either_loader(folder):
    x = np.array([[0.5, -9.0], [1.0, 2.0]], np.float32)
    before, _ = answer(folder, read(folder), x)
    saved_model = read(folder)
    make_lean(saved_model.meta_graphs[0])
    for after in answer(folder, saved_model, x):
        for name in before:
            np.testing.assert_array_equal(after[name], before[name])


def test_no_function_has_a_constant_twice_or_notes_of_shapes(folder):
    (meta_graph,) = read(folder).meta_graphs
    make_lean(meta_graph)
    for function in meta_graph.graph_def.library.function:
        nodes = list(function.node_def)
        assert not any("_output_shapes" in node.attr for node in nodes)
        constants = [node for node in nodes if node.op == "Const"]
        for node in constants:
            node.ClearField("name")
        kinds = {node.SerializeToString(deterministic=True) for node in constants}
        assert len(constants) == len(kinds)


def test_what_writes_variables_is_gone_and_what_reads_them_is_there(folder):
    (meta_graph,) = read(folder).meta_graphs

    def ops():
        bodies = [function.node_def for function in meta_graph.graph_def.library.function]
        return {node.op for body in [meta_graph.graph_def.node, *bodies] for node in body}

    assert ops() >= {"SaveV2", "RestoreV2", "While"}
    make_lean(meta_graph)
    assert "SaveV2" not in ops()
    assert ops() >= {"RestoreV2", "While"}


def test_what_a_function_returns_may_be_a_constant_that_another_stands_for():
    meta_graph = meta_graph_pb2.MetaGraphDef()
    meta_graph.saver_def.restore_op_name = meta_graph.saver_def.filename_tensor_name = "call"
    call = meta_graph.graph_def.node.add(name="call", op="PartitionedCall")
    call.attr["f"].func.name = "f"
    function = meta_graph.graph_def.library.function.add()
    function.signature.name = "f"
    for name in ("one", "two"):
        function.node_def.add(name=name, op="Const").attr["dtype"].type = 1
        function.ret[name], function.control_ret[name] = f"{name}:output:0", name
    make_lean(meta_graph)
    (function,) = meta_graph.graph_def.library.function
    assert [node.name for node in function.node_def] == ["one"]
    assert dict(function.ret) == {"one": "one:output:0", "two": "one:output:0"}
    assert dict(function.control_ret) == {"one": "one", "two": "one"}
