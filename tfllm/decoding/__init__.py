"""The one decode loop, in the graph, for live models and exports alike."""

from tfllm.decoding.beams import Beams, beam_search
from tfllm.decoding.decodable import Beginning, Decodable, NewTokens, rounded_up, wanted
from tfllm.decoding.loop import Decoded, decode
from tfllm.decoding.ngrams import Text
from tfllm.decoding.penalties import Penalties
from tfllm.decoding.prompt_lookup import Lookup
from tfllm.decoding.rules import Rules
from tfllm.decoding.sampling import Sampling
from tfllm.decoding.stopping import StopStrings

__all__ = [
    "Beams",
    "Beginning",
    "Decodable",
    "Decoded",
    "Lookup",
    "NewTokens",
    "Penalties",
    "Rules",
    "Sampling",
    "StopStrings",
    "Text",
    "beam_search",
    "decode",
    "rounded_up",
    "wanted",
]
