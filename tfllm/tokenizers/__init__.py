"""Text to token ids and back, exactly, in Python and in the TensorFlow graph."""

from tfllm.tokenizers.added_tokens import AddedToken
from tfllm.tokenizers.byte_pair import BytePairTokenizer
from tfllm.tokenizers.byte_pair_training import train_byte_pair
from tfllm.tokenizers.loading import load_tokenizer
from tfllm.tokenizers.marian import MarianTokenizer
from tfllm.tokenizers.sentencepiece import SentencePieceTokenizer
from tfllm.tokenizers.tokenizer import Tokenizer
from tfllm.tokenizers.training import train_sentencepiece
from tfllm.tokenizers.wordpiece import WordPieceTokenizer
from tfllm.tokenizers.wordpiece_training import train_wordpiece

__all__ = [
    "AddedToken",
    "BytePairTokenizer",
    "MarianTokenizer",
    "SentencePieceTokenizer",
    "Tokenizer",
    "WordPieceTokenizer",
    "load_tokenizer",
    "train_byte_pair",
    "train_sentencepiece",
    "train_wordpiece",
]
