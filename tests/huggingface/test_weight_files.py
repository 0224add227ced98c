"""The files of the weights: one or several, found or told why not."""

import json

import numpy as np
import pytest

from tfllm.errors import UserError
from tfllm.huggingface.stored import StoredTensor, joined
from tfllm.huggingface.weight_files import open_weights, write_weights

ARRAYS = {name: np.full((2, 4), i, np.float32) for i, name in enumerate("abcde")}


def write(folder, **arguments):
    layout = {name: StoredTensor(array.shape, "float32") for name, array in ARRAYS.items()}
    write_weights(folder, layout, iter(ARRAYS.items()), **arguments)


def write_index(folder, weight_map):
    text = json.dumps({"weight_map": weight_map})
    (folder / "model.safetensors.index.json").write_text(text)


def test_several_files_hold_what_one_file_holds(tmp_path):
    write(tmp_path, max_file_bytes=64)
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "model-00001-of-00003.safetensors",
        "model-00002-of-00003.safetensors",
        "model-00003-of-00003.safetensors",
        "model.safetensors.index.json",
    ]
    index = json.loads((tmp_path / "model.safetensors.index.json").read_text())
    assert index["metadata"] == {"total_size": 160}
    assert index["weight_map"]["d"] == "model-00002-of-00003.safetensors"
    files = open_weights(tmp_path)
    assert list(files) == list(ARRAYS)
    for name, array in ARRAYS.items():
        assert files[name].path.name == index["weight_map"][name]
        np.testing.assert_array_equal(joined(files[name].float32_rows(name), (2, 4)), array)


def test_a_tensor_larger_than_a_file_may_be_has_a_file_of_its_own(tmp_path):
    write(tmp_path, max_file_bytes=10)
    assert len(list(tmp_path.glob("model-0000?-of-00005.safetensors"))) == 5


def test_a_part_that_is_missing_is_named(tmp_path):
    write(tmp_path, max_file_bytes=64)
    (tmp_path / "model-00002-of-00003.safetensors").unlink()
    with pytest.raises(
        UserError, match="model-00002-of-00003.safetensors is missing: model.safetensors.index.json"
    ):
        open_weights(tmp_path)


def test_a_tensor_that_the_index_misplaces_is_named(tmp_path):
    write(tmp_path)
    (tmp_path / "model.safetensors").rename(tmp_path / "one")
    (tmp_path / "one").rename(tmp_path / "one.safetensors")
    write_index(tmp_path, {"a": "one.safetensors", "z": "one.safetensors"})
    with pytest.raises(UserError, match="one.safetensors has no 'z': model.safetensors.index.json"):
        open_weights(tmp_path)


def test_a_tensor_in_two_parts_is_refused(tmp_path):
    write(tmp_path)
    content = (tmp_path / "model.safetensors").read_bytes()
    (tmp_path / "model.safetensors").unlink()
    for name in ("one", "two"):
        (tmp_path / f"{name}.safetensors").write_bytes(content)
    write_index(tmp_path, {"a": "one.safetensors", "b": "two.safetensors"})
    with pytest.raises(UserError, match="'a' is in .*one.safetensors and in .*two.safetensors"):
        open_weights(tmp_path)


@pytest.mark.parametrize(
    "weight_map", [None, {}, [], {"a": 1}, {"a": "../model.safetensors"}, {"a": ".."}, {"a": ""}]
)
def test_an_index_that_cannot_be_is_refused(tmp_path, weight_map):
    write_index(tmp_path, weight_map)
    with pytest.raises(UserError, match="index.json is damaged: it has no weight_map of tensors"):
        open_weights(tmp_path)


@pytest.mark.parametrize("name", ["model.safetensors", "pytorch_model.bin"])
@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", "is empty. Fetch it again"),
        (b"version https://git-lfs.github.com/spec/v1\n", "is a pointer of Git LFS, not the wei"),
        (b"\n<!DOCTYPE html>", "is a web page, not the weights"),
        (b"Not Found", "(no safetensors file: its header|no file of torch.save: it begins)"),
    ],
)
def test_what_a_failed_download_leaves_is_told(tmp_path, name, content, words):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(UserError, match=f"{name} .*{words}"):
        open_weights(tmp_path)


def test_a_folder_in_place_of_a_file_is_refused(tmp_path):
    (tmp_path / "model.safetensors").mkdir()
    with pytest.raises(UserError, match="Cannot read .*model.safetensors: Is a directory"):
        open_weights(tmp_path)


def test_weights_of_other_libraries_are_named(tmp_path):
    with pytest.raises(
        UserError, match="expected model.safetensors or pytorch_model.bin, found neither. Save the"
    ):
        open_weights(tmp_path)
    for name in ("tf_model.h5", "flax_model.msgpack", "model.gguf", "adapter_model.safetensors"):
        (tmp_path / name).write_bytes(b"")
    with pytest.raises(
        UserError,
        match=r"found adapter_model.safetensors \(not the whole model\), flax_model.msgpack "
        r"\(Flax\), model.gguf \(llama.cpp\), tf_model.h5 \(TensorFlow 2 of transformers 4\). Save",
    ):
        open_weights(tmp_path)
