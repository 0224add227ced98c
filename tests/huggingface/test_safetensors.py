"""Safetensors files: what is written is read to the bit, and what cannot be right is refused."""

import json
import random
import struct

import ml_dtypes
import numpy as np
import pytest

from tfllm.errors import UserError
from tfllm.huggingface import stored
from tfllm.huggingface.safetensors import SafetensorsFile, write_safetensors
from tfllm.huggingface.stored import StoredTensor, joined

MATRIX = ((np.arange(12) - 5) / 8).reshape(3, 4)
TENSOR = {"dtype": "F32", "shape": [2], "data_offsets": [0, 8]}


def write(path, **arrays):
    layout = {name: StoredTensor(array.shape, array.dtype.name) for name, array in arrays.items()}
    write_safetensors(path, layout, iter(arrays.items()))
    return SafetensorsFile(path)


def read(file, name):
    return joined(file.float32_rows(name), file.tensors[name].shape)


def raw(path, header, data=b"\0" * 8, header_bytes=None):
    """A file as somebody else would write it."""
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    length = len(text) if header_bytes is None else header_bytes
    path.write_bytes(struct.pack("<Q", length) + text + data)
    return path


@pytest.mark.parametrize("dtype", ["float64", "float32", "float16", ml_dtypes.bfloat16, ">f4"])
def test_every_kind_of_float_comes_back_as_the_same_float32(tmp_path, dtype):
    file = write(tmp_path / "file", matrix=MATRIX.astype(dtype), after=np.float32([7]))
    np.testing.assert_array_equal(read(file, "matrix"), MATRIX.astype(np.float32), strict=True)
    np.testing.assert_array_equal(read(file, "after"), np.float32([7]), strict=True)


def test_every_bfloat16_keeps_its_bits(tmp_path):
    numbers = np.arange(2**16, dtype=np.uint16).view(ml_dtypes.bfloat16)
    file = write(tmp_path / "file", numbers=numbers)
    bits = read(file, "numbers").view(np.uint32)
    np.testing.assert_array_equal(bits, np.arange(2**16, dtype=np.uint32) << 16)


def test_scalars_empty_and_transposed_arrays_come_back(tmp_path):
    arrays = {
        "scalar": np.float32(-1.5).reshape(()),
        "empty": np.zeros((0, 3), np.float32),
        "flat": np.zeros((3, 0), np.float32),
        "transposed": MATRIX.astype(np.float32).T,
        "every_second": MATRIX.astype(np.float32)[:, ::2],
    }
    file = write(tmp_path / "file", **arrays)
    for name, array in arrays.items():
        np.testing.assert_array_equal(read(file, name), array, strict=True)


def test_a_tensor_is_read_some_rows_at_a_time(tmp_path, monkeypatch):
    monkeypatch.setattr(stored, "_PIECE_BYTES", 40)  # two rows and a half
    file = write(tmp_path / "file", matrix=MATRIX.astype(np.float32))
    rows = list(file.float32_rows("matrix"))
    assert [len(piece) for piece in rows] == [2, 1]
    np.testing.assert_array_equal(np.concatenate(rows), MATRIX)


def test_the_header_is_aligned_and_says_whose_format_it_is(tmp_path):
    write(tmp_path / "file", matrix=MATRIX)
    content = (tmp_path / "file").read_bytes()
    (header_bytes,) = struct.unpack("<Q", content[:8])
    assert header_bytes % 8 == 0
    assert json.loads(content[8 : 8 + header_bytes])["__metadata__"] == {"format": "pt"}


@pytest.mark.parametrize(
    "arrays",
    [
        [("other", np.zeros(2, np.float32))],
        [("one", np.zeros(3, np.float32))],
        [("one", np.zeros(2, np.float16))],
        [],
    ],
)
def test_an_array_that_was_not_announced_is_not_written(tmp_path, arrays):
    layout = {"one": StoredTensor((2,), "float32")}
    with pytest.raises(ValueError, match=r"expected one as float32\[2\], came "):
        write_safetensors(tmp_path / "file", layout, iter(arrays))


