"""Reads a pickle as data: what it asks to call is compared with a short list, nothing is executed.

A pickle is a program that can name and call every function of Python. The few instructions that a
dictionary of tensors needs are interpreted here, so there is no way to a function outside of this
file, and no size that a pickle claims is believed.

Source:
    Python's pickletools.py, which describes every instruction; torch/_utils.py for what
    `_rebuild_tensor_v2` is called with; torch/_weights_only_unpickler.py for the idea.
"""

import os
import pickletools
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, BinaryIO, NamedTuple

from tfllm.errors import UserError
from tfllm.huggingface.stored import is_shape

_STORAGES = {
    "torch.DoubleStorage": "float64",
    "torch.FloatStorage": "float32",
    "torch.HalfStorage": "float16",
    "torch.BFloat16Storage": "bfloat16",
    "torch.LongStorage": "int64",
    "torch.IntStorage": "int32",
    "torch.ShortStorage": "int16",
    "torch.CharStorage": "int8",
    "torch.ByteStorage": "uint8",
    "torch.BoolStorage": "bool",
}
# Ten thousand tensors take about half a million.
_MOST_INSTRUCTIONS = 2_000_000
_LONGEST_LINE = 1000
# The magic number of torch has 77. Python refuses to print very long ones.
_MOST_BITS = 128
_MARK = object()


@dataclass(frozen=True)
class Storage:
    """Numbers that one or more tensors share.

    Args:
        key: Its name in the file.
        dtype: One of `tfllm.huggingface.stored.ITEM_BYTES`.
        length: How many numbers, as the pickle claims.
    """

    key: str
    dtype: str
    length: int


@dataclass(frozen=True)
class View:
    """A tensor: a place in a storage. All numbers count items of the storage, none is negative."""

    storage: Storage
    offset: int
    shape: tuple[int, ...]
    strides: tuple[int, ...]


class Pickle(NamedTuple):
    """What a pickle holds.

    Args:
        content: Dictionaries, lists, tuples, strings, numbers, `Storage` and `View`.
        storages: All that it names, by their keys.
    """

    content: Any
    storages: dict[str, Storage]


@dataclass(frozen=True)
class _Global:
    """Something that the pickle may name: a function or a kind of storage."""

    name: str


def read_pickle(file: BinaryIO, path: str | os.PathLike[str]) -> Pickle:
    """Reads the pickle that begins where `file` stands, and leaves it at the pickle's end.

    Args:
        file: A file or a buffer.
        path: What to call it in errors.

    Raises:
        UserError: it names what is not on the list, uses an instruction that weights do not need,
            or is damaged.
    """
    machine = _Machine(path)
    operations = pickletools.genops(_Bounded(file))  # type: ignore[arg-type]
    for _ in range(_MOST_INSTRUCTIONS):
        try:
            operation, argument, _ = next(operations)
        except ValueError as error:
            raise machine.damaged(str(error)) from None
        if operation.name == "STOP":
            return Pickle(machine.pop(), machine.storages)
        machine.execute(operation.name, argument)
    raise machine.damaged(f"it has more than {_MOST_INSTRUCTIONS} instructions")


