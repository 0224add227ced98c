import shutil

import pytest
import tensorflow as tf

from tfllm import contract
from tfllm.errors import UserError
from tfllm.export import inspect_export


def test_our_export_is_described_from_its_files(exported_gpt):
    found = inspect_export(exported_gpt)
    assert found["metadata"]["model"] == "GPTCausalLM"
    assert set(found["signatures"]) == set(contract.GENERATOR_SIGNATURES)
    generate = found["signatures"]["generate"]
    assert generate["inputs"]["prompt"] == {"dtype": "string", "shape": [-1]}
    assert generate["inputs"]["stop"] == {
        "dtype": "string",
        "shape": [-1, 4],
        "default": [["", "", "", ""]],
    }
    assert generate["outputs"]["num_tokens"] == {"dtype": "int32", "shape": [-1]}
    assert {"SentencepieceTokenizeOp", "While"} <= set(found["ops"])
    size = sum(f.stat().st_size for f in exported_gpt.rglob("*") if f.is_file())
    assert found["megabytes"] == pytest.approx(size / 1e6, abs=1e-3)


def test_a_foreign_saved_model_is_described_too(tmp_path):
    module = tf.Module()
    module.double = tf.function(
        lambda x: {"y": x * 2.0}, input_signature=[tf.TensorSpec([None, 3], tf.float32, "x")]
    )
    tf.saved_model.save(module, str(tmp_path), signatures=module.double)
    found = inspect_export(tmp_path)
    assert found["metadata"] == {}
    assert found["signatures"] == {
        "serving_default": {
            "inputs": {"x": {"dtype": "float32", "shape": [-1, 3]}},
            "outputs": {"y": {"dtype": "float32", "shape": [-1, 3]}},
        }
    }
    assert "Mul" in found["ops"]


def test_what_is_no_saved_model_is_refused(tmp_path):
    with pytest.raises(
        UserError, match="No SavedModel in .*Name a version folder, as models/gpt/1"
    ):
        inspect_export(tmp_path)
    (tmp_path / "saved_model.pb").write_bytes(b"garbage")
    with pytest.raises(UserError, match="saved_model.pb is damaged"):
        inspect_export(tmp_path)
    (tmp_path / "saved_model.pb").write_bytes(b"")
    with pytest.raises(UserError, match="saved_model.pb is damaged: it holds no graph"):
        inspect_export(tmp_path)


def test_a_damaged_description_is_refused(exported_gpt, tmp_path):
    shutil.copytree(exported_gpt, tmp_path / "1")
    (tmp_path / "1" / contract.METADATA_FILE).write_text("{")
    with pytest.raises(UserError, match="tfllm.json is damaged"):
        inspect_export(tmp_path / "1")
