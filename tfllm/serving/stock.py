"""Starting the stock `tensorflow_model_server` with the arguments of the embedded server."""

from __future__ import annotations

import logging
import math
import os
import shutil
import tempfile
from pathlib import Path

from google.protobuf import text_format
from tensorflow_serving.config import model_server_config_pb2

from tfllm.errors import UserError
from tfllm.serving.models import Models, ServedModel, served_models

log = logging.getLogger(__name__)

BINARY = "tensorflow_model_server"


def stock_server_command(
    models: Models, port: int = 8500, *, poll_s: float = 1.0, config_file: str | Path | None = None
) -> list[str]:
    """The command line that serves `models` with the stock server.

    Args:
        models: As `Server`.
        port: TCP port; the stock server listens on every address of the machine.
        poll_s: Seconds between two looks at the base paths, rounded up to whole ones.
        config_file: Where the models are written when flags cannot say them: several models,
            other versions than the latest, or labels.

    Raises:
        UserError: as `served_models`, or a config file that is needed and not given.
    """
    served = served_models(models)
    command = [BINARY, f"--port={port}", f"--file_system_poll_wait_seconds={math.ceil(poll_s)}"]
    (name, model), *others = served.items()
    if not others and model == ServedModel(model.base_path):
        return [*command, f"--model_name={name}", f"--model_base_path={model.base_path}"]
    if config_file is None:
        raise UserError("several models, or other versions than the latest, need a config_file.")
    Path(config_file).write_text(_config_text(served), encoding="utf-8")
    command.append(f"--model_config_file={config_file}")
    if any(model.labels for model in served.values()):
        # Else the server refuses to start: no version is loaded yet when it reads the labels.
        command.append("--allow_version_labels_for_unavailable_models=true")
    return command


def run_stock_server(models: Models, port: int = 8500, *, poll_s: float = 1.0) -> None:
    """Replaces this process by the stock server; does not return.

    Raises:
        UserError: the binary is not on the PATH, or as `served_models`.
    """
    binary = shutil.which(BINARY)
    if binary is None:
        raise UserError(
            f"there is no {BINARY} on the PATH. Install TensorFlow Serving's Debian package "
            "tensorflow-model-server (https://www.tensorflow.org/tfx/serving/setup), or run its "
            f"Docker image: docker run -p {port}:8500 -v $PWD/models/NAME:/models/NAME "
            "-e MODEL_NAME=NAME tensorflow/serving"
        )
    folder = tempfile.mkdtemp(prefix="tfllm-")  # the server reads it after this process is gone
    config_file = Path(folder) / "models.config"
    command = stock_server_command(models, port, poll_s=poll_s, config_file=config_file)
    log.info("%s", " ".join(command))
    os.execv(binary, command)


def _config_text(served: dict[str, ServedModel]) -> str:
    config = model_server_config_pb2.ModelServerConfig()
    for name, model in served.items():
        entry = config.model_config_list.config.add(
            name=name, base_path=model.base_path, model_platform="tensorflow"
        )
        if model.versions is not None:
            entry.model_version_policy.specific.versions.extend(sorted(model.versions))
        elif model.latest is None:
            entry.model_version_policy.all.SetInParent()
        elif model.latest != 1:
            entry.model_version_policy.latest.num_versions = model.latest
        entry.version_labels.update(model.labels)
    return text_format.MessageToString(config)
