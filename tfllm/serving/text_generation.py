"""The gateway's own gRPC service: the messages of `text_generation.proto`, made as it is read.

What protoc generates runs with few versions of protobuf, a descriptor with all of them. The file is
read line by line and may have what it has now: messages of plain fields, and one service.
"""

from __future__ import annotations

import re
from importlib import resources
from typing import Any

from google.protobuf import descriptor_pb2, descriptor_pool, message_factory

_FIELD = descriptor_pb2.FieldDescriptorProto
_KINDS = {
    "string": _FIELD.TYPE_STRING,
    "bytes": _FIELD.TYPE_BYTES,
    "bool": _FIELD.TYPE_BOOL,
    "int32": _FIELD.TYPE_INT32,
    "int64": _FIELD.TYPE_INT64,
    "float": _FIELD.TYPE_FLOAT,
}
_PACKAGE = re.compile(r"package (\S+);")
_BLOCK = re.compile(r"(message|service) (\w+) \{")
_FIELD_LINE = re.compile(r"(?:(optional|repeated) )?(\w+) (\w+) = (\d+);")
_RPC = re.compile(r"rpc (\w+)\((\w+)\) returns \(stream (\w+)\);")
_NO_MEANING = re.compile(r'|//.*|\}|syntax = "proto3";')


def _file_of(source: str) -> descriptor_pb2.FileDescriptorProto:
    file = descriptor_pb2.FileDescriptorProto(name="tfllm/text_generation.proto", syntax="proto3")
    for line in map(str.strip, source.splitlines()):
        if found := _BLOCK.fullmatch(line):
            kind, name = found.groups()
            block = (file.message_type if kind == "message" else file.service).add(name=name)
        elif found := _FIELD_LINE.fullmatch(line):
            _add_field(block, file.package, *found.groups())
        elif found := _RPC.fullmatch(line):
            name, takes, returns = found.groups()
            block.method.add(
                name=name,
                input_type=f".{file.package}.{takes}",
                output_type=f".{file.package}.{returns}",
                server_streaming=True,
            )
        elif found := _PACKAGE.fullmatch(line):
            file.package = found[1]
        elif not _NO_MEANING.fullmatch(line):
            raise ValueError(f"This line of the .proto is of no form that is read: {line}")
    return file


def _add_field(
    message: descriptor_pb2.DescriptorProto,
    package: str,
    label: str | None,
    kind: str,
    name: str,
    number: str,
) -> None:
    field = message.field.add(name=name, number=int(number), label=_FIELD.LABEL_OPTIONAL)
    if label == "repeated":
        field.label = _FIELD.LABEL_REPEATED
    if label == "optional":  # whether it was set is kept by a oneof of its own
        field.proto3_optional = True
        field.oneof_index = len(message.oneof_decl)
        message.oneof_decl.add(name=f"_{name}")
    if kind in _KINDS:
        field.type = _KINDS[kind]
    else:
        field.type, field.type_name = _FIELD.TYPE_MESSAGE, f".{package}.{kind}"


_SOURCE = resources.files("tfllm.serving").joinpath("text_generation.proto").read_text("utf-8")
# In the pool of the process, where reflection finds it.
_DESCRIPTOR = descriptor_pool.Default().AddSerializedFile(_file_of(_SOURCE).SerializeToString())


def _message(name: str) -> Any:
    return message_factory.GetMessageClass(_DESCRIPTOR.message_types_by_name[name])


SERVICE = _DESCRIPTOR.services_by_name["TextGeneration"].full_name
METHOD = "Generate"

GenerateRequest = _message("GenerateRequest")
GenerateReply = _message("GenerateReply")
Usage = _message("Usage")
