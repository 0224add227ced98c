"""The stock server's `ModelServerConfig`: what to serve, from a request or a text file.

Source:
    tensorflow_serving/config/model_server_config.proto,
    tensorflow_serving/sources/storage_path/file_system_storage_path_source.proto and
    tensorflow_serving/model_servers/server_core.cc, read for the behaviour and the texts.
"""

from __future__ import annotations

import os
import re
from collections.abc import Collection
from pathlib import Path

from google.protobuf import text_format
from google.protobuf.message import Message
from tensorflow_serving.config import model_server_config_pb2

from tfllm.errors import UserError
from tfllm.serving.models import ServedModel
from tfllm.serving.status import Code, ServingError

PLATFORM = "tensorflow"
_URI = re.compile(r"[a-zA-Z][0-9a-zA-Z.]*://")


def models_of(
    config: model_server_config_pb2.ModelServerConfig, current: Collection[str] = ()
) -> dict[str, ServedModel]:
    """The models of a config by name.

    Args:
        config: One with a `model_config_list`, which may be empty.
        current: Names of the models that are served now.

    Raises:
        ServingError: INVALID_ARGUMENT for what the stock server refuses.
    """
    entries = config.model_config_list.config
    names: set[str] = set()
    for entry in entries:
        if entry.name in names:
            raise _invalid(f"Illegal to list model {entry.name} multiple times in config list")
        names.add(entry.name)
    for entry in entries:
        if not (os.path.isabs(entry.base_path) or _URI.match(entry.base_path)):
            raise _invalid(
                f"Expected model {entry.name} to have an absolute path or URI; "
                f"got base_path()={entry.base_path}"
            )
    for entry in entries:
        platform = _platform(entry)
        if platform != PLATFORM and entry.name in current:
            raise _invalid(
                f"Illegal to change a model's platform. For model {entry.name} platform was "
                f"{PLATFORM} and new platform requested is {platform}"
            )
        if platform != PLATFORM:
            raise _invalid(f"Model {entry.name} requests unsupported platform {platform}")
    return {entry.name: _model(entry) for entry in entries}


def read_model_config(path: str | os.PathLike) -> model_server_config_pb2.ModelServerConfig:
    """The config of a `--model_config_file`.

    Raises:
        UserError: a file that cannot be read or parsed, or that lists no models.
    """
    config = model_server_config_pb2.ModelServerConfig()
    read_text_proto(path, config)
    if config.WhichOneof("config") != "model_config_list":
        raise UserError(
            f"{path} must hold a model_config_list, such as model_config_list {{ config {{ "
            'name: "gpt" base_path: "/models/gpt" model_platform: "tensorflow" } }.'
        )
    return config


def read_text_proto(path: str | os.PathLike, message: Message) -> None:
    """Fills `message` from a file with its text form.

    Raises:
        UserError: a file that cannot be read or parsed.
    """
    try:
        text_format.Parse(Path(path).read_bytes(), message)
    except OSError as error:
        raise UserError(f"cannot read {path}: {error.strerror}.") from error
    except (text_format.ParseError, UnicodeDecodeError) as error:
        name = message.DESCRIPTOR.name
        raise UserError(f"{path} is not the text form of {name}: {error}") from error


def _platform(entry: model_server_config_pb2.ModelConfig) -> str:
    if not entry.model_type:
        if not entry.model_platform:
            raise _invalid(
                "Illegal setting neither ModelServerConfig::model_type (deprecated) nor "
                "ModelServerConfig::model_platform."
            )
        return entry.model_platform
    if entry.model_platform:
        raise _invalid(
            "Illegal setting both ModelServerConfig::model_type (deprecated) and "
            "ModelServerConfig::model_platform."
        )
    if entry.model_type != model_server_config_pb2.TENSORFLOW:
        raise _invalid(f"ModelServerConfig::model_type choice {entry.model_type} not supported.")
    return PLATFORM


def _model(entry: model_server_config_pb2.ModelConfig) -> ServedModel:
    policy = entry.model_version_policy
    labels, latest, versions = dict(entry.version_labels), 1, None
    kind = policy.WhichOneof("policy_choice")
    if kind == "all":
        return ServedModel(entry.base_path, None, labels)
    if kind == "specific":
        versions = frozenset(policy.specific.versions)
    elif kind == "latest":
        latest = max(policy.latest.num_versions, 1)
    return ServedModel(entry.base_path, latest, labels, versions)


def _invalid(message: str) -> ServingError:
    return ServingError(Code.INVALID_ARGUMENT, message)
