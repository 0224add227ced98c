"""Training of WordPiece from texts."""

import logging
from collections import Counter
from collections.abc import Iterable

import tensorflow as tf

from tfllm.errors import UserError
from tfllm.tokenizers.bert_normalizer import BertNormalizer
from tfllm.tokenizers.pair_corpus import PairCorpus
from tfllm.tokenizers.text_batches import text_batches
from tfllm.tokenizers.wordpiece import SPECIAL_TOKENS, WordPieceTokenizer
from tfllm.tokenizers.wordpiece_model import CONTINUATION

_logger = logging.getLogger(__name__)

_LONGEST_WORD = 100  # characters; longer words are unknown to the tokenizer


def train_wordpiece(
    texts: Iterable[str | bytes],
    *,
    vocabulary_size: int = 8000,
    lowercase: bool = True,
    strip_accents: bool | None = None,
    tokenize_chinese_chars: bool = True,
    alphabet_size: int = 1000,
    min_frequency: int = 2,
) -> WordPieceTokenizer:
    """Learns a vocabulary from texts: [PAD] 0, [UNK] 1, [CLS] 2, [SEP] 3, [MASK] 4, pieces.

    The pieces are the characters, then what the merging of the most frequent pairs makes, as
    Hugging Face's `WordPieceTrainer` has it. The same texts give the same vocabulary. Memory grows
    with the number of different words. A corpus too small for `vocabulary_size` gives a smaller
    vocabulary and a logged warning.

    Args:
        texts: Documents of any length. Read once, as a stream.
        vocabulary_size: Number of ids, the special ones included.
        lowercase: As in `WordPieceTokenizer`.
        strip_accents: As in `WordPieceTokenizer`.
        tokenize_chinese_chars: As in `WordPieceTokenizer`.
        alphabet_size: At most so many different characters, the most frequent ones, become
            pieces; words with other characters will be unknown.
        min_frequency: Pairs that are seen less often are not merged.

    Raises:
        UserError: if there is no text to learn from, no character may be a piece, or
            `vocabulary_size` has no room for the special tokens and the characters.

    Source:
        Schuster and Nakajima 2012, "Japanese and Korean Voice Search", for the pieces; the
        choice by frequency is that of models/wordpiece/trainer.rs of Hugging Face `tokenizers`.
    """
    if isinstance(texts, str | bytes):
        raise UserError("train_wordpiece takes several texts: give [text], not text.")
    if alphabet_size < 1:
        raise UserError(f"alphabet_size must be at least 1; got {alphabet_size}.")
    strips = lowercase if strip_accents is None else strip_accents
    words = _count_words(texts, BertNormalizer(lowercase, strips, tokenize_chinese_chars))
    if not words:
        raise UserError("There is no text to train a tokenizer on: the corpus is empty.")
    alphabet = _alphabet(words, alphabet_size)
    spelled = {word: _spelled(word) for word in words if alphabet.issuperset(word)}
    characters = sorted(alphabet | {piece for spelling in spelled.values() for piece in spelling})
    pieces = [*SPECIAL_TOKENS.values(), *characters]
    if vocabulary_size < len(pieces):
        raise UserError(
            f"vocabulary_size={vocabulary_size} is too small for these texts: the special tokens "
            f"and their characters, at the beginning of words and within, take {len(pieces)}. "
            f"Raise vocabulary_size, or lower alphabet_size ({alphabet_size})."
        )
    _merge(pieces, spelled, words, vocabulary_size, max(1, min_frequency))
    if len(pieces) < vocabulary_size:
        _logger.warning(
            "The texts are too few for a vocabulary of %d: it has %d pieces.",
            vocabulary_size,
            len(pieces),
        )
    return WordPieceTokenizer(
        pieces,
        lowercase=lowercase,
        strip_accents=strip_accents,
        tokenize_chinese_chars=tokenize_chinese_chars,
    )


def _count_words(texts, normalizer) -> Counter[str]:
    @tf.function(input_signature=[tf.TensorSpec([None], tf.string)], autograph=False)
    def words(batch):
        return normalizer.words(batch).texts

    counts: Counter[bytes] = Counter()
    for batch in text_batches(texts):
        counts.update(words(tf.constant(batch)).numpy().tolist())
    decoded = ((word.decode(), count) for word, count in counts.items())
    return Counter({word: count for word, count in decoded if len(word) <= _LONGEST_WORD})


def _alphabet(words: Counter[str], size: int) -> set[str]:
    counts: Counter[str] = Counter()
    for word, count in words.items():
        for character in word:
            counts[character] += count
    by_frequency = sorted(counts, key=lambda character: (-counts[character], character))
    return set(by_frequency[:size])


def _spelled(word: str) -> list[str]:
    return [word[0], *(CONTINUATION + character for character in word[1:])]


def _merge(pieces, spelled, words, vocabulary_size, min_frequency) -> None:
    """Adds the pieces that merges make to `pieces`."""
    ids = {piece: i for i, piece in enumerate(pieces)}
    corpus = PairCorpus(
        [[ids[piece] for piece in spelling] for spelling in spelled.values()],
        [words[word] for word in spelled],
    )
    while len(pieces) < vocabulary_size:
        pair = corpus.most_frequent(min_frequency)
        if pair is None:
            return
        left, right = (pieces[part] for part in pair)
        made = left + right.removeprefix(CONTINUATION)
        if made not in ids:
            ids[made] = len(pieces)
            pieces.append(made)
        corpus.merge(pair, ids[made])
