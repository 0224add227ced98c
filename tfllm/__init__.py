"""Text to a language model that answers gRPC calls on stock TensorFlow Serving.

Names are loaded on first use, so that `import tfllm` does not import TensorFlow.
"""

import importlib
from typing import TYPE_CHECKING, Any

from tfllm._version import __version__

if TYPE_CHECKING:
    from tfllm.huggingface import from_huggingface, from_preset, to_huggingface
    from tfllm.models import (
        CausalLM,
        MaskedLM,
        Seq2SeqLM,
        SpanQA,
        TextClassifier,
        TextEmbedder,
    )

_TASKS = ("CausalLM", "MaskedLM", "Seq2SeqLM", "SpanQA", "TextClassifier", "TextEmbedder")
_HOMES = dict.fromkeys(_TASKS, "tfllm.models") | {
    "from_huggingface": "tfllm.huggingface",
    "from_preset": "tfllm.huggingface",
    "to_huggingface": "tfllm.huggingface",
}
_PACKAGES = (
    "data",
    "decoding",
    "evaluators",
    "export",
    "huggingface",
    "layers",
    "metrics",
    "models",
    "optimizers",
    "reports",
    "serving",
    "tokenizers",
    "trainers",
)

__all__ = [
    "CausalLM",
    "MaskedLM",
    "Seq2SeqLM",
    "SpanQA",
    "TextClassifier",
    "TextEmbedder",
    "__version__",
    "from_huggingface",
    "from_preset",
    "to_huggingface",
]


def __getattr__(name: str) -> Any:
    if name in _HOMES:
        return getattr(importlib.import_module(_HOMES[name]), name)
    if name in _PACKAGES:
        return importlib.import_module(f"tfllm.{name}")
    raise AttributeError(f"module 'tfllm' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted([*__all__, *_PACKAGES])
