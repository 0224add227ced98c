"""Pickles as data: dictionaries of tensors are read, and nothing is ever called."""

import contextlib
import io
import os
import pickle
import struct
import time
import tracemalloc
from collections import OrderedDict

import pytest

from tfllm.errors import UserError
from tfllm.huggingface.pickles import Storage, View, read_pickle

STORAGE = b"(X\7\0\0\0storagectorch\nFloatStorage\nX\1\0\0\x000X\3\0\0\0cpuK\6tQ"
REBUILD = b"ctorch._utils\n_rebuild_tensor_v2\n"
TENSOR = REBUILD + b"(" + STORAGE + b"K\0K\2K\3\x86K\3K\1\x86\x89ccollections\nOrderedDict\n)RtR"
VIEW = View(Storage("0", "float32", 6), 0, (2, 3), (3, 1))


def read(content):
    return read_pickle(io.BytesIO(content), "FILE").content


def protocol_2(content):
    return b"\x80\2" + content + b"."


class Calls:
    """Pickles itself as a call."""

    def __init__(self, function, *arguments):
        self.what = function, arguments

    def __reduce__(self):
        return self.what


@pytest.mark.parametrize("protocol", [2, 3, 4, 5])
def test_plain_data_comes_back(protocol):
    data = {"a": [1, 2.5, (), (1,), (1, 2), (1, 2, 3), (1, 2, 3, 4)], "b": {7: None, "c": [True]}}
    data |= {"long": 2**70, "text": "x" * 300, "again": data["a"], "ordered": OrderedDict(x=False)}
    assert read(pickle.dumps(data, protocol)) == data


def test_a_tensor_is_where_its_storage_is_and_how_it_lies_there():
    assert read(protocol_2(TENSOR)) == VIEW


def test_a_parameter_is_its_tensor():
    hooks = b"ccollections\nOrderedDict\n)R"
    parameter = b"ctorch._utils\n_rebuild_parameter\n" + TENSOR + b"\x88" + hooks + b"\x87R"
    assert read(protocol_2(parameter)) == VIEW


def test_an_ordered_dict_of_python_2_comes_back():
    pairs = b"ccollections\nOrderedDict\n]](U\1aK\1ea\x85R"
    assert read(protocol_2(pairs)) == {"a": 1}


def test_the_attributes_of_a_state_dict_are_left_out():
    tensors = OrderedDict(a=1)
    tensors._metadata = OrderedDict(version=1)
    assert read(pickle.dumps(tensors, 2)) == {"a": 1}


def test_reading_stops_where_the_pickle_ends():
    file = io.BytesIO(pickle.dumps(1) + pickle.dumps(2))
    assert [read_pickle(file, "FILE").content for _ in range(2)] == [1, 2]


@pytest.mark.parametrize("protocol", [2, 4])
@pytest.mark.parametrize(
    ("function", "name"),
    [
        (os.mkdir, "posix.mkdir"),
        (eval, "(__builtin__|builtins).eval"),
        (getattr, "(__builtin__|builtins).getattr"),
        (pickle.loads, "_?pickle.loads"),
    ],
)
def test_a_call_is_refused_by_name_and_not_made(tmp_path, protocol, function, name):
    argument = str(tmp_path / "made") if function is os.mkdir else b""
    content = pickle.dumps({"weight": Calls(function, argument)}, protocol)
    with pytest.raises(UserError, match=rf"FILE holds code \({name}\): only weights are read"):
        read(content)
    assert not (tmp_path / "made").exists()


@pytest.mark.parametrize(
    ("content", "what"),
    [
        (b"ctorch.storage\n_load_from_bytes\n", "torch.storage._load_from_bytes"),
        (b"ctorch\nload\n", "torch.load"),
        (b"ctorch._utils\n_rebuild_tensor_v2.__globals__\n", "torch._utils._rebuild_tensor_v2.__"),
        (b"X\2\0\0\0osX\6\0\0\0system\x93", "os.system"),
        (b"X\1\0\0\0\nX\1\0\0\0\x07\x93", r"\\n.\\x07"),
        (b"(S'echo'\nios\nsystem\n", "the instruction STRING"),
        (b"(ios\nsystem\n", "the instruction INST"),
        (b"(cos\nsystem\no", "os.system"),
        (b"(ctorch\nSize\no", "the instruction OBJ"),
        (b"ctorch\nSize\n)\x81", "the instruction NEWOBJ"),
        (b"ctorch\nSize\n)}\x92", "the instruction NEWOBJ_EX"),
        (b"\x82\1", "the instruction EXT1"),
        (b"P0\n", "the instruction PERSID"),
        (b"\x8f", "the instruction EMPTY_SET"),
        (b"ctorch\nFloatStorage\n)R", "a call of what is no function"),
        (b"X\2\0\0\0os)R", "a call of what is no function"),
        (b"})R", "a call of what is no function"),
    ],
)
def test_other_ways_to_a_function_are_refused(content, what):
    with pytest.raises(UserError, match=rf"FILE holds code \({what}"):
        read(protocol_2(content))


