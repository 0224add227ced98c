"""Files of torch.save, without torch: both formats, shared storages, views, damage.

The fixtures are written by tests/parity/make_torch_files.py.
"""

import pickle
import random
import struct
import zipfile
from pathlib import Path

import numpy as np
import pytest
from ml_dtypes import bfloat16

from tfllm.errors import UserError
from tfllm.huggingface import stored
from tfllm.huggingface.stored import StoredTensor, joined
from tfllm.huggingface.torch_files import TorchFile

FIXTURES = Path(__file__).parent / "fixtures"
BASE = (((np.arange(48) - 20) / 8).reshape(6, 8)).astype(np.float32)
VIEWS = {
    "base": BASE,
    "again": BASE,
    "transposed": BASE.T,
    "rows": BASE[2:4],
    "column": BASE[:, 3],
    "permuted": BASE.reshape(2, 3, 8).transpose(2, 0, 1),
    "every_second": BASE[::2, 1::3],
    "half": BASE,
    "bfloat16": BASE,
    "double": BASE,
    "scalar": np.float32(-1.5),
    "empty": np.zeros((0, 4), np.float32),
    "flat": np.zeros((3, 0), np.float32),
    "parameter": BASE + 1,
}
DTYPES = {"half": "float16", "bfloat16": "bfloat16", "double": "float64"}
FORMATS = pytest.mark.parametrize("name", ["views-zip.bin", "views-legacy.bin"])

STORAGE = b"(X\7\0\0\0storagectorch\nFloatStorage\nX\1\0\0\x000X\3\0\0\0cpuK\2tQ"
REBUILD = b"ctorch._utils\n_rebuild_tensor_v2\n("
TENSOR = REBUILD + STORAGE + b"K\0K\2\x85K\1\x85tR"
NUMBERS = np.float32([3, 4])


def read(file, name):
    return joined(file.float32_rows(name), file.tensors[name].shape)


def zip_file(path, content, compression=zipfile.ZIP_STORED, **entries):
    """A zip file as torch writes it, holding a pickle without its end and one storage."""
    with zipfile.ZipFile(path, "w", compression) as file:
        file.writestr("root/data.pkl", b"\x80\2" + content + b".")
        for name, data in ({"data/0": NUMBERS.tobytes()} | entries).items():
            file.writestr(f"root/{name}", data)
    return path


def dictionary(value, name=b"weight"):
    return b"}X" + bytes([len(name)]) + b"\0\0\0" + name + value + b"s"


def legacy_file(path, content, keys, data, magic=0x1950A86A20F9469CFC6C):
    parts = [pickle.dumps(part, 2) for part in (magic, 1001, {"little_endian": True})]
    parts += [b"\x80\2" + content + b".", pickle.dumps(keys, 2), data]
    path.write_bytes(b"".join(parts))
    return path


@FORMATS
def test_every_view_of_a_shared_storage_comes_back(name):
    file = TorchFile(FIXTURES / name)
    assert list(file.tensors) == [*VIEWS, "position_ids"]
    for view, expected in VIEWS.items():
        assert file.tensors[view] == StoredTensor(expected.shape, DTYPES.get(view, "float32"))
        np.testing.assert_array_equal(read(file, view), expected, strict=True)
    assert file.tensors["position_ids"] == StoredTensor((1, 5), "int64")


@FORMATS
def test_a_tensor_is_read_some_rows_at_a_time(name, monkeypatch):
    monkeypatch.setattr(stored, "_PIECE_BYTES", 140)  # four rows and a bit
    rows = list(TorchFile(FIXTURES / name).float32_rows("base"))
    assert [len(piece) for piece in rows] == [4, 2]
    np.testing.assert_array_equal(np.concatenate(rows), BASE)


@pytest.mark.parametrize("order", ["big", "little"])
@pytest.mark.parametrize(("dtype", "kind"), [("f4", b"Float"), (bfloat16, b"BFloat16")])
def test_numbers_of_either_byte_order_come_back(tmp_path, order, dtype, kind):
    content = dictionary(TENSOR.replace(b"Float", kind))
    items = NUMBERS.astype(dtype)
    items = items.view(f"u{items.itemsize}")  # bfloat16 has no byte order of its own
    data = items.astype(items.dtype.newbyteorder(">" if order == "big" else "<")).tobytes()
    path = zip_file(tmp_path / "file", content, byteorder=order, **{"data/0": data})
    np.testing.assert_array_equal(read(TorchFile(path), "weight"), NUMBERS)


@pytest.mark.parametrize("wrapper", [b"state_dict", b"model"])
def test_a_state_dict_among_other_things_is_found(tmp_path, wrapper):
    path = zip_file(tmp_path / "file", dictionary(dictionary(TENSOR), wrapper))
    np.testing.assert_array_equal(read(TorchFile(path), "weight"), NUMBERS)


