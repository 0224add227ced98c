"""How the data of each task is stored, by the name of the task."""

from tfllm.data.layouts.examples import EmbedderExamples, LabelledTexts, SpanQAExamples
from tfllm.data.layouts.layout import Layout
from tfllm.data.layouts.packed import Completions, Conversations, Documents
from tfllm.data.layouts.pairs import PackedPairs
from tfllm.data.layouts.pieces import Pieces, Windows
from tfllm.data.layouts.words import Words

LAYOUTS: dict[str, type[Layout]] = {
    "causal_lm": Documents,
    "completion": Completions,
    "chat": Conversations,
    "masked_lm": Pieces,
    "denoising": Windows,
    "skip_gram": Words,
    "seq2seq_lm": PackedPairs,
    "text_classifier": LabelledTexts,
    "span_qa": SpanQAExamples,
    "text_embedder": EmbedderExamples,
}

__all__ = ["LAYOUTS", "Layout"]
