"""What is learned from the stored columns of a batch: pure functions of them and of the step.

Each objective is called with the columns of one global batch and with int64[2], the run's seed and
the step, and gives (x, y, weight) of static shapes. Nothing else decides what is masked, so that
replicas equal one device and a run that goes on equals one that never stopped.
"""

from tfllm.data.objectives.making import OBJECTIVES, Objective, make_objective
from tfllm.data.objectives.masked_lm import MaskedLM
from tfllm.data.objectives.next_token import NextToken
from tfllm.data.objectives.pairs import Pairs
from tfllm.data.objectives.prefix_lm import PrefixLM
from tfllm.data.objectives.skip_gram import SkipGram
from tfllm.data.objectives.span_corruption import SpanCorruption, SpanLengths, span_lengths

__all__ = [
    "OBJECTIVES",
    "MaskedLM",
    "NextToken",
    "Objective",
    "Pairs",
    "PrefixLM",
    "SkipGram",
    "SpanCorruption",
    "SpanLengths",
    "make_objective",
    "span_lengths",
]
