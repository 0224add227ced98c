"""Text to token ids and back, exactly, in Python and in the TensorFlow graph."""

from tfllm.tokenizers.added_tokens import AddedToken
from tfllm.tokenizers.byte_pair import BytePairTokenizer
from tfllm.tokenizers.byte_pair_training import train_byte_pair
from tfllm.tokenizers.loading import load_tokenizer
from tfllm.tokenizers.marian import MarianTokenizer
from tfllm.tokenizers.sentencepiece import SentencePieceTokenizer
from tfllm.tokenizers.sentinels import with_sentinels
from tfllm.tokenizers.tokenizer import Tokenizer
from tfllm.tokenizers.training import train_sentencepiece
from tfllm.tokenizers.whole_words import WordTokenizer
from tfllm.tokenizers.word_counting import train_words
from tfllm.tokenizers.wordpiece import WordPieceTokenizer
from tfllm.tokenizers.wordpiece_training import train_wordpiece

__all__ = [
    "AddedToken",
    "BytePairTokenizer",
    "MarianTokenizer",
    "SentencePieceTokenizer",
    "Tokenizer",
    "WordPieceTokenizer",
    "WordTokenizer",
    "load_tokenizer",
    "train_byte_pair",
    "train_sentencepiece",
    "train_wordpiece",
    "train_words",
    "with_sentinels",
]
