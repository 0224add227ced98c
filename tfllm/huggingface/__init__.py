"""Checkpoints of Hugging Face to our models and back; KerasHub's models through one adapter."""

from tfllm.huggingface.exporting import to_huggingface
from tfllm.huggingface.importing import from_huggingface
from tfllm.huggingface.presets import from_preset

__all__ = ["from_huggingface", "from_preset", "to_huggingface"]
