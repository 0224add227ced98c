"""Where the kernels of rounded matrices are missing or wrong, an export says so as it is loaded."""

import platform

import numpy as np
import pytest
import tensorflow as tf
from tensorflow.core.protobuf import saved_model_pb2

from tfllm.errors import UserError
from tfllm.export.check import CheckFailed, run_in_fresh_process
from tfllm.export.trial import Trial
from tfllm.layers import BFloat16Matrix, Int8Matrix
from tfllm.serving import Client, ServedModel, Server
from tfllm.serving.versions import State

KINDS = {"int8": Int8Matrix, "bfloat16": BFloat16Matrix}


class WrongInt8Matrix(Int8Matrix):
    """As a kernel whose sums saturate."""

    def __call__(self, x):
        return tf.minimum(super().__call__(x), 32767.0)


class UnknownInt8Matrix(Int8Matrix):
    """As where TensorFlow is built without oneDNN."""

    def __call__(self, x):
        graph = tf.compat.v1.get_default_graph()
        return graph.create_op("_NoSuchMatMul", [x], [tf.float32]).outputs[0]


def save(folder, *kinds):
    """An export of nothing but the trial, and a signature without rounded matrices."""
    module = tf.Module()
    module.trial = Trial(kinds)
    module.weights = module.trial.variables
    module.double = tf.function(
        lambda x: {"y": x * 2.0}, input_signature=[tf.TensorSpec([None], tf.float32, "x")]
    )
    tf.saved_model.save(module, str(folder), signatures=module.double)
    return folder


def load(folder):
    with tf.compat.v1.Session(graph=tf.Graph()) as session:
        tf.compat.v1.saved_model.load(session, ["serve"], str(folder))


def without_kernel(folder):
    """As on a machine whose TensorFlow knows the ops and has no kernels for them."""
    path = folder / "saved_model.pb"
    saved_model = saved_model_pb2.SavedModel.FromString(path.read_bytes())
    for function in saved_model.meta_graphs[0].graph_def.library.function:
        for node in function.node_def:
            if node.op == "_QuantizedMatMul":
                node.attr["T1"].type = tf.qint32.as_datatype_enum
            if node.op == "_MklNativeFusedMatMul":
                node.attr["_kernel"].s = b"none"
    path.write_bytes(saved_model.SerializeToString())
    return folder


def test_an_export_loads_where_the_products_are_right(tmp_path):
    load(save(tmp_path / "1", *KINDS.values()))


@pytest.mark.parametrize("precision", KINDS)
def test_a_missing_kernel_fails_the_load_by_a_node_that_says_what_is_needed(tmp_path, precision):
    folder = without_kernel(save(tmp_path / "1", KINDS[precision]))
    words = f"An_export_in_{precision}_needs_.*TensorFlow_with_oneDNN_serve_the_float32_export"
    with pytest.raises(tf.errors.InvalidArgumentError, match=f"No OpKernel was reg.*{words}"):
        load(folder)


def test_wrong_products_fail_the_load(tmp_path):
    folder = save(tmp_path / "1", WrongInt8Matrix)
    with pytest.raises(tf.errors.InvalidArgumentError, match="int8 needs .*products are wrong he"):
        load(folder)


@pytest.mark.skipif(platform.machine() != "x86_64", reason="instruction sets of x86-64")
@pytest.mark.parametrize(("precision", "isa"), [("int8", "AVX512_CORE"), ("bfloat16", "AVX2")])
def test_the_load_fails_on_older_processors(tmp_path, monkeypatch, precision, isa):
    folder = save(tmp_path / "1", KINDS[precision])
    monkeypatch.setenv("ONEDNN_MAX_CPU_ISA", isa)
    with pytest.raises(CheckFailed, match=f"An.export.in.{precision}.needs.an.x86-64.processor"):
        run_in_fresh_process(folder, [])


@pytest.mark.parametrize("kind", [WrongInt8Matrix, UnknownInt8Matrix])
def test_a_machine_that_cannot_run_an_export_does_not_write_one(kind):
    with pytest.raises(UserError, match="This machine cannot run the export. An export in int8"):
        Trial([kind]).run()
    Trial(KINDS.values()).run()


def test_a_server_of_two_versions_answers_with_the_one_below(tmp_path):
    save(tmp_path / "1")
    without_kernel(save(tmp_path / "2", Int8Matrix))
    with Server({"m": ServedModel(str(tmp_path), latest=2)}, port=0) as server:
        versions = server.versions
        versions.wait_until(lambda: len(ended(versions)) == 2, 60)
        newest, below = versions.statuses("m")
        assert (newest.version, newest.state) == (2, State.END)
        assert "An_export_in_int8_needs_an_x86-64_processor" in newest.error.message
        assert (below.version, below.state) == (1, State.AVAILABLE)
        with Client(f"127.0.0.1:{server.port}", "m") as client:
            answer = client.predict({"x": np.ones(2, np.float32)}, "serving_default")
    np.testing.assert_array_equal(answer["y"], [2, 2])


def ended(versions):
    return [v for v in versions.statuses("m") if v.state in (State.AVAILABLE, State.END)]