class _Bounded:
    """The part of a file that pickletools needs, which never asks for memory that a file claims."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        start = file.tell()
        self._end = file.seek(0, os.SEEK_END)
        file.seek(start)
        self.tell = file.tell

    def read(self, size: int) -> bytes:
        if size > self._end - self.tell():
            raise ValueError(f"{size} more bytes expected, but it ends")
        return self._file.read(size)

    def readline(self) -> bytes:
        line = self._file.readline(_LONGEST_LINE)
        if b"\\" in line:  # pickletools would warn of escapes
            raise ValueError("a name has a backslash")
        return line


@dataclass
class _Machine:
    """The stack and the memory of a pickle that is being read."""

    path: str | os.PathLike[str]
    stack: list[Any] = field(default_factory=list)
    memory: dict[int, Any] = field(default_factory=dict)
    storages: dict[str, Storage] = field(default_factory=dict)
    num_pairs: int = 0

    def damaged(self, why: str) -> UserError:
        return UserError(f"{self.path} is damaged: its pickle cannot be read: {why}.")

    def code(self, what: str) -> UserError:
        return UserError(
            f"{self.path} holds code ({ascii(what[:100])[1:-1]}): only weights are read from a "
            "pickle, and nothing in it was run. If you trust it, load it with torch and save the "
            "model as safetensors."
        )

    def execute(self, name: str, argument: Any) -> None:
        if name in _PUSHED:
            if isinstance(argument, int) and argument.bit_length() > _MOST_BITS:
                raise self.damaged("a number is too large")
            self.stack.append(argument)
        elif name in _MADE:
            self.stack.append(_MADE[name]())
        elif name in _STEPS:
            _STEPS[name](self, argument)
        else:
            raise self.code(f"the instruction {name}")

    def pop(self) -> Any:
        if not self.stack or self.stack[-1] is _MARK:
            raise self.damaged("its stack is empty")
        return self.stack.pop()

    def top(self, kind: type) -> Any:
        if not (self.stack and isinstance(self.stack[-1], kind)):
            raise self.damaged(f"it adds to something that is no {kind.__name__}")
        return self.stack[-1]

    def pop_to_mark(self) -> list[Any]:
        items = []
        while self.stack and self.stack[-1] is not _MARK:
            items.append(self.stack.pop())
        if not self.stack:
            raise self.damaged("a mark is missing")
        self.stack.pop()
        return items[::-1]

    def push_tuple(self, length: int) -> None:
        self.stack.append(tuple([self.pop() for _ in range(length)][::-1]))

    def append(self, items: list[Any]) -> None:
        self.top(list).extend(items)

    def set_items(self, items: list[Any]) -> None:
        if len(items) % 2:
            raise self.damaged("a key has no value")
        found = self.top(dict)
        for key, value in zip(items[::2], items[1::2], strict=True):
            # Others, as tuples of tuples, could take forever to hash.
            if not isinstance(key, str | int):
                raise self.damaged("a key is neither a string nor an integer")
            found[key] = value

    def remember(self, index: int | None) -> None:
        if not self.stack:
            raise self.damaged("its stack is empty")
        self.memory[len(self.memory) if index is None else index] = self.stack[-1]

    def recall(self, index: int) -> None:
        if index not in self.memory:
            raise self.damaged("it recalls what it never stored")
        self.stack.append(self.memory[index])

    def name_global(self, name: str) -> None:
        if name not in _STORAGES and name not in _FUNCTIONS:
            raise self.code(name)
        self.stack.append(_Global(name))

    def name_from_stack(self) -> None:
        name, module = self.pop(), self.pop()
        if not (isinstance(name, str) and isinstance(module, str)):
            raise self.damaged("a name is no string")
        self.name_global(f"{module}.{name}")

    def call(self) -> None:
        arguments, function = self.pop(), self.pop()
        if not (isinstance(function, _Global) and function.name in _FUNCTIONS):
            raise self.code("a call of what is no function")
        if not isinstance(arguments, tuple):
            raise self.damaged("the arguments of a call are no tuple")
        self.stack.append(_FUNCTIONS[function.name](self, *arguments))

    def set_state(self) -> None:
        self.pop()
        self.top(dict)  # the `_metadata` of torch's state dicts; no weights are in it

    def push_storage(self) -> None:
        match self.pop():
            case ("storage", _Global(name), str(key), str(), int(length), *view) if (
                name in _STORAGES and length >= 0 and view in ([], [None])
            ):
                storage = Storage(key, _STORAGES[name], length)
                self.storages[key] = storage
                self.stack.append(storage)
            case _:
                raise self.damaged("a storage is not described as torch does it")

    def ordered_dict(self, pairs: Any = (), *_: Any) -> dict[Any, Any]:
        if not isinstance(pairs, list | tuple) or not all(_is_pair(pair) for pair in pairs):
            raise self.damaged("an OrderedDict is not made of pairs")
        self.num_pairs += len(pairs)
        if self.num_pairs > _MOST_INSTRUCTIONS:  # one list given a million times
            raise self.damaged(f"it makes more than {_MOST_INSTRUCTIONS} entries")
        self.stack.append({})
        self.set_items([item for pair in pairs for item in pair])
        return self.pop()

    def size(self, shape: Any = (), *_: Any) -> tuple[int, ...]:
        if not is_shape(shape):
            raise self.damaged("a shape is no tuple of lengths")
        return tuple(shape)

    def tensor(self, *arguments: Any) -> View:
        match arguments:
            # The rest is requires_grad and hooks; then, in newer files, flags such as "negated".
            case (Storage() as storage, int(offset), shape, tuple(strides), *rest) if (
                offset >= 0
                and all(isinstance(stride, int) and stride >= 0 for stride in strides)
                and len(strides) == len(self.size(shape))
                and not any(rest[2:])
            ):
                return View(storage, offset, self.size(shape), strides)
        raise self.damaged("a tensor is not described as torch does it")

    def parameter(self, tensor: Any = None, *_: Any) -> View:
        if not isinstance(tensor, View):
            raise self.damaged("a parameter is no tensor")
        return tensor


def _is_pair(pair: Any) -> bool:
    return isinstance(pair, list | tuple) and len(pair) == 2


_FUNCTIONS: dict[str, Callable[..., Any]] = {
    "collections.OrderedDict": _Machine.ordered_dict,
    "torch.Size": _Machine.size,
    "torch._utils._rebuild_tensor": _Machine.tensor,  # of torch 0.3 and older
    "torch._utils._rebuild_tensor_v2": _Machine.tensor,
    "torch._utils._rebuild_parameter": _Machine.parameter,
}
_PUSHED = {
    *("BININT", "BININT1", "BININT2", "LONG1", "LONG4", "BINFLOAT"),
    *("BINUNICODE", "SHORT_BINUNICODE", "BINUNICODE8"),
    *("BINSTRING", "SHORT_BINSTRING"),  # the strings of Python 2
}
_MADE: dict[str, Callable[[], Any]] = {
    "NONE": lambda: None,
    "NEWTRUE": lambda: True,
    "NEWFALSE": lambda: False,
    "EMPTY_DICT": dict,
    "EMPTY_LIST": list,
    "EMPTY_TUPLE": tuple,
    "MARK": lambda: _MARK,
}
_STEPS = {
    "PROTO": lambda *_: None,
    "FRAME": lambda *_: None,
    "TUPLE": lambda machine, _: machine.stack.append(tuple(machine.pop_to_mark())),
    "TUPLE1": lambda machine, _: machine.push_tuple(1),
    "TUPLE2": lambda machine, _: machine.push_tuple(2),
    "TUPLE3": lambda machine, _: machine.push_tuple(3),
    "APPEND": lambda machine, _: machine.append([machine.pop()]),
    "APPENDS": lambda machine, _: machine.append(machine.pop_to_mark()),
    "SETITEM": lambda machine, _: machine.set_items([machine.pop(), machine.pop()][::-1]),
    "SETITEMS": lambda machine, _: machine.set_items(machine.pop_to_mark()),
    "MEMOIZE": lambda machine, _: machine.remember(None),
    "BINPUT": lambda machine, index: machine.remember(index),
    "LONG_BINPUT": lambda machine, index: machine.remember(index),
    "BINGET": lambda machine, index: machine.recall(index),
    "LONG_BINGET": lambda machine, index: machine.recall(index),
    # pickletools gives module and name with a space between.
    "GLOBAL": lambda machine, name: machine.name_global(name.replace(" ", ".")),
    "STACK_GLOBAL": lambda machine, _: machine.name_from_stack(),
    "REDUCE": lambda machine, _: machine.call(),
    "BUILD": lambda machine, _: machine.set_state(),
    "BINPERSID": lambda machine, _: machine.push_storage(),
}
