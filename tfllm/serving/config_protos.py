"""Text files of messages that tensorflow-serving-api does not hold.

Source:
    tensorflow_serving/config/{ssl_config,monitoring_config}.proto, for names and numbers.
"""

from __future__ import annotations

import os
from typing import Any

from google.protobuf import descriptor_pb2, descriptor_pool, message_factory

from tfllm.serving.model_config import read_text_proto

_FIELDS = descriptor_pb2.FieldDescriptorProto
_STRING, _BOOL, _MESSAGE = _FIELDS.TYPE_STRING, _FIELDS.TYPE_BOOL, _FIELDS.TYPE_MESSAGE
_MESSAGES = {
    "SSLConfig": (
        ("server_key", _STRING),
        ("server_cert", _STRING),
        ("custom_ca", _STRING),
        ("client_verify", _BOOL),
    ),
    "PrometheusConfig": (("enable", _BOOL), ("path", _STRING)),
    "MonitoringConfig": (("prometheus_config", "PrometheusConfig"),),
}


def read_ssl_config(path: str | os.PathLike) -> Any:
    """The `SSLConfig` of a `--ssl_config_file`.

    Raises:
        UserError: a file that cannot be read or parsed.
    """
    return _read(path, "SSLConfig")


def read_monitoring_config(path: str | os.PathLike) -> Any:
    """The `MonitoringConfig` of a `--monitoring_config_file`.

    Raises:
        UserError: a file that cannot be read or parsed.
    """
    return _read(path, "MonitoringConfig")


def _read(path: str | os.PathLike, name: str) -> Any:
    # A pool of its own: the day the package has these messages, there is no clash.
    pool = descriptor_pool.DescriptorPool()
    pool.Add(_file())
    found = pool.FindMessageTypeByName(f"tensorflow.serving.{name}")
    message = message_factory.GetMessageClass(found)()
    read_text_proto(path, message)
    return message


def _file() -> descriptor_pb2.FileDescriptorProto:
    file = descriptor_pb2.FileDescriptorProto(
        name="tfllm/serving_config.proto", package="tensorflow.serving", syntax="proto3"
    )
    for name, fields in _MESSAGES.items():
        message = file.message_type.add(name=name)
        for number, (field, kind) in enumerate(fields, 1):
            added = message.field.add(name=field, number=number, label=_FIELDS.LABEL_OPTIONAL)
            if isinstance(kind, str):
                added.type, added.type_name = _MESSAGE, f".tensorflow.serving.{kind}"
            else:
                added.type = kind
    return file
