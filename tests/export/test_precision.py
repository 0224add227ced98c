"""Exports in bfloat16 and int8: nearly the answers of the live model, from fewer bytes."""

import json

import numpy as np
import pytest
import tensorflow as tf

from tfllm import contract
from tfllm.cli import main
from tfllm.errors import UserError
from tfllm.export import for_serving, inspect_export
from tfllm.export.check import run_in_fresh_process
from tfllm.export.precision import served_in

PROMPTS = ["one two", "", "你好，世界", "the cat sat on the mat and the dog", "smile 🙂"]
COMPLETIONS = [" three", "你", "。今天", " sat on", " wave"]


def scores(model):
    return [answer.logprob for answer in model.score(PROMPTS, COMPLETIONS)]


@pytest.mark.parametrize(
    ("kind", "precision", "nats"), [("gpt", "int8", 0.4), ("lstm", "bfloat16", 0.1)]
)
def test_it_answers_nearly_as_the_live_model_and_is_smaller(
    request, kind, precision, nats, tmp_path
):
    model = request.getfixturevalue(kind)
    before = [variable.numpy() for variable in model.variables]
    expected = scores(model)
    folder = for_serving(model, tmp_path / "model", precision=precision)
    requests = [(contract.SCORE, {"prompt": PROMPTS, "completion": COMPLETIONS})]
    (found,) = run_in_fresh_process(folder, requests)
    difference = np.abs(np.array(found["logprob"]) - expected)
    assert 0 < difference.max() < nats
    in_python = tf.saved_model.load(str(folder)).signatures[contract.SCORE]
    again = in_python(prompt=tf.constant(PROMPTS), completion=tf.constant(COMPLETIONS))
    np.testing.assert_allclose(again["logprob"], found["logprob"], atol=1e-4)
    about = inspect_export(folder)
    assert about["metadata"]["precision"] == precision
    assert set(about["metadata"]["internal_ops"]) <= set(about["ops"])
    weights = sum(variable.numpy().nbytes for variable in model.variables)
    stored = sum(path.stat().st_size for path in (folder / "variables").iterdir())
    assert stored < weights * {"bfloat16": 0.8, "int8": 0.6}[precision]
    # The live model is as it was.
    assert scores(model) == expected
    for variable, value in zip(model.variables, before, strict=True):
        np.testing.assert_array_equal(variable, value)


def test_layers_that_are_named_stay_in_float32(gpt):
    with served_in(gpt, "int8", keep=["*/feed_forward/outer", "*/attention/key"]):
        block = gpt.backbone.blocks[0]
        assert block.feed_forward.outer.served is None
        assert block.feed_forward.inner.served is not None
        # Queries, keys and values are one product where none of them stays.
        assert block.attention.served is None
        assert block.attention.key.served is None
        assert block.attention.query.served is not None
    assert block.feed_forward.inner.served is None


def test_of_several_precisions_each_is_a_version_in_that_order(new_model, tmp_path, capsys):
    preset, base = tmp_path / "preset", tmp_path / "lm"
    new_model("lstm", num_layers=1, hidden_dim=8).save_to_preset(preset)
    several = ["--precision", "float32", "--precision", "int8", "--keep", "token_embedding"]
    assert main(["export", str(preset), "--to", str(base), *several]) == 0
    assert json.loads(capsys.readouterr().out) == {
        "versions": [
            {"version": str(base / "1"), "precision": "float32"},
            {"version": str(base / "2"), "precision": "int8"},
        ]
    }
    versions = [base / "1", base / "2"]
    portable, rounded = map(inspect_export, versions)
    assert portable["metadata"]["precision"] == "float32"
    assert portable["machines"] == "any that runs TensorFlow"
    assert rounded["metadata"]["precision"] == "int8"
    assert "AVX-512 VNNI" in rounded["machines"]
    assert "_QuantizedMatMul" in rounded["machines"]
    # What is tried as it is loaded begins with this op, which nothing else is made of.
    assert "_MklSoftmax" in rounded["ops"]
    assert "_MklSoftmax" not in portable["ops"]


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"precision": "int4"}, "precision must be one of float32, bfloat16, int8, got 'int4'"),
        ({"precision": "int8", "keep": ["*/nothing"]}, "no layer with a matrix has a path like"),
        ({"precision": None, "keep": ["*"]}, "there is nothing to keep in float32"),
        ({"precision": ["float32"], "keep": ["*"]}, "there is nothing to keep in float32"),
        ({"precision": []}, "precision is an empty list"),
        ({"precision": ["float32", "int4"]}, "precision must be one of .*, got 'int4'"),
    ],
)
def test_what_cannot_be_is_refused_and_nothing_is_written(gpt, tmp_path, arguments, words):
    with pytest.raises(UserError, match=words):
        for_serving(gpt, tmp_path / "model", **arguments)
    assert not (tmp_path / "model").exists()
