"""Text to token ids and back, exactly, in Python and in the TensorFlow graph."""

from tfllm.tokenizers.loading import load_tokenizer
from tfllm.tokenizers.sentencepiece import SentencePieceTokenizer
from tfllm.tokenizers.tokenizer import Tokenizer
from tfllm.tokenizers.training import train_sentencepiece

__all__ = ["SentencePieceTokenizer", "Tokenizer", "load_tokenizer", "train_sentencepiece"]
