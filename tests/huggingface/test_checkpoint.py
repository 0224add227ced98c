"""Checkpoints: what a folder holds, what was taken of it, and what it may cost."""

import json
import tracemalloc
from pathlib import Path

import ml_dtypes
import numpy as np
import pytest

from tfllm.errors import UserError
from tfllm.huggingface import stored
from tfllm.huggingface.checkpoint import Checkpoint
from tfllm.huggingface.folders import write_checkpoint
from tfllm.huggingface.report import report
from tfllm.huggingface.stored import StoredTensor
from tfllm.huggingface.weight_files import write_weights

FIXTURES = Path(__file__).parent / "fixtures"
MATRIX = np.arange(6, dtype=np.float32).reshape(2, 3)


def write(folder, arrays, **arguments):
    """A checkpoint of these arrays; all of them are MATRIX if there are only names."""
    if not isinstance(arrays, dict):
        arrays = dict.fromkeys(arrays, MATRIX)
    folder.mkdir(exist_ok=True)
    (folder / "config.json").write_text('{"model_type": "gpt2"}')
    layout = {name: StoredTensor(array.shape, array.dtype.name) for name, array in arrays.items()}
    write_weights(folder, layout, iter(arrays.items()), **arguments)
    return folder


def test_the_configuration_and_the_tensors_of_a_folder_are_found(tmp_path):
    checkpoint = Checkpoint(write(tmp_path, {"a": MATRIX, "b": MATRIX[0].astype(np.float16)}))
    assert checkpoint.config == {"model_type": "gpt2"}
    assert checkpoint.generation_config == {}
    assert checkpoint.names() == ["a", "b"]
    assert "b" in checkpoint
    assert "c" not in checkpoint
    assert checkpoint.stored("b") == StoredTensor((3,), "float16")
    np.testing.assert_array_equal(checkpoint.take("a", (2, 3)), MATRIX, strict=True)
    np.testing.assert_array_equal(checkpoint.take("b", (3,)), MATRIX[0], strict=True)
    (tmp_path / "generation_config.json").write_text('{"num_beams": 4}')
    assert Checkpoint(tmp_path).generation_config == {"num_beams": 4}


def test_safetensors_come_before_a_torch_file_in_the_same_folder(tmp_path):
    write(tmp_path, ["a"])
    (tmp_path / "pytorch_model.bin").write_bytes((FIXTURES / "views-zip.bin").read_bytes())
    assert Checkpoint(tmp_path).names() == ["a"]
    (tmp_path / "model.safetensors").unlink()
    assert Checkpoint(tmp_path).take("column", (6,)).shape == (6,)


def test_a_tensor_that_is_missing_is_named_with_those_like_it(tmp_path):
    checkpoint = Checkpoint(write(tmp_path, ["h.0.attn.weight", "wte"]))
    with pytest.raises(
        UserError, match=r"has no tensor h.0.attn.bias \(it has h.0.attn.weight\): config.json does"
    ):
        checkpoint.take("h.0.attn.bias", (3,))
    with pytest.raises(UserError, match="has no tensor zzz: config.json does not describe these"):
        checkpoint.stored("zzz")


def test_a_tensor_of_another_shape_is_refused(tmp_path):
    checkpoint = Checkpoint(write(tmp_path, ["a"]))
    words = r"a in .*model.safetensors has the shape \[2, 3\], expected \[3, 2\]: config.json does"
    for take in (checkpoint.take, checkpoint.take_rows):
        with pytest.raises(UserError, match=words):
            take("a", (3, 2))
    assert checkpoint.unused() == ["a"]


def test_weights_that_are_integers_are_refused(tmp_path):
    checkpoint = Checkpoint(write(tmp_path, {"a": MATRIX.astype(np.int8)}))
    with pytest.raises(UserError, match="a in .* is stored as int8: quantised weights are not re"):
        checkpoint.take("a", (2, 3))


def test_another_name_serves_what_was_saved_with_and_without_a_head(tmp_path):
    names = ["bert.embeddings.LayerNorm.gamma", "cls.bias"]
    checkpoint = Checkpoint(write(tmp_path, names))
    checkpoint.rename(r"^bert\.", "")
    checkpoint.rename(r"LayerNorm\.gamma$", "LayerNorm.weight")
    assert checkpoint.names() == ["embeddings.LayerNorm.weight", "cls.bias"]
    checkpoint.take("embeddings.LayerNorm.weight", (2, 3))
    assert checkpoint.unused() == ["cls.bias"]
    with pytest.raises(UserError, match=r"^bert.embeddings.LayerNorm.gamma in .* has the shape"):
        checkpoint.take("embeddings.LayerNorm.weight", (3,))


