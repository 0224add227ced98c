"""Measures of a model, live or served."""

from tfllm.evaluators.analogies import analogies
from tfllm.evaluators.classification import classification
from tfllm.evaluators.generation import generation
from tfllm.evaluators.language_model import language_model
from tfllm.evaluators.multiple_choice import multiple_choice
from tfllm.evaluators.perplexity import Perplexity, perplexity, served_context_length
from tfllm.evaluators.report import table, write_report
from tfllm.evaluators.result import Evaluation
from tfllm.evaluators.run import evaluate
from tfllm.evaluators.similarity import similarity
from tfllm.evaluators.span_qa import span_qa

__all__ = [
    "Evaluation",
    "Perplexity",
    "analogies",
    "classification",
    "evaluate",
    "generation",
    "language_model",
    "multiple_choice",
    "perplexity",
    "served_context_length",
    "similarity",
    "span_qa",
    "table",
    "write_report",
]