@pytest.mark.parametrize("thing", [b"K\1", b"ctorch\nSize\n", TENSOR])
def test_a_state_is_never_set(thing):
    with pytest.raises(UserError, match="it adds to something that is no dict"):
        read(protocol_2(thing + b"}b"))


def tensor(storage=STORAGE, rest=b"K\0K\2K\3\x86K\3K\1\x86"):
    return protocol_2(REBUILD + b"(" + storage + rest + b"tR")


@pytest.mark.parametrize(
    ("content", "why"),
    [
        (b"", "1 more bytes expected, but it ends"),
        (b"\x80\2}", "1 more bytes expected, but it ends"),
        (b"\xff", "opcode b'.xff' unknown"),
        (b".", "its stack is empty"),
        (b"q\0.", "its stack is empty"),
        (b"(.", "its stack is empty"),
        (b"t.", "a mark is missing"),
        (b"K\1a.", "it adds to something that is no list"),
        (b"]K\1K\1s.", "it adds to something that is no dict"),
        (b"}(K\1u.", "a key has no value"),
        (b"})K\1s.", "a key is neither a string nor an integer"),
        (b"h\7.", "it recalls what it never stored"),
        (b"K\1K\1\x93.", "a name is no string"),
        (b"ctorch\nSi\\x7ae\n.", "a name has a backslash"),
        (b"c" + b"x" * 2000 + b"\n\n.", "no newline found"),
        (b"ctorch\nSize\n]R.", "the arguments of a call are no tuple"),
        (b"ctorch\nSize\nK\1\x85R.", "a shape is no tuple of lengths"),
        (b"ccollections\nOrderedDict\nK\1\x85R.", "an OrderedDict is not made of pairs"),
        (b"ccollections\nOrderedDict\n]K\1a\x85R.", "an OrderedDict is not made of pairs"),
        (b"ctorch._utils\n_rebuild_parameter\n)R.", "a parameter is no tensor"),
        (b"K\1Q.", "a storage is not described as torch does it"),
        (tensor(STORAGE.replace(b"storage", b"Storage")), "a storage is not described as torch"),
        (tensor(STORAGE.replace(b"Float", b"Untyped")), "holds code .torch.UntypedStorage."),
        (tensor(STORAGE.replace(b"K\6", b"J\xff\xff\xff\xff")), "a storage is not described as"),
        (tensor(STORAGE.replace(b"K\6", b"K\6)")), "a storage is not described as torch does it"),
        (tensor(b"K\1"), "a tensor is not described as torch does it"),
        (tensor(rest=b"J\xff\xff\xff\xffK\2\x85K\1\x85"), "a tensor is not described as torch"),
        (tensor(rest=b"K\0K\2\x85K\3K\1\x86"), "a tensor is not described as torch does it"),
        (tensor(rest=b"K\0K\2\x85J\xff\xff\xff\xff\x85"), "a tensor is not described as torch"),
        (tensor(rest=b"K\0K\2\x85N"), "a tensor is not described as torch does it"),
        (tensor(rest=b"K\0K\2\x85K\1\x85NN\x88"), "a tensor is not described as torch does it"),
        (tensor(rest=b"K\0J\xff\xff\xff\xff\x85K\1\x85"), "a shape is no tuple of lengths"),
        (tensor(rest=b"K\0(" + b"K\1" * 33 + b"tK\1\x85"), "a shape is no tuple of lengths"),
    ],
)
def test_what_is_no_dictionary_of_tensors_is_refused(content, why):
    with pytest.raises(UserError, match=why):
        read(content)


LONG = struct.pack("<I", 2**31 - 1)
NESTED = b")" + b"\x85" * 50_000
DOUBLED = b")" + b"q\0h\0\x86" * 60  # 2^60 things, if anybody counts


@pytest.mark.parametrize(
    "content",
    [
        b"X" + LONG,
        b"\x8d" + struct.pack("<Q", 2**62),
        b"\x8b" + LONG,
        b"\x95" + struct.pack("<Q", 2**62),
        b"N" + b"r" + LONG + b".",
        b"\x8a\xff" + b"\x7f" * 255 + b".",
        b"}" + NESTED + b"Ns.",
        b"}" + DOUBLED + b"Ns.",
    ],
)
def test_a_bomb_costs_neither_memory_nor_time(content):
    start = time.process_time()
    tracemalloc.start()
    with contextlib.suppress(UserError):
        read(content)
    peak_bytes = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak_bytes < 100e6
    assert time.process_time() - start < 20


def test_a_pickle_without_an_end_is_refused(monkeypatch):
    monkeypatch.setattr("tfllm.huggingface.pickles._MOST_INSTRUCTIONS", 100)
    with pytest.raises(UserError, match="it has more than 100 instructions"):
        read(b"N" * 101)
    with pytest.raises(UserError, match="it makes more than 100 entries"):
        read(b"]q\0(" + b"K\1K\1\x86" * 20 + b"e" + b"ccollections\nOrderedDict\nh\0\x85R" * 6)
    with pytest.raises(UserError, match="a number is too large"):
        read(b"\x8a\x20" + b"\x7f" * 32 + b".")
