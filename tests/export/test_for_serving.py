"""What `for_serving` refuses, and what it leaves behind."""

import json
import stat

import pytest
import tensorflow as tf
from tensorflow_serving.apis import prediction_log_pb2

from tfllm import contract
from tfllm.errors import UserError
from tfllm.export import CheckFailed, for_serving


@pytest.fixture
def interpreter(tmp_path):
    """Makes an interpreter of a shell line, which runs instead of Python."""

    def make(line):
        script = tmp_path / "python"
        script.write_text(f"#!/bin/sh\n{line}\n")
        script.chmod(script.stat().st_mode | stat.S_IXUSR)
        return str(script)

    return make


@pytest.fixture(scope="module")
def small(new_model):
    return new_model("lstm", num_layers=1, hidden_dim=8)


def test_an_export_that_does_not_run_is_not_published(small, tmp_path, interpreter):
    broken = interpreter('echo "no such op: FlashAttention" >&2; exit 1')
    with pytest.raises(CheckFailed, match="(?s)does not run in a process of its own:.*no such op"):
        for_serving(small, tmp_path / "models" / "lm", check_python=broken)
    assert list((tmp_path / "models" / "lm").iterdir()) == []


def test_an_export_that_answers_otherwise_is_not_published(small, tmp_path, interpreter):
    other = interpreter("""echo '[{"text": ["Hello"]}, {}, {}, {}, {}, {}]'""")
    with pytest.raises(CheckFailed, match="model in text, row 0: expected .*, got 'Hello'"):
        for_serving(small, tmp_path / "lm", check_python=other)
    assert list((tmp_path / "lm").iterdir()) == []


def test_only_models_with_a_preprocessor_are_exported(new_model, tmp_path):
    words = r"takes a model of tfllm.models with its preprocessor .* got "
    with pytest.raises(UserError, match=f"{words}str"):
        for_serving("runs/gpt/preset", tmp_path / "lm")
    bare = new_model("gpt", preprocessor=False, num_layers=1, hidden_dim=8)
    with pytest.raises(UserError, match=f"{words}GPTCausalLM"):
        for_serving(bare, tmp_path / "lm")
    assert list(tmp_path.iterdir()) == []


def test_an_option_that_the_task_has_not_is_refused(new_model, tmp_path):
    model = new_model("gpt", num_layers=1, hidden_dim=8)
    with pytest.raises(UserError, match="A GPTCausalLM cannot be exported with top_k: .*top_k"):
        for_serving(model, tmp_path / "lm", top_k=3)
    with pytest.raises(UserError, match="beams must be at least 1, got 0"):
        for_serving(model, tmp_path / "lm", beams=0)
    assert list(tmp_path.iterdir()) == []


def test_a_server_warms_up_with_what_is_named(new_model, tmp_path):
    model = new_model("gpt", num_layers=1, hidden_dim=8)
    with pytest.raises(UserError, match="no signature embed; expected some of .*generate"):
        for_serving(model, tmp_path / "lm", warm_up=["embed", "generate"])
    folder = for_serving(model, tmp_path / "lm", warm_up=["generate"], prompt_lookup=2)
    records = tf.data.TFRecordDataset(str(folder / contract.WARMUP_FILE))
    logs = [prediction_log_pb2.PredictionLog.FromString(r.numpy()).predict_log for r in records]
    assert {log.request.model_spec.signature_name for log in logs} == {"generate"}
    assert json.loads((folder / contract.METADATA_FILE).read_text())["prompt_lookup"] == 2
