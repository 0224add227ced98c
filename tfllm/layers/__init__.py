"""Keras layers of the Transformer and of the LSTM."""

from tfllm.layers.activations import activation_of, gelu_tanh
from tfllm.layers.attention import MultiHeadAttention
from tfllm.layers.bidirectional_lstm import BidirectionalLSTM, starts_of
from tfllm.layers.cache import KVCache, Window, grow, unseen
from tfllm.layers.dropout import Dropout, step_scope, uniform_of_step
from tfllm.layers.embedding import TokenEmbedding
from tfllm.layers.feed_forward import FeedForward, GatedFeedForward
from tfllm.layers.initializers import Normal, TruncatedNormal, given_weights
from tfllm.layers.linear import Linear
from tfllm.layers.lstm import LSTM, LSTMState, StackedLSTM
from tfllm.layers.masks import (
    PaddingMask,
    PairMask,
    SegmentMask,
    causal_mask,
    padding_mask,
    pair_mask,
)
from tfllm.layers.normalization import LayerNormalization, layer_norm
from tfllm.layers.positions import (
    PairPositions,
    PositionEmbedding,
    Positions,
    RelativePositionBias,
    SinusoidalPositions,
)
from tfllm.layers.served_matrix import (
    BFloat16Matrix,
    Float32Matrix,
    Int8Matrix,
    ServedMatrix,
)
from tfllm.layers.transformer import DecoderBlock, EncoderBlock

__all__ = [
    "LSTM",
    "BFloat16Matrix",
    "BidirectionalLSTM",
    "DecoderBlock",
    "Dropout",
    "EncoderBlock",
    "FeedForward",
    "Float32Matrix",
    "GatedFeedForward",
    "Int8Matrix",
    "KVCache",
    "LSTMState",
    "LayerNormalization",
    "Linear",
    "MultiHeadAttention",
    "Normal",
    "PaddingMask",
    "PairMask",
    "PairPositions",
    "PositionEmbedding",
    "Positions",
    "RelativePositionBias",
    "SegmentMask",
    "ServedMatrix",
    "SinusoidalPositions",
    "StackedLSTM",
    "TokenEmbedding",
    "TruncatedNormal",
    "Window",
    "activation_of",
    "causal_mask",
    "grow",
    "gelu_tanh",
    "given_weights",
    "layer_norm",
    "padding_mask",
    "pair_mask",
    "starts_of",
    "step_scope",
    "uniform_of_step",
    "unseen",
]
