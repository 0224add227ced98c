"""Exports of the four tasks of an encoder, asked over gRPC and through the v1 Session loader."""

import json
from pathlib import Path

import grpc
import numpy as np
import pytest
import tensorflow as tf
from tensorflow.core.protobuf import saved_model_pb2
from tensorflow_serving.apis import classification_pb2, prediction_service_pb2_grpc

import tfllm
from tfllm import contract
from tfllm.export import for_serving
from tfllm.export.check import run_in_fresh_process
from tfllm.serving import Client, Server

FIXTURES = Path(__file__).parents[1] / "huggingface" / "fixtures"
SIGNATURES = {
    "classifier": contract.CLASSIFIER_SIGNATURES,
    "pretraining": contract.MASKED_LM_SIGNATURES,
    "qa": contract.SPAN_QA_SIGNATURES,
    "embedder": contract.EMBEDDER_SIGNATURES,
}
OPTIONS = {"pretraining": {"top_k": 3}, "qa": {"max_answer_len": 4}}
TEXTS = ["one two three", "", "Hello, world! 你好", "the quick brown fox " * 40, "x" * 30_000]
CONTEXT = "one two three four five six seven eight nine ten " * 5


@pytest.fixture(scope="module")
def models():
    return {name: tfllm.from_huggingface(FIXTURES / f"bert-{name}") for name in SIGNATURES}


@pytest.fixture(scope="module")
def folders(models, tmp_path_factory):
    """The version folder of each."""
    base = tmp_path_factory.mktemp("models")
    return {
        name: for_serving(model, base / name, source=name, **OPTIONS.get(name, {}))
        for name, model in models.items()
    }


@pytest.fixture(scope="module")
def server(folders):
    with Server({name: str(folder.parent) for name, folder in folders.items()}, port=0) as server:
        server.wait_until_available(60)
        yield server


@pytest.fixture(scope="module")
def clients(folders, server):
    return {name: Client(f"localhost:{server.port}", name) for name in folders}


def same(found, expected):
    """Rows of answers: texts exactly, numbers as they can be after other kernels."""
    assert len(found) == len(expected) > 1
    for ours, theirs in zip(found, expected, strict=True):
        for a, b in zip(ours, theirs, strict=True):
            if isinstance(a, float) or (isinstance(a, list) and a and isinstance(a[0], float)):
                np.testing.assert_allclose(a, b, atol=1e-5)
            else:
                assert a == b


def test_served_labels_are_those_of_the_live_model(clients, models):
    client, model = clients["classifier"], models["classifier"]
    same(client.classify(TEXTS), model.classify(TEXTS))
    others = ["", "one", "two three " * 30, "", "x"]
    same(client.classify(TEXTS, others), model.classify(TEXTS, others))
    assert [answer.error == "" for answer in client.classify(TEXTS)] == [True] * 4 + [False]
    plain = client.predict({"text": TEXTS[:2]})
    assert [label.decode() for label in plain["label"]] == [
        answer.label for answer in model.classify(TEXTS[:2])
    ]


def test_served_masks_are_filled_as_by_the_live_model(clients, models):
    texts = ["one [MASK] three", "no mask", "[MASK] two [MASK]", "the " * 80 + "[MASK]"]
    found = clients["pretraining"].fill_mask(texts)
    expected = models["pretraining"].fill_mask(texts)
    same(found, [answer._replace(**first_of(answer, 3)) for answer in expected])
    assert [answer.error == "" for answer in found] == [True, False, True, False]


def first_of(answer, k):
    return {name: getattr(answer, name)[:k] for name in ("token", "score", "text")}


def test_served_answers_are_those_of_the_live_model(clients, models):
    questions = ["four?", "", "two?", "one " * 60, "x"]
    contexts = [CONTEXT, CONTEXT, "", "é 👋 one two", "b " * 30_000]
    found = clients["qa"].answer(questions, contexts)
    text = models["qa"].text(max_answer_len=4)
    live = text.answer(tf.constant(questions), tf.constant(contexts))
    columns = [live[name].numpy().tolist() for name in contract.Answer._fields]
    expected = [
        contract.Answer(answer.decode(), score, start, end, error.decode())
        for answer, score, start, end, error in zip(*columns, strict=True)
    ]
    same(found, expected)
    assert [answer.error == "" for answer in found] == [True, False, False, True, False]
    for answer, context in zip(found, contexts, strict=True):
        assert context[answer.start : answer.end] == answer.answer


