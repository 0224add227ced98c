"""Small BERTs of Hugging Face against the answers that `transformers` recorded for them."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest

import tfllm
from tfllm.errors import UserError
from tfllm.huggingface.checkpoint import Checkpoint
from tfllm.huggingface.safetensors import write_safetensors
from tfllm.huggingface.stored import StoredTensor
from tfllm.models import MaskedLM, SpanQA, TextClassifier, TextEmbedder

FIXTURES = Path(__file__).parent / "fixtures"
TASKS = {
    "bert-classifier": TextClassifier,
    "bert-pretraining": MaskedLM,
    "bert-qa": SpanQA,
    "bert-embedder": TextEmbedder,
}


@pytest.fixture(scope="module")
def imported():
    """The imported models by name; tests do not change them."""
    return {name: tfllm.from_huggingface(FIXTURES / name) for name in TASKS}


def expected(name):
    """The recorded rows, as columns."""
    rows = json.loads((FIXTURES / name / "expected.json").read_text())
    return {key: [row[key] for row in rows] for key in rows[0]}


def test_labels_and_their_probabilities_are_those_of_transformers(imported):
    rows = expected("bert-classifier")
    found = imported["bert-classifier"].classify(rows["text"], rows["text_pair"])
    assert found[0].labels == ["sad", "glad", "neither"]
    scores = np.array([answer.scores for answer in found])
    np.testing.assert_allclose(scores, rows["scores"], atol=5e-6)
    best = [
        answer.labels[np.argmax(row)] for answer, row in zip(found, rows["scores"], strict=True)
    ]
    assert [answer.label for answer in found] == best


def test_masked_tokens_and_their_texts_are_those_of_transformers(imported):
    rows = expected("bert-pretraining")
    found = imported["bert-pretraining"].fill_mask(rows["text"])
    for answer, filled in zip(found, rows["filled"], strict=True):
        if filled is None:  # the mask stands behind the cut
            assert answer.error.startswith("the text has no [MASK]")
            continue
        assert (answer.token, answer.text) == (filled["token"], filled["text"])
        np.testing.assert_allclose(answer.score, filled["score"], atol=5e-6)


def test_the_next_sentence_is_as_probable_as_in_transformers(imported):
    rows = expected("bert-pretraining")
    found = imported["bert-pretraining"].next_sentence(rows["first"], rows["second"])
    np.testing.assert_allclose(found, rows["follows"], atol=5e-6)


def test_answers_are_the_best_spans_over_the_windows(imported):
    rows = expected("bert-qa")
    found = imported["bert-qa"].answer(rows["question"], rows["context"])
    for name in ("answer", "start", "end"):
        assert [getattr(answer, name) for answer in found] == rows[name]
    np.testing.assert_allclose([answer.score for answer in found], rows["score"], atol=5e-6)


def test_vectors_are_those_of_transformers(imported):
    rows = expected("bert-embedder")
    found = imported["bert-embedder"].embed(rows["text"])
    np.testing.assert_allclose([answer.embedding for answer in found], rows["embedding"], atol=5e-6)


def tensors(folder):
    checkpoint = Checkpoint(folder)
    return {
        name: checkpoint.take(name, checkpoint.stored(name).shape) for name in checkpoint.names()
    }


@pytest.mark.parametrize("name", TASKS)
def test_the_way_back_gives_the_same_tensors_to_the_bit(imported, name, tmp_path):
    model = imported[name]
    assert type(model) is TASKS[name]
    assert model.preprocessor.sequence_length == 56  # of the tokenizer; the model takes 64
    tfllm.to_huggingface(model, tmp_path / "back")
    first, second = tensors(FIXTURES / name), tensors(tmp_path / "back")
    assert sorted(first) == sorted(second)
    for key, array in first.items():
        assert array.tobytes() == second[key].tobytes(), key
    again = tfllm.from_huggingface(tmp_path / "back")
    assert again.backbone.get_config() | {"name": ""} == model.backbone.get_config() | {"name": ""}
    assert again.preprocessor.sequence_length == 56
    settings = ("labels", "problem_type", "dropout", "next_sentence", "pooling")
    for key in set(settings) & set(model.get_config()):
        assert again.get_config()[key] == model.get_config()[key]


def rewritten(folder, target, rename, **config):
    """A copy of a checkpoint with other names of tensors; those without one are left out."""
    shutil.copytree(folder, target)
    arrays = {rename(name): array for name, array in tensors(folder).items()}
    arrays.pop(None, None)
    layout = {name: StoredTensor(array.shape, "float32") for name, array in arrays.items()}
    write_safetensors(target / "model.safetensors", layout, iter(arrays.items()))
    path = target / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | config))
    return target


def old(name):
    name = name.replace("LayerNorm.weight", "LayerNorm.gamma")
    return name.replace("LayerNorm.bias", "LayerNorm.beta")


@pytest.mark.parametrize(
    ("name", "rename"),
    [
        ("bert-pretraining", old),
        ("bert-qa", lambda name: name.removeprefix("bert.")),
        ("bert-embedder", lambda name: f"bert.{name}"),
    ],
)
def test_older_names_and_names_with_and_without_a_prefix_are_read(imported, tmp_path, name, rename):
    model = tfllm.from_huggingface(rewritten(FIXTURES / name, tmp_path / "other", rename))
    for ours, theirs in zip(model.weights, imported[name].weights, strict=True):
        np.testing.assert_array_equal(ours, theirs)


def test_a_masked_language_model_needs_no_pooler_and_no_judge_of_sentences(imported, tmp_path):
    def without(name):
        return None if "pooler" in name or "seq_relationship" in name else name

    folder = rewritten(
        FIXTURES / "bert-pretraining", tmp_path / "mlm", without, architectures=["BertForMaskedLM"]
    )
    model = tfllm.from_huggingface(folder)
    assert not model.backbone.has_pooler
    text = expected("bert-pretraining")["text"][3]
    assert model.fill_mask(text) == imported["bert-pretraining"].fill_mask(text)
    tfllm.to_huggingface(model, tmp_path / "back")
    assert set(tensors(tmp_path / "back")) == set(tensors(folder))
    config = json.loads((tmp_path / "back" / "config.json").read_text())
    assert config["architectures"] == ["BertForMaskedLM"]


def test_a_classifier_without_names_of_labels_numbers_them(tmp_path):
    folder = rewritten(
        FIXTURES / "bert-classifier", tmp_path / "c", str, id2label=None, num_labels=3
    )
    assert tfllm.from_huggingface(folder).labels == ["LABEL_0", "LABEL_1", "LABEL_2"]


@pytest.mark.parametrize(
    ("config", "words"),
    [
        ({"position_embedding_type": "relative_key"}, "is 'relative_key', only 'absolute' is supp"),
        ({"is_decoder": True}, "is_decoder is True, only False is supported"),
        ({"hidden_act": "mish"}, "hidden_act is 'mish'; known are relu, gelu, gelu_new"),
        ({"id2label": 5}, "id2label must be an object of numbers and labels, got 5"),
        ({"layer_norm_eps": -1}, "layer_norm_eps must be a number above 0, got -1"),
        ({"id2label": {"0": "a", "2": "b"}}, "id2label must name the labels 0 to 1, got"),
        ({"id2label": {"0": "a", "1": "b"}}, r"classifier.weight .* shape \[3, 16\], expected \[2"),
        (
            {"intermediate_size": 32},
            r"intermediate.dense.weight .* \[24, 16\], expected \[32, 16\]",
        ),
        ({"num_hidden_layers": 3}, "has no tensor encoder.layer.2.attention.self.query.weight"),
    ],
)
def test_what_is_no_such_bert_is_refused(tmp_path, config, words):
    folder = tmp_path / "other"
    shutil.copytree(FIXTURES / "bert-classifier", folder)
    path = folder / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | config))
    with pytest.raises(UserError, match=words):
        tfllm.from_huggingface(folder)


def test_a_head_that_is_not_tied_is_refused_and_a_copy_is_not(imported, tmp_path):
    decoder = "cls.predictions.decoder.weight"
    for untied in (False, True):
        folder = tmp_path / str(untied)
        shutil.copytree(FIXTURES / "bert-pretraining", folder)
        arrays = tensors(folder)
        arrays[decoder] = arrays["bert.embeddings.word_embeddings.weight"] + untied
        layout = {name: StoredTensor(array.shape, "float32") for name, array in arrays.items()}
        write_safetensors(folder / "model.safetensors", layout, iter(arrays.items()))
        config = json.loads((folder / "config.json").read_text()) | {"tie_word_embeddings": False}
        (folder / "config.json").write_text(json.dumps(config))
        if untied:
            with pytest.raises(UserError, match="only a head that is tied to the embeddings is su"):
                tfllm.from_huggingface(folder)
        else:
            again = tfllm.from_huggingface(folder)
            assert again.next_sentence("a", "b") == imported["bert-pretraining"].next_sentence(
                "a", "b"
            )


def test_texts_that_are_cut_at_the_other_end_are_refused(tmp_path):
    folder = tmp_path / "left"
    shutil.copytree(FIXTURES / "bert-qa", folder)
    path = folder / "tokenizer_config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"truncation_side": "left"}))
    with pytest.raises(UserError, match="truncation_side is 'left', only 'right' is supported"):
        tfllm.from_huggingface(folder)
