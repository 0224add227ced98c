"""Values of config.json, and the refusal of what our models are not."""

import math
from typing import Any

from tfllm.errors import UserError
from tfllm.huggingface.activations import OURS
from tfllm.huggingface.checkpoint import Checkpoint


def size(checkpoint: Checkpoint, name: str, default: int | None = None) -> int:
    """A whole number of at least 1.

    Raises:
        UserError: it is missing and has no default, or is something else.
    """
    value = checkpoint.config.get(name)
    value = default if value is None else value
    if isinstance(value, bool) or not isinstance(value, int) or value < 1:
        raise UserError(
            f"{checkpoint.folder}/config.json: {name} must be a whole number of at least 1, got "
            f"{value!r}."
        )
    return value


def fraction(checkpoint: Checkpoint, name: str, default: float) -> float:
    """A number in [0, 1), as of dropout; None counts as 0.

    Raises:
        UserError: it is something else.
    """
    value = checkpoint.config.get(name, default) or 0.0
    if not isinstance(value, int | float) or not 0 <= value < 1:
        raise UserError(
            f"{checkpoint.folder}/config.json: {name} must be from 0 to below 1, got {value!r}."
        )
    return float(value)


def positive(checkpoint: Checkpoint, name: str, default: float) -> float:
    """A finite number above 0, as the epsilon of a norm.

    Raises:
        UserError: it is something else.
    """
    value = checkpoint.config.get(name, default)
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    if not is_number or not 0 < value < math.inf:
        raise UserError(
            f"{checkpoint.folder}/config.json: {name} must be a number above 0, got {value!r}."
        )
    return float(value)


def activation(checkpoint: Checkpoint, name: str, default: str) -> str:
    """The name by which `tfllm.layers.activation_of` knows an activation.

    Raises:
        UserError: it is none that is known.
    """
    value = checkpoint.config.get(name, default)
    if value not in OURS:
        raise UserError(
            f"{checkpoint.folder}/config.json: {name} is {value!r}; known are {', '.join(OURS)}."
        )
    return OURS[value]


def require(checkpoint: Checkpoint, **expected: Any) -> None:
    """Refuses a configuration that our layers do not compute.

    Args:
        checkpoint: Of Hugging Face.
        **expected: The only value of each entry that is supported, which is also its default.

    Raises:
        UserError: an entry has another one.
    """
    for name, value in expected.items():
        found = checkpoint.config.get(name, value)
        if found != value:
            raise UserError(
                f"{checkpoint.folder}/config.json: {name} is {found!r}, only {value!r} is "
                "supported."
            )
