"""A preset of any task."""

import json
import os
from pathlib import Path

import keras

from tfllm.errors import UserError
from tfllm.models.presets import require_preset
from tfllm.models.task import Task


def from_preset(folder: str | os.PathLike, **kwargs) -> Task:
    """Loads whatever model a preset holds.

    Args:
        folder: A folder that `save_to_preset` wrote.
        **kwargs: Of `Task.from_preset`; `dtype` is the policy to load with.

    Raises:
        UserError: there is no preset at that path, it is damaged, or holds no task of ours.
    """
    path = Path(require_preset(folder)) / "task.json"
    try:
        name = json.loads(path.read_text(encoding="utf-8"))["registered_name"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UserError(f"{path} does not describe a model with its task: {error!r}.") from None
    found = keras.saving.get_registered_object(name)
    if not (isinstance(found, type) and issubclass(found, Task)):
        raise UserError(f"{path} describes a {name}, which is no task of tfllm.models.")
    return found.from_preset(folder, **kwargs)
