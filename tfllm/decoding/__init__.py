"""The one decode loop, in the graph, for live models and exports alike."""

from tfllm.decoding.loop import Decoded, decode
from tfllm.decoding.sampling import Sampling
from tfllm.decoding.stopping import StopStrings

__all__ = ["Decoded", "Sampling", "StopStrings", "decode"]