def test_served_vectors_are_those_of_the_live_model(clients, models):
    same(clients["embedder"].embed(TEXTS), models["embedder"].embed(TEXTS))
    (one,) = clients["embedder"].embed(TEXTS[:1])
    np.testing.assert_allclose(
        one.embedding, models["embedder"].embed(TEXTS[0]).embedding, atol=1e-5
    )


@pytest.mark.parametrize("name", SIGNATURES)
def test_tokens_go_there_and_back(clients, models, name):
    assert clients[name].tokenize(TEXTS[:3]) == models[name].tokenize(TEXTS[:3])
    ids = models[name].tokenize("Hello, world!")
    assert clients[name].detokenize(ids) == models[name].detokenize(ids) == "hello, world!"


def example(**features):
    def feature(value):
        if isinstance(value, int):
            return tf.train.Feature(int64_list=tf.train.Int64List(value=[value]))
        return tf.train.Feature(bytes_list=tf.train.BytesList(value=[value.encode()]))

    found = {name: feature(value) for name, value in features.items()}
    return tf.train.Example(features=tf.train.Features(feature=found)).SerializeToString()


def test_examples_are_classified_in_the_session_and_a_bad_one_fails_alone(folders, models):
    examples = [
        example(text="one two"),
        b"\xff\xff no example",
        example(text="one two", text_pair="three", other=5),
        example(text=7),
        example(),
        example(text="x" * 30_000),
    ]
    request = (contract.CLASSIFY_EXAMPLES, {"inputs": examples})
    (found,) = run_in_fresh_process(folders["classifier"], [request])
    live = models["classifier"].classify(["one two", "one two", ""], ["", "three", ""])
    expected = [live[0].scores, [0.0] * 3, live[1].scores, [0.0] * 3, live[2].scores, [0.0] * 3]
    np.testing.assert_allclose(found["scores"], expected, atol=1e-5)
    names, none = ["sad", "glad", "neither"], [""] * 3
    assert found["classes"] == [names, none, names, none, names, none]


def test_the_classify_rpc_answers_as_the_client_does(clients, server):
    client = clients["classifier"]
    request = classification_pb2.ClassificationRequest(
        model_spec={"name": "classifier", "signature_name": contract.CLASSIFY_EXAMPLES}
    )
    for text in TEXTS[:2]:
        row = request.input.example_list.examples.add()
        row.features.feature["text"].bytes_list.value.append(text.encode())

    with grpc.insecure_channel(f"localhost:{server.port}") as channel:
        stub = prediction_service_pb2_grpc.PredictionServiceStub(channel)
        found = stub.Classify(request, timeout=60).result.classifications

    expected = client.classify(TEXTS[:2])
    for row, answer in zip(found, expected, strict=True):
        assert [one.label for one in row.classes] == ["sad", "glad", "neither"]
        np.testing.assert_allclose([one.score for one in row.classes], answer.scores, atol=1e-5)


@pytest.mark.parametrize("name", SIGNATURES)
def test_signatures_are_those_of_the_contract_and_ops_those_of_the_stock_server(folders, name):
    saved_model = saved_model_pb2.SavedModel()
    saved_model.ParseFromString((folders[name] / "saved_model.pb").read_bytes())
    (graph,) = saved_model.meta_graphs
    found = {k: v for k, v in graph.signature_def.items() if not k.startswith("__")}
    assert set(found) == set(SIGNATURES[name])
    for key, expected in SIGNATURES[name].items():
        assert set(found[key].inputs) == {field.name for field in expected.inputs}
        assert set(found[key].outputs) == {field.name for field in expected.outputs}
        assert found[key].method_name == expected.method
    functions = graph.graph_def.library.function
    nodes = [*graph.graph_def.node, *(node for f in functions for node in f.node_def)]
    ops = {node.op for node in nodes}
    assert ops - set(dir(tf.raw_ops)) == {"FastWordpieceTokenizeWithOffsets"}
    assert not [op for op in ops if "PyFunc" in op or op.startswith("Xla")]
    compiled = [n for n in (*nodes, *functions) if n.attr["_XlaMustCompile"].b]
    assert not compiled


def test_the_description_says_what_the_export_is(folders):
    found = {
        name: json.loads((folder / contract.METADATA_FILE).read_text())
        for name, folder in folders.items()
    }
    assert {name: entry["task"] for name, entry in found.items()} == {
        "classifier": "text_classifier",
        "pretraining": "masked_lm",
        "qa": "span_qa",
        "embedder": "text_embedder",
    }
    assert {entry["context_length"] for entry in found.values()} == {56}
    assert found["classifier"]["labels"] == ["sad", "glad", "neither"]
    assert found["pretraining"]["top_k"] == 3
    assert found["embedder"]["pooling"] == "mean"