def test_an_older_file_with_several_storages_comes_back(tmp_path):
    other = TENSOR.replace(b"Float", b"Short").replace(b"\x000X\3", b"\x001X\3")
    content = b"}(X\1\0\0\0a" + TENSOR + b"X\1\0\0\0b" + other + b"u"
    data = b"\2" + bytes(7) + b"\1\0\2\0" + b"\2" + bytes(7) + NUMBERS.tobytes()
    file = TorchFile(legacy_file(tmp_path / "file", content, ["1", "0"], data))
    assert file.tensors["b"] == StoredTensor((2,), "int16")
    np.testing.assert_array_equal(read(file, "a"), NUMBERS)


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (TENSOR, "file must hold a dictionary of tensors, not a View"),
        (b"]", "file must hold a dictionary of tensors, not a list"),
        (dictionary(b"K\1"), "must hold tensors by their names: its entry 'weight' is a int"),
        (b"}K\1" + TENSOR + b"s", "must hold tensors by their names: its entry 1 is a View"),
        (dictionary(TENSOR.replace(b"K\2tQ", b"K\3tQ").replace(b"K\2\x85", b"K\3\x85")), "goes be"),
        (dictionary(TENSOR.replace(b"K\2tQ", b"K\1tQ")), "'weight' goes beyond its storage"),
        (dictionary(TENSOR.replace(b"K\2\x85", b"K\3\x85")), "'weight' goes beyond its storage"),
        (dictionary(TENSOR.replace(b"K\0K\2", b"K\1K\2")), "'weight' goes beyond its storage"),
        (dictionary(TENSOR.replace(b"K\1\x85", b"K\2\x85")), "'weight' goes beyond its storage"),
        (dictionary(TENSOR.replace(b"K\1\x85", b"K\0\x85")), "'weight' in .* repeats its numbers"),
        (dictionary(TENSOR.replace(b"\x000X", b"\x007X")), "the storage of 'weight' is missing"),
        (dictionary(b"cos\nsystem\n"), r"holds code \(os.system\)"),
    ],
)
def test_what_is_not_the_weights_of_a_model_is_refused(tmp_path, content, words):
    with pytest.raises(UserError, match=words):
        TorchFile(zip_file(tmp_path / "file", content))


def test_a_compressed_file_is_refused(tmp_path):
    path = zip_file(tmp_path / "file", dictionary(TENSOR), compression=zipfile.ZIP_DEFLATED)
    with pytest.raises(UserError, match="file is compressed, which torch.save never does"):
        TorchFile(path)


def test_a_zip_file_of_something_else_is_refused(tmp_path):
    with zipfile.ZipFile(tmp_path / "file", "w") as file:
        file.writestr("word/document.xml", "")
    with pytest.raises(UserError, match="is a zip file without the data.pkl of torch.save"):
        TorchFile(tmp_path / "file")


def test_a_large_entry_that_is_not_weights_is_not_read(tmp_path, monkeypatch):
    path = zip_file(tmp_path / "file", dictionary(TENSOR))
    monkeypatch.setattr("tfllm.huggingface.torch_files._LONGEST_PICKLE", 50)
    with pytest.raises(UserError, match="an entry beside the weights has 1.. bytes"):
        TorchFile(path)


def test_an_entry_that_lies_elsewhere_is_refused(tmp_path):
    good = zip_file(tmp_path / "file", dictionary(TENSOR)).read_bytes()
    local, central = good.index(b"PK\3\4", 1), good.index(b"PK\1\2")

    in_the_comment = struct.pack("<I", len(good))
    for damaged in (
        good[:local] + b"PK\3\5" + good[local + 4 :],
        good[: central + 42] + in_the_comment + good[central + 46 : -2] + b"\4\0PK\3\4",
    ):
        (tmp_path / "file").write_bytes(damaged)
        with pytest.raises(UserError, match="cut off or damaged: the place of an entry is wrong"):
            TorchFile(tmp_path / "file")

    size = b"\xff\xff\xff\0" * 2
    (tmp_path / "file").write_bytes(good[: central + 20] + size + good[central + 28 :])
    with pytest.raises(UserError, match="cut off or damaged: an entry ends behind its end"):
        TorchFile(tmp_path / "file")


@FORMATS
@pytest.mark.parametrize("part", [0.2, 0.7, 0.99])
def test_a_file_that_is_cut_off_is_refused(tmp_path, name, part):
    content = (FIXTURES / name).read_bytes()
    (tmp_path / "file").write_bytes(content[: int(part * len(content))])
    with pytest.raises(UserError, match=r"file is (cut off or )?damaged: "):
        TorchFile(tmp_path / "file")


@pytest.mark.parametrize(
    ("keys", "data", "words"),
    [
        (["0"], b"\2" + bytes(7) + bytes(7), "storage '0' is not all there"),
        (["0"], b"\3" + bytes(7) + bytes(12), "storage '0' is not all there"),
        (["0", "1"], b"", "it does not hold the storages that its tensors name"),
        ([], b"", "it does not hold the storages that its tensors name"),
        ([0], b"", "it does not hold the storages that its tensors name"),
        (0, b"", "it does not hold the storages that its tensors name"),
    ],
)
def test_an_older_file_without_its_storages_is_refused(tmp_path, keys, data, words):
    with pytest.raises(UserError, match=words):
        TorchFile(legacy_file(tmp_path / "file", dictionary(TENSOR), keys, data))


def test_another_pickle_is_refused(tmp_path):
    path = legacy_file(tmp_path / "file", b"}", [], b"", magic=1)
    with pytest.raises(UserError, match="is a pickle, but none of torch.save"):
        TorchFile(path)


def test_another_file_is_refused(tmp_path):
    (tmp_path / "file").write_bytes(b"\x89HDF\r\n")
    with pytest.raises(UserError, match="is no file of torch.save: it begins with b'.x89HDF'"):
        TorchFile(tmp_path / "file")


@FORMATS
def test_a_file_with_any_byte_changed_loads_or_is_refused(name, mutations):
    outcomes = set()
    for path in mutations(FIXTURES / name, 1000, random.Random(0)):
        try:
            file = TorchFile(path)
        except UserError:
            outcomes.add("refused")
            continue
        floats = [name for name, tensor in file.tensors.items() if tensor.dtype in stored.FLOATS]
        outcomes.add(all(read(file, name).dtype == np.float32 for name in floats))
    assert outcomes == {"refused", True}
