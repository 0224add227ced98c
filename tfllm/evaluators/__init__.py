"""Measures of a model, live or served."""

from tfllm.evaluators.perplexity import Perplexity, perplexity

__all__ = ["Perplexity", "perplexity"]
