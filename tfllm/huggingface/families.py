"""Which architecture of Hugging Face is read and written by which module."""

import importlib
from pathlib import Path
from types import ModuleType
from typing import NamedTuple

from tfllm.tokenizers import Tokenizer


class Family(NamedTuple):
    """How the checkpoints of one kind are read and written; modules of this package, by name.

    Attributes:
        model: Has `read` and `write` for configuration and tensors.
        tokenizer: Has the readers and writers of tokenizer files.
        kind: Which of them: `read_KIND` and `write_KIND`.
    """

    model: str
    tokenizer: str
    kind: str

    def module(self) -> ModuleType:
        """The module of the model."""
        return importlib.import_module(f"tfllm.huggingface.{self.model}")

    def read_tokenizer(self, folder: Path) -> Tokenizer:
        """The tokenizer of a folder."""
        return getattr(self._files(), f"read_{self.kind}")(folder)

    def write_tokenizer(self, tokenizer: Tokenizer, folder: Path) -> None:
        """Writes the files of a tokenizer into a folder."""
        getattr(self._files(), f"write_{self.kind}")(tokenizer, folder)

    def _files(self) -> ModuleType:
        return importlib.import_module(f"tfllm.huggingface.{self.tokenizer}")


_GPT2 = Family("gpt2", "byte_pair_files", "byte_pair")
_BERT = Family("bert", "wordpiece_files", "wordpiece")
_T5 = Family("t5", "sentencepiece_files", "t5")
_MARIAN = Family("marian", "sentencepiece_files", "marian")

FAMILIES = {
    "GPT2LMHeadModel": _GPT2,
    "BertModel": _BERT,
    "BertForMaskedLM": _BERT,
    "BertForPreTraining": _BERT,
    "BertForSequenceClassification": _BERT,
    "BertForQuestionAnswering": _BERT,
    "T5ForConditionalGeneration": _T5,
    "T5WithLMHeadModel": _T5,
    "MT5ForConditionalGeneration": _T5,
    "MarianMTModel": _MARIAN,
}

# By the name of the backbone's class.
OF_BACKBONE = {
    "GPTBackbone": _GPT2,
    "BertBackbone": _BERT,
    "T5Backbone": _T5,
    "MarianBackbone": _MARIAN,
}

# Architectures that KerasHub's own converters read.
KERAS_HUB = (
    "GemmaForCausalLM",
    "Gemma2ForCausalLM",
    "Gemma3ForCausalLM",
    "LlamaForCausalLM",
    "MistralForCausalLM",
    "MixtralForCausalLM",
    "Qwen2ForCausalLM",
    "Qwen3ForCausalLM",
    "SmolLM3ForCausalLM",
)
