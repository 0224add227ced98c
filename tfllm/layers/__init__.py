"""Keras layers of the Transformer and of the LSTM."""

from tfllm.layers.attention import MultiHeadAttention
from tfllm.layers.cache import KVCache
from tfllm.layers.dropout import Dropout, step_scope
from tfllm.layers.embedding import TokenEmbedding
from tfllm.layers.feed_forward import FeedForward
from tfllm.layers.linear import Linear
from tfllm.layers.lstm import LSTM, LSTMState, StackedLSTM
from tfllm.layers.masks import SegmentMask, causal_mask, padding_mask, prefix_mask
from tfllm.layers.positions import PositionEmbedding, RelativePositionBias, SinusoidalPositions
from tfllm.layers.transformer import DecoderBlock, EncoderBlock

__all__ = [
    "LSTM",
    "DecoderBlock",
    "Dropout",
    "EncoderBlock",
    "FeedForward",
    "KVCache",
    "LSTMState",
    "Linear",
    "MultiHeadAttention",
    "PositionEmbedding",
    "RelativePositionBias",
    "SegmentMask",
    "SinusoidalPositions",
    "StackedLSTM",
    "TokenEmbedding",
    "causal_mask",
    "padding_mask",
    "prefix_mask",
    "step_scope",
]