def test_two_tensors_cannot_have_one_name(tmp_path):
    checkpoint = Checkpoint(write(tmp_path, ["bert.x", "x"]))
    with pytest.raises(UserError, match="has both bert.x and x: expected one of them"):
        checkpoint.rename(r"^bert\.", "")


def test_the_report_tells_what_was_neither_taken_nor_ignored(tmp_path):
    names = ["wte", "lm_head.weight", "cls.weight", "sub.lm_head.weight"]
    layers = [f"h.{i}.attn.{kind}" for i in range(12) for kind in ("bias", "scale")]
    checkpoint = Checkpoint(write(tmp_path, names + layers))
    for name in ("wte", "wte"):
        checkpoint.take(name, (2, 3))
    checkpoint.ignore(r"lm_head\.weight", r"h\.\d+\.attn\.bias", "nothing")
    assert report(checkpoint).splitlines() == [
        f"Not used from {tmp_path}: 14 of 28 tensors.",
        "  cls.weight",
        "  h.*.attn.scale (12)",
        "  sub.lm_head.weight",
    ]
    checkpoint.ignore(".*")
    assert report(checkpoint) == ""


def test_a_long_report_is_cut(tmp_path):
    checkpoint = Checkpoint(write(tmp_path, [f"tensor_{letter}" for letter in "abcdefghijkl"]))
    assert report(checkpoint).splitlines()[-2:] == ["  tensor_i", "  and 3 more kinds"]


@pytest.mark.parametrize("rows", [False, True])
def test_an_import_costs_little_more_memory_than_the_weights(tmp_path, monkeypatch, rows):
    monkeypatch.setattr(stored, "_PIECE_BYTES", 2**14)
    arrays = {name: np.ones((512, 128), ml_dtypes.bfloat16) for name in "abcd"}
    checkpoint = Checkpoint(write(tmp_path, arrays))
    model = {name: np.zeros((512, 128), np.float32) for name in arrays}
    tracemalloc.start()
    for name in arrays:
        if rows:
            start = 0
            for piece in checkpoint.take_rows(name, (512, 128)):
                model[name][start : start + len(piece)] = piece
                start += len(piece)
        else:
            model[name][:] = checkpoint.take(name, (512, 128))
    peak_bytes = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert all((array == 1).all() for array in model.values())
    # One tensor has 2^18 bytes; a piece is held as bfloat16 and as float32, now and the last one.
    assert peak_bytes < (2**17 if rows else 2**18 + 2**17)


def test_what_is_no_checkpoint_is_refused_and_not_downloaded(tmp_path):
    for folder in ("gpt2", tmp_path, tmp_path / "nowhere"):
        with pytest.raises(UserError, match=f"No checkpoint at {folder}: .* never downloaded"):
            Checkpoint(folder)


@pytest.mark.parametrize(
    ("config", "words"),
    [
        ("{", "config.json is damaged, it is no JSON: "),
        ("[]", "config.json must hold a JSON object, not a list"),
        ('{"registered_name": "tfllm>GPT"}', "is a preset already, not a checkpoint of Hugging"),
    ],
)
def test_a_configuration_that_cannot_be_is_refused(tmp_path, config, words):
    write(tmp_path, ["a"])
    (tmp_path / "config.json").write_text(config)
    with pytest.raises(UserError, match=words):
        Checkpoint(tmp_path)


def test_a_configuration_that_cannot_be_read_is_refused(tmp_path):
    (tmp_path / "config.json").mkdir()
    with pytest.raises(UserError, match="Cannot read .*config.json: Is a directory"):
        Checkpoint(tmp_path)


def test_a_name_that_would_change_a_terminal_is_refused(tmp_path):
    write(tmp_path, ["\x1b[31m"])
    with pytest.raises(UserError, match=r"model.safetensors names a tensor '\\x1b\[31m'"):
        Checkpoint(tmp_path)


def test_a_checkpoint_is_written_aside_and_replaces_only_a_checkpoint(tmp_path):
    folder = tmp_path / "new" / "checkpoint"
    for name in ("a", "b"):
        write_checkpoint(folder, lambda aside, name=name: write(Path(aside), [name]))
        assert Checkpoint(folder).names() == [name]
    assert [entry.name for entry in folder.parent.iterdir()] == ["checkpoint"]

    (folder / "config.json").write_text(json.dumps({"registered_name": "tfllm>GPT"}))
    with pytest.raises(UserError, match="exists and is no checkpoint of Hugging Face"):
        write_checkpoint(folder, lambda aside: write(Path(aside), ["c"]))
    (folder / "config.json").unlink()
    with pytest.raises(UserError, match="exists and is no checkpoint of Hugging Face"):
        write_checkpoint(folder, lambda aside: write(Path(aside), ["c"]))
    assert [entry.name for entry in folder.iterdir()] == ["model.safetensors"]
