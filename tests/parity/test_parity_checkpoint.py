"""Checkpoints beside torch, safetensors and transformers: what one writes the other reads."""

from pathlib import Path

import numpy as np
import pytest

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")
safetensors_torch = pytest.importorskip("safetensors.torch")

import make_torch_files  # noqa: E402

from tfllm.huggingface.checkpoint import Checkpoint  # noqa: E402
from tfllm.huggingface.safetensors import SafetensorsFile, write_safetensors  # noqa: E402
from tfllm.huggingface.stored import FLOATS, StoredTensor, joined  # noqa: E402
from tfllm.huggingface.torch_files import TorchFile  # noqa: E402
from tfllm.huggingface.weight_files import write_weights  # noqa: E402

FIXTURES = Path(__file__).parents[1] / "huggingface" / "fixtures"
SMALL = {"num_hidden_layers": 2, "hidden_size": 32, "num_attention_heads": 2, "vocab_size": 99}


def assert_same(file, tensors):
    """The floats of a file are these tensors of torch, to the bit."""
    assert set(file.tensors) == set(tensors)
    for name, tensor in tensors.items():
        assert file.tensors[name].shape == tuple(tensor.shape)
        assert file.tensors[name].dtype == str(tensor.dtype).removeprefix("torch.")
        if file.tensors[name].dtype in FLOATS:
            found = joined(file.float32_rows(name), tuple(tensor.shape))
            expected = tensor.detach().to(torch.float32).numpy()
            np.testing.assert_array_equal(found.view("u4"), expected.view("u4"), err_msg=name)


@pytest.fixture
def model():
    torch.manual_seed(0)
    return transformers.BertForMaskedLM(transformers.BertConfig(intermediate_size=48, **SMALL))


@pytest.mark.parametrize("name", ["views-zip.bin", "views-legacy.bin"])
def test_the_fixtures_are_what_torch_writes_now(tmp_path, name):
    make_torch_files.write(tmp_path)
    for folder in (FIXTURES, tmp_path):
        assert_same(TorchFile(folder / name), make_torch_files.views())


@pytest.mark.parametrize("dtype", ["float32", "float16", "bfloat16", "float64"])
@pytest.mark.parametrize("zipped", [True, False])
def test_a_state_dict_comes_back_from_both_formats(tmp_path, model, dtype, zipped):
    tensors = model.to(getattr(torch, dtype)).state_dict()
    torch.save(tensors, tmp_path / "file", _use_new_zipfile_serialization=zipped)
    assert_same(TorchFile(tmp_path / "file"), tensors)


def test_a_file_without_checksums_comes_back(tmp_path, model):
    before = torch.serialization.get_crc32_options()
    torch.serialization.set_crc32_options(False)
    torch.save(model.state_dict(), tmp_path / "file")
    torch.serialization.set_crc32_options(before)
    assert_same(TorchFile(tmp_path / "file"), model.state_dict())


def test_a_folder_of_transformers_in_several_files_is_read(tmp_path, model):
    model.save_pretrained(tmp_path, max_shard_size="10KB")
    assert (tmp_path / "model.safetensors.index.json").exists()
    checkpoint = Checkpoint(tmp_path)
    assert checkpoint.config["model_type"] == "bert"
    expected = model.state_dict()
    assert "bert.pooler.dense.weight" not in checkpoint.names()
    for name in checkpoint.names():
        found = checkpoint.take(name, tuple(expected[name].shape))
        np.testing.assert_array_equal(found, expected[name].numpy())
    assert checkpoint.unused() == []


@pytest.mark.parametrize("max_file_bytes", [10_000, 10_000_000])
def test_transformers_reads_what_was_written(tmp_path, model, max_file_bytes):
    model.config.save_pretrained(tmp_path)
    arrays = {name: tensor.numpy() for name, tensor in model.state_dict().items()}
    layout = {name: StoredTensor(array.shape, array.dtype.name) for name, array in arrays.items()}
    write_weights(tmp_path, layout, iter(arrays.items()), max_file_bytes)
    again, loading = transformers.BertForMaskedLM.from_pretrained(
        tmp_path, output_loading_info=True
    )
    assert not loading["missing_keys"]
    assert not loading["mismatched_keys"]
    for name, tensor in again.state_dict().items():
        np.testing.assert_array_equal(tensor.numpy(), arrays[name])


def test_the_library_safetensors_reads_what_was_written_and_the_other_way_round(tmp_path):
    views = {
        name: tensor.detach().contiguous() for name, tensor in make_torch_files.views().items()
    }
    safetensors_torch.save_file({n: t.clone() for n, t in views.items()}, tmp_path / "theirs")
    assert_same(SafetensorsFile(tmp_path / "theirs"), views)
    arrays = {"transposed": np.arange(6, dtype="f4").reshape(2, 3).T, "scalar": np.float16(2)}
    layout = {name: StoredTensor(array.shape, array.dtype.name) for name, array in arrays.items()}
    write_safetensors(tmp_path / "ours", layout, iter(arrays.items()))
    for name, tensor in safetensors_torch.load_file(tmp_path / "ours").items():
        np.testing.assert_array_equal(tensor.numpy(), arrays[name], strict=True)
