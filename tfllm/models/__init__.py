"""Backbones, and the tasks on top of them."""

import tfllm.tokenizers  # noqa: F401 - registers the classes that a preset names
from tfllm.models.bert import BertBackbone
from tfllm.models.causal_lm import CausalLM
from tfllm.models.depth import freeze, layer_scales
from tfllm.models.encoder_preprocessor import EncoderPreprocessor
from tfllm.models.generation import GenerationSettings
from tfllm.models.gpt import GPTBackbone, GPTCausalLM, GPTCausalLMPreprocessor
from tfllm.models.loading import from_preset
from tfllm.models.lora import enable_lora
from tfllm.models.lora_merging import merge_lora
from tfllm.models.lstm import LSTMBackbone, LSTMCausalLM, LSTMCausalLMPreprocessor
from tfllm.models.lstm_encoder import LSTMEncoderBackbone
from tfllm.models.lstm_seq2seq import (
    LSTMSeq2SeqBackbone,
    LSTMSeq2SeqLM,
    LSTMSeq2SeqLMPreprocessor,
)
from tfllm.models.marian import MarianBackbone, MarianSeq2SeqLM, MarianSeq2SeqLMPreprocessor
from tfllm.models.masked_lm import MaskedLM
from tfllm.models.preprocessor import CausalLMPreprocessor
from tfllm.models.seq2seq_lm import Seq2SeqLM
from tfllm.models.seq2seq_preprocessor import Seq2SeqLMPreprocessor
from tfllm.models.skip_gram import SkipGram, SkipGramBackbone, SkipGramPreprocessor
from tfllm.models.span_qa import SpanQA
from tfllm.models.t5 import T5Backbone, T5Seq2SeqLM, T5Seq2SeqLMPreprocessor
from tfllm.models.task import Task
from tfllm.models.text_classifier import TextClassifier
from tfllm.models.text_embedder import TextEmbedder
from tfllm.models.text_functions import TextFunctions, build
from tfllm.models.text_task import TextTask

__all__ = [
    "BertBackbone",
    "CausalLM",
    "CausalLMPreprocessor",
    "EncoderPreprocessor",
    "GPTBackbone",
    "GPTCausalLM",
    "GPTCausalLMPreprocessor",
    "GenerationSettings",
    "LSTMBackbone",
    "LSTMCausalLM",
    "LSTMCausalLMPreprocessor",
    "LSTMEncoderBackbone",
    "LSTMSeq2SeqBackbone",
    "LSTMSeq2SeqLM",
    "LSTMSeq2SeqLMPreprocessor",
    "MarianBackbone",
    "MarianSeq2SeqLM",
    "MarianSeq2SeqLMPreprocessor",
    "MaskedLM",
    "Seq2SeqLM",
    "Seq2SeqLMPreprocessor",
    "SkipGram",
    "SkipGramBackbone",
    "SkipGramPreprocessor",
    "SpanQA",
    "T5Backbone",
    "T5Seq2SeqLM",
    "T5Seq2SeqLMPreprocessor",
    "Task",
    "TextClassifier",
    "TextEmbedder",
    "TextFunctions",
    "TextTask",
    "build",
    "enable_lora",
    "freeze",
    "from_preset",
    "layer_scales",
    "merge_lora",
]
