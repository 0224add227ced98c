"""Measures of a model, live or served."""

from tfllm.evaluators.perplexity import Perplexity, perplexity, served_context_length

__all__ = ["Perplexity", "perplexity", "served_context_length"]
