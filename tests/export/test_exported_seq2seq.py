"""An encoder–decoder model over gRPC, against the answers that `transformers` recorded.

It is a Marian, which is further from the other exports than a T5 is; `make parity` serves a T5.
"""

import json
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf

import tfllm
from tfllm.export import for_serving, inspect_export
from tfllm.serving import Client, Server

FIXTURE = Path(__file__).parents[1] / "huggingface" / "fixtures" / "marian-separate"


@pytest.fixture(scope="module")
def model():
    return tfllm.from_huggingface(FIXTURE)


@pytest.fixture(scope="module")
def exported(model, tmp_path_factory):
    return for_serving(model, tmp_path_factory.mktemp("models") / "marian")


@pytest.fixture(scope="module")
def client(exported):
    with Server([str(exported.parent)], port=0) as server:
        server.wait_until_available()
        with Client(f"127.0.0.1:{server.port}", "marian") as client:
            yield client


@pytest.fixture(scope="module")
def expected():
    return json.loads((FIXTURE / "expected.json").read_text())


def test_texts_and_beams_are_those_of_transformers(client, expected):
    prompts = [row["prompt"] for row in expected]
    found = client.generate(prompts)
    assert [answer.text for answer in found] == [row["text"] for row in expected]
    beams = client.beam_search(prompts)
    assert [each.text for each in beams] == [row["beams"] for row in expected]
    scores = [row["scores"] for row in expected]
    np.testing.assert_allclose([each.score for each in beams], scores, atol=1e-4)


def test_scores_and_samples_are_those_of_the_live_model(client, model):
    prompts, targets = ["one two three", "", "x" * 40_000], ["three two one", "", "four"]
    for served, live in zip(
        client.score(prompts, targets), model.score(prompts, targets), strict=True
    ):
        assert served.logprob == pytest.approx(live.logprob, abs=1e-3)
        assert served[1:] == live[1:]
    sampled = {"temperature": 1.0, "seed": [3, 4, 5], "max_new_tokens": [3, 20, 9]}
    texts = [answer.text for answer in client.generate(prompts, **sampled)]
    assert texts == [answer.text for answer in model.generate(prompts, **sampled)]


def test_the_loader_of_python_reads_the_export(exported, model):
    """Marian's activation has a gradient of its own, which no export needs."""
    tokenize = tf.saved_model.load(str(exported)).signatures["tokenize"]
    ids = tokenize(text=tf.constant(["one two"]))["token_ids"].numpy()[0].tolist()
    assert ids == model.preprocessor.tokenizer.encode("one two")


def test_the_export_says_what_it_is(exported):
    metadata = inspect_export(exported)["metadata"]
    assert (metadata["task"], metadata["model"]) == ("seq2seq_lm", "MarianSeq2SeqLM")
    assert (metadata["context_length"], metadata["beams"]) == (512, 4)
