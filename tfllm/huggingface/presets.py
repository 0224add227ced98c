"""A preset of any model: a task of ours, or a language model of KerasHub."""

import os
from pathlib import Path

from tfllm import models
from tfllm.huggingface.json_files import read_json
from tfllm.models import TextTask

_KERAS_HUB = "keras_hub>"


def from_preset(folder: str | os.PathLike, **kwargs) -> TextTask:
    """Loads whatever model a preset holds; nothing is downloaded.

    Args:
        folder: As `save_to_preset` or `tfllm import` wrote it.
        **kwargs: `dtype` is the policy to load with.

    Raises:
        UserError: there is no preset at that path, it is damaged, or holds no such model.
    """
    path = Path(folder) / "task.json"
    if path.is_file() and str(read_json(path).get("registered_name")).startswith(_KERAS_HUB):
        from tfllm.huggingface.kerashub import load_keras_hub

        return load_keras_hub(folder, **kwargs)
    return models.from_preset(folder, **kwargs)
