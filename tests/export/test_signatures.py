"""What is written in saved_model.pb, without running it."""

import json

import pytest
import tensorflow as tf
from tensorflow.core.framework import types_pb2
from tensorflow.core.protobuf import saved_model_pb2

from tfllm import contract


@pytest.fixture
def graph(exported):
    saved_model = saved_model_pb2.SavedModel()
    saved_model.ParseFromString((exported / "saved_model.pb").read_bytes())
    (graph,) = saved_model.meta_graphs
    return graph


@pytest.fixture
def nodes(graph):
    functions = graph.graph_def.library.function
    return [*graph.graph_def.node, *(node for f in functions for node in f.node_def)]


def tensors(infos):
    return {
        name: (
            types_pb2.DataType.Name(info.dtype)
            .removeprefix("DT_")
            .lower()
            .replace("float", "float32"),
            [dim.size for dim in info.tensor_shape.dim],
        )
        for name, info in infos.items()
    }


def fields(signature_fields):
    return {
        field.name: (field.dtype, [-1, *(n or -1 for n in field.shape)])
        for field in signature_fields
    }


def test_names_dtypes_and_shapes_are_those_of_the_contract(graph):
    signatures = {k: v for k, v in graph.signature_def.items() if not k.startswith("__")}
    assert set(signatures) == set(contract.GENERATOR_SIGNATURES)
    for name, expected in contract.GENERATOR_SIGNATURES.items():
        assert tensors(signatures[name].inputs) == fields(expected.inputs)
        outputs = tensors(signatures[name].outputs)
        for field, (dtype, shape) in fields(expected.outputs).items():
            found, dims = outputs.pop(field)
            # The contract leaves the number of beams open, an export fixes it.
            fixed = [
                4 if n < 0 and name == contract.BEAM_SEARCH and i else n
                for i, n in enumerate(shape)
            ]
            assert (found, dims) == (dtype, fixed)
        assert not outputs
        assert signatures[name].method_name == expected.method


def test_optional_inputs_have_the_contract_s_defaults_for_one_row_and_others_have_none(graph):
    for name, expected in contract.GENERATOR_SIGNATURES.items():
        defaults = {
            key: tf.make_ndarray(value) for key, value in graph.signature_def[name].defaults.items()
        }
        wanted = {field for field in expected.inputs if field.default is not None}
        assert set(defaults) == {field.name for field in wanted}
        for field in wanted:
            value = tf.constant([field.default], field.dtype)
            assert defaults[field.name].dtype == value.numpy().dtype
            assert defaults[field.name].tolist() == value.numpy().tolist()


def test_nothing_must_be_compiled_by_xla_which_the_stock_server_has_not(graph, nodes):
    attributes = [*nodes, *graph.graph_def.library.function]
    assert len(attributes) > 100
    for holder in attributes:
        for name in ("_XlaMustCompile", "XlaMustCompile"):
            assert not (name in holder.attr and holder.attr[name].b), holder
    assert not any(node.op.startswith("Xla") for node in nodes)


def test_all_ops_are_those_of_the_stock_server(nodes):
    foreign = {node.op for node in nodes} - set(dir(tf.raw_ops))
    assert foreign == {"SentencepieceOp", "SentencepieceTokenizeOp"}
    assert not [node.op for node in nodes if "PyFunc" in node.op]


def test_only_the_model_s_weights_are_stored_not_the_optimizer_s(exported, model):
    stored = tf.train.list_variables(str(exported / "variables" / "variables"))
    numbers = sum(
        tf.TensorShape(shape).num_elements() for name, shape in stored if "OBJECT" not in name
    )
    assert numbers == sum(tf.TensorShape(v.shape).num_elements() for v in model.variables)


def test_the_description_beside_the_graph_says_what_the_export_is(exported_gpt, tokenizer):
    metadata = json.loads((exported_gpt / contract.METADATA_FILE).read_text())
    assert metadata.pop("tfllm")
    assert metadata == {
        "task": "causal_lm",
        "model": "GPTCausalLM",
        "context_length": 64,
        "beams": 4,
        "prompt_lookup": 0,
        "vocabulary_size": tokenizer.vocabulary_size(),
        "tokenizer": "SentencePieceTokenizer",
        "precision": "float32",
        "internal_ops": [],
        "source": "runs/gpt/preset",
        "tensorflow": tf.__version__,
    }
