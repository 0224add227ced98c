"""Text to a language model that answers gRPC calls on stock TensorFlow Serving.

Names are loaded on first use, so that `import tfllm` does not import TensorFlow.
"""

import importlib
from typing import TYPE_CHECKING, Any

from tfllm._version import __version__

if TYPE_CHECKING:
    from tfllm.models import CausalLM

_HOMES = {"CausalLM": "tfllm.models"}
_PACKAGES = (
    "data",
    "decoding",
    "evaluators",
    "export",
    "layers",
    "models",
    "optimizers",
    "serving",
    "tokenizers",
    "trainers",
)

__all__ = ["CausalLM", "__version__"]


def __getattr__(name: str) -> Any:
    if name in _HOMES:
        return getattr(importlib.import_module(_HOMES[name]), name)
    if name in _PACKAGES:
        return importlib.import_module(f"tfllm.{name}")
    raise AttributeError(f"module 'tfllm' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted([*__all__, *_PACKAGES])