@pytest.mark.parametrize(
    ("header", "header_bytes", "words"),
    [
        (b"", 2**60, "no safetensors file: its header would take 1152921504606846976 bytes"),
        (b"{}", 11, "no safetensors file: its header would take 11 bytes, the file has 18"),
        (b"{", None, "The header of .*file is damaged, it is no JSON: "),
        (b"[" * 100_000, None, "damaged, it is no JSON: maximum recursion"),
        (b"\xff", None, "damaged, it is no JSON: .*can't decode"),
        (b"[]", None, "must hold a JSON object, not a list"),
        (b'{"a": {}, "a": {}}', None, "a key comes twice"),
        ({"a": []}, None, "'a' has no dtype, shape and data_off"),
        ({"a": TENSOR | {"shape": [-2]}}, None, "'a' has no dtype, shape and data_off"),
        ({"a": TENSOR | {"shape": [0, 10**400]}}, None, "'a' has no dtype, shape and data_off"),
        ({"a": TENSOR | {"shape": [2.0]}}, None, "'a' has no dtype, shape and data_off"),
        ({"a": TENSOR | {"data_offsets": [8, 0]}}, None, "'a' has no dtype, shape and data_off"),
        ({"a": TENSOR | {"data_offsets": [-1, 10**4299]}}, None, "'a' has no dtype, shape and dat"),
        ({"a": TENSOR | {"data_offsets": [8]}}, None, "'a' has no dtype, shape and data_off"),
        (
            {"a": TENSOR | {"dtype": "F8_E4M3"}},
            None,
            "'a' in .* is stored as 'F8_E4M3', which is",
        ),
        ({"a": TENSOR | {"dtype": ["F32"]}}, None, "'a' has no dtype, shape and data_off"),
        ({"a": TENSOR | {"shape": [3]}}, None, "takes 12 bytes by its shape and dtype, 8 by its"),
        ({"a": TENSOR, "b": TENSOR}, None, "'b' begins at byte 0, the tensor before it ends at 8"),
        ({}, None, "the tensors take 0 bytes, it holds 8"),
        (
            {"a": TENSOR, "b": TENSOR | {"data_offsets": [8, 16]}},
            None,
            "is cut off or damaged: by its header the tensors take 16 bytes, it holds 8",
        ),
    ],
)
def test_a_header_that_cannot_be_is_refused(tmp_path, header, header_bytes, words):
    path = raw(tmp_path / "file", header, header_bytes=header_bytes)
    with pytest.raises(UserError, match=words):
        SafetensorsFile(path)


def test_a_header_longer_than_the_format_allows_is_not_read(tmp_path, monkeypatch):
    path = raw(tmp_path / "file", {"a": TENSOR})
    monkeypatch.setattr("tfllm.huggingface.safetensors._LONGEST_HEADER", 50)
    with pytest.raises(UserError, match="no safetensors file: its header would take 61 bytes"):
        SafetensorsFile(path)


def test_a_file_shorter_than_its_first_number_is_refused(tmp_path):
    (tmp_path / "file").write_bytes(b"1234567")
    with pytest.raises(UserError, match="file is cut off: it has 7 bytes"):
        SafetensorsFile(tmp_path / "file")


def test_a_file_that_changes_while_it_is_read_is_refused(tmp_path):
    file = SafetensorsFile(raw(tmp_path / "file", {"a": TENSOR}))
    raw(tmp_path / "file", {"a": TENSOR}, data=b"\0" * 7)
    with pytest.raises(UserError, match="file was changed while it was read: try again"):
        read(file, "a")


def test_a_file_with_any_byte_changed_loads_or_is_refused(tmp_path, mutations):
    write(tmp_path / "good", a=MATRIX.astype(np.float32), b=MATRIX.astype(np.float16)[0])
    outcomes = set()
    for path in mutations(tmp_path / "good", 2000, random.Random(0)):
        try:
            file = SafetensorsFile(path)
        except UserError:
            outcomes.add("refused")
            continue
        floats = [name for name, tensor in file.tensors.items() if tensor.dtype in stored.FLOATS]
        outcomes.add(all(read(file, name).dtype == np.float32 for name in floats))
    assert outcomes == {"refused", True}
