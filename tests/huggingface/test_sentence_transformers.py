"""Folders of sentence-transformers: pooling, projections, the longest text."""

import json
import shutil
from pathlib import Path

import keras
import numpy as np
import pytest

import tfllm
from tfllm.errors import UserError
from tfllm.models import TextEmbedder

FIXTURE = Path(__file__).parent / "fixtures" / "bert-embedder"
TEXTS = ["", "Hello, world", "one two three " * 9]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A folder with two projections, and its model."""
    keras.utils.set_random_seed(0)
    plain = tfllm.from_huggingface(FIXTURE)
    plain.preprocessor.sequence_length = 30
    model = TextEmbedder(
        plain.backbone,
        plain.preprocessor,
        pooling="cls",
        projections=[(6, "tanh"), (4, "linear", False)],
    )
    target = tmp_path_factory.mktemp("folders") / "embedder"
    tfllm.to_huggingface(model, target)
    return target, model


def test_a_folder_with_projections_comes_back_as_it_was(folder):
    target, model = folder
    again = tfllm.from_huggingface(target)
    assert again.embed(TEXTS) == model.embed(TEXTS)
    assert again.preprocessor.sequence_length == 30
    kinds = [entry["type"] for entry in json.loads((target / "modules.json").read_text())]
    assert [kind.rpartition(".")[2] for kind in kinds] == [
        "Transformer",
        "Pooling",
        "Dense",
        "Dense",
        "Normalize",
    ]


def test_a_longest_text_that_is_not_said_is_that_of_the_tokenizer(folder, tmp_path):
    again = tfllm.from_huggingface(
        changed(folder, tmp_path, "sentence_bert_config.json", max_seq_length=None)
    )
    assert again.preprocessor.sequence_length == 30
    again = tfllm.from_huggingface(
        changed(folder, tmp_path, "sentence_bert_config.json", max_seq_length=20)
    )
    assert again.preprocessor.sequence_length == 20


@pytest.mark.parametrize(
    ("said", "pooling"),
    [
        ({"pooling_mode": "max"}, "max"),
        ({"pooling_mode": ["mean"]}, "mean"),
        ({"pooling_mode_cls_token": False, "pooling_mode_mean_tokens": True}, "mean"),
    ],
)
def test_new_and_old_names_of_poolings_are_read(folder, tmp_path, said, pooling):
    model = tfllm.from_huggingface(changed(folder, tmp_path, "1_Pooling/config.json", **said))
    assert model.pooling == pooling
    assert len(model.embed("x").embedding) == 4


def changed(folder, tmp_path, file, **entries):
    """A copy in which a file says something else."""
    target = tmp_path / f"changed-{len(list(tmp_path.iterdir()))}"
    shutil.copytree(folder[0], target)
    content = json.loads((target / file).read_text()) if (target / file).exists() else {}
    if isinstance(content, list):
        content[entries["place"]] |= entries["entry"]
    else:
        content |= entries
    (target / file).write_text(json.dumps(content))
    return target


@pytest.mark.parametrize(
    ("file", "entries", "words"),
    [
        ("modules.json", {"place": 2, "entry": {"type": "x.LSTM"}}, "lists Transformer, Pooling, "),
        ("modules.json", {"place": 0, "entry": {"path": "0_BERT"}}, "expected a Transformer in th"),
        ("modules.json", {"place": 1, "entry": {"type": None}}, "damaged: expected a list of mod"),
        (
            "1_Pooling/config.json", {"pooling_mode": ["mean", "max"]},
            "asks for the pooling mean, max; expected one of mean, cls, max",
        ),
        ("1_Pooling/config.json", {"pooling_mode": "lasttoken"}, "asks for the pooling lasttoken"),
        ("1_Pooling/config.json", {"pooling_mode_cls_token": False}, "asks for the pooling none"),
        ("1_Pooling/config.json", {"include_prompt": False}, "include_prompt is False, only True"),
        ("2_Dense/config.json", {"use_residual": True}, "use_residual is True, only False"),
        ("2_Dense/config.json", {"activation_function": "torch.x.Mish"}, "is Mish; known are Iden"),
        ("2_Dense/config.json", {"out_features": 7}, r"linear.weight .* \[6, 16\], expected \[7"),
        ("sentence_bert_config.json", {"do_lower_case": True}, "do_lower_case is True, only False"),
        (
            "config_sentence_transformers.json", {"default_prompt_name": "query"},
            "default_prompt_name is 'query', only None is supported",
        ),
    ],
)  # fmt: skip
def test_what_our_embedder_has_not_is_refused(folder, tmp_path, file, entries, words):
    with pytest.raises(UserError, match=words):
        tfllm.from_huggingface(changed(folder, tmp_path, file, **entries))


def test_vectors_have_unit_length_whether_the_folder_says_so_or_not(folder, tmp_path):
    target = changed(folder, tmp_path, "sentence_bert_config.json")
    path = target / "modules.json"
    path.write_text(json.dumps(json.loads(path.read_text())[:-1]))
    found = tfllm.from_huggingface(target).embed(TEXTS)
    np.testing.assert_allclose([np.linalg.norm(answer.embedding) for answer in found], 1, atol=1e-6)
    assert found == folder[1].embed(TEXTS)
