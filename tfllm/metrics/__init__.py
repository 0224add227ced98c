"""Measures of what a model answered, as numbers; nothing here knows a model."""

from tfllm.metrics.analogies import analogy_accuracy, nearest_by_sum
from tfllm.metrics.classification import (
    Average,
    accuracy,
    average_precision,
    confusion_matrix,
    macro,
    matthews,
    micro,
    one_vs_rest,
    per_class,
    roc_auc,
)
from tfllm.metrics.correlation import pearson, spearman
from tfllm.metrics.spans import SpanScores, exact_match, f1, normalize_answer, span_scores
from tfllm.metrics.text_overlap import (
    BLEU_TOKENIZERS,
    ROUGE_TOKENIZERS,
    Overlap,
    Rouge,
    bleu,
    chrf,
    rouge,
)

__all__ = [
    "BLEU_TOKENIZERS",
    "ROUGE_TOKENIZERS",
    "Average",
    "Overlap",
    "Rouge",
    "SpanScores",
    "accuracy",
    "analogy_accuracy",
    "average_precision",
    "bleu",
    "chrf",
    "confusion_matrix",
    "exact_match",
    "f1",
    "macro",
    "matthews",
    "micro",
    "nearest_by_sum",
    "normalize_answer",
    "one_vs_rest",
    "pearson",
    "per_class",
    "roc_auc",
    "rouge",
    "span_scores",
    "spearman",
]
