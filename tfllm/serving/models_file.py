"""A `models.config` that is changed while its comments and its history stay.

What the labels were before each change stands in the file itself, as comments that the stock server
skips: so file and history are one rename, and travel together.
"""

from __future__ import annotations

import os
from pathlib import Path

from google.protobuf import text_format
from tensorflow_serving.config import model_server_config_pb2

from tfllm.aside import write_file
from tfllm.errors import UserError
from tfllm.serving.model_config import read_model_config

_BEFORE = "# before: "
_MOST_BEFORE = 20


class ModelsFile:
    """A `--model_config_file` to be changed.

    Args:
        path: The file. Comments above the first field are kept, those between fields are not.

    Attributes:
        path: The same.
        config: What the file says.

    Raises:
        UserError: a file that cannot be read or parsed.
    """

    def __init__(self, path: str | os.PathLike):
        self.path = Path(path)
        self.config = read_model_config(path)
        lines = self.path.read_text(encoding="utf-8").splitlines()
        first = next(i for i, line in enumerate(lines) if line and not line.startswith("#"))
        self._header = lines[:first]
        self._before = [line for line in lines if line.startswith(_BEFORE)]

    def entry(self, model: str) -> model_server_config_pb2.ModelConfig:
        """A copy of what the file says of a model.

        Raises:
            UserError: it says nothing of it.
        """
        for entry in self.config.model_config_list.config:
            if entry.name == model:
                copy = model_server_config_pb2.ModelConfig()
                copy.CopyFrom(entry)
                return copy
        names = ", ".join(entry.name for entry in self.config.model_config_list.config)
        raise UserError(f"{self.path} has no model {model}: it has {names or 'none'}.")

    def with_entry(
        self, changed: model_server_config_pb2.ModelConfig
    ) -> model_server_config_pb2.ModelServerConfig:
        """The config of the file, with this in place of what it says of that model."""
        config = model_server_config_pb2.ModelServerConfig()
        config.CopyFrom(self.config)
        for entry in config.model_config_list.config:
            if entry.name == changed.name:
                entry.CopyFrom(changed)
        return config

    def before(self, model: str) -> model_server_config_pb2.ModelConfig:
        """The version policy and the labels of a model before its last change.

        Raises:
            UserError: there is no such change, or its comment is damaged.
        """
        for line in reversed(self._before):
            if (entry := self._parsed(line)).name == model:
                return entry
        raise UserError(f"{self.path} has no earlier labels of {model} to go back to.")

    def push(self, model: str) -> None:
        """Remembers what the file says of a model; of the oldest changes some are forgotten."""
        now = self.entry(model)
        short = model_server_config_pb2.ModelConfig(name=model, version_labels=now.version_labels)
        if now.HasField("model_version_policy"):
            short.model_version_policy.CopyFrom(now.model_version_policy)
        line = _BEFORE + text_format.MessageToString(short, as_one_line=True)
        self._before = [*self._before, line][-_MOST_BEFORE:]

    def pop(self, model: str) -> None:
        """Forgets the last change of a model."""
        for i in reversed(range(len(self._before))):
            if self._parsed(self._before[i]).name == model:
                del self._before[i]
                return

    def write(self, config: model_server_config_pb2.ModelServerConfig) -> None:
        """Puts `config` in place of what the file says; the old or the new one is there, whole."""
        text = text_format.MessageToString(config)
        lines = [*self._header, *text.splitlines(), *self._before]
        write_file(self.path, "\n".join(lines) + "\n")
        self.config = config

    def _parsed(self, line: str) -> model_server_config_pb2.ModelConfig:
        entry = model_server_config_pb2.ModelConfig()
        try:
            text_format.Parse(line.removeprefix(_BEFORE), entry)
        except text_format.ParseError as error:
            raise UserError(f"{self.path}: remove the damaged comment {line!r}: {error}") from error
        return entry
