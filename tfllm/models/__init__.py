"""Backbones, and the tasks on top of them."""

import tfllm.tokenizers  # noqa: F401 - registers the classes that a preset names
from tfllm.models.causal_lm import CausalLM
from tfllm.models.gpt import GPTBackbone, GPTCausalLM, GPTCausalLMPreprocessor
from tfllm.models.lstm import LSTMBackbone, LSTMCausalLM, LSTMCausalLMPreprocessor
from tfllm.models.preprocessor import CausalLMPreprocessor
from tfllm.models.text_generator import TextGenerator

__all__ = [
    "CausalLM",
    "CausalLMPreprocessor",
    "GPTBackbone",
    "GPTCausalLM",
    "GPTCausalLMPreprocessor",
    "LSTMBackbone",
    "LSTMCausalLM",
    "LSTMCausalLMPreprocessor",
    "TextGenerator",
]
