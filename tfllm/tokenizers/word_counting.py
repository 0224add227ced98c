"""The table of a corpus's words."""

import collections
from collections.abc import Iterable, Mapping

import tensorflow as tf

from tfllm.errors import UserError
from tfllm.tokenizers.text_batches import text_batches
from tfllm.tokenizers.utf8 import valid_utf8
from tfllm.tokenizers.whole_words import WordTokenizer
from tfllm.tokenizers.word_normalizer import WordNormalizer


def train_words(
    texts: Iterable[str],
    *,
    vocabulary_size: int | None = None,
    min_count: int = 5,
    lowercase: bool = True,
    digits: str = "keep",
    stop_words: Iterable[str] = (),
    lemmas: Mapping[str, str] | None = None,
) -> WordTokenizer:
    """Counts the words of texts and keeps those that are frequent enough to learn about.

    Memory: the distinct words of the corpus.

    Args:
        texts: The corpus, read once.
        vocabulary_size: The most words to keep, the most frequent ones; None = no limit.
        min_count: The least number of times that a kept word occurs.
        lowercase: Of `WordNormalizer`.
        digits: Of `WordNormalizer`.
        stop_words: Words to leave out. Windows reach over what is left out.
        lemmas: The word under which another one counts, such as "walked" under "walk"; where the
            lemma is kept, a form counts even if the corpus does not have it.

    Raises:
        UserError: no word is frequent enough, a number is out of range, or a lemma, a form or a
            stop word is not one word.
    """
    if min_count < 1 or (vocabulary_size is not None and vocabulary_size < 1):
        raise UserError(
            "min_count and vocabulary_size must be at least 1: got "
            f"{min_count} and {vocabulary_size}."
        )
    normalizer = WordNormalizer(lowercase, digits).check()
    stop = set(_single(normalizer, stop_words, "A stop word"))
    lemmas = lemmas or {}
    forms = dict(
        zip(
            _single(normalizer, lemmas, "The form of a lemma"),
            _single(normalizer, lemmas.values(), "A lemma"),
            strict=True,
        )
    )
    found: collections.Counter[str] = collections.Counter()
    for word, count in _counted(texts, normalizer).items():
        lemma = forms.get(word, word)
        if word not in stop and lemma not in stop:
            found[lemma] += count
    most_frequent = sorted(found.items(), key=lambda item: (-item[1], item[0]))[:vocabulary_size]
    counts = {word: count for word, count in most_frequent if count >= min_count}
    if not counts:
        raise UserError(
            f"None of the {len(found)} words occurs {min_count} times: give more text or a "
            "smaller min_count."
        )
    kept = {form: w for form, w in forms.items() if w in counts and form not in stop}
    return WordTokenizer(counts, kept, lowercase, digits)


def _counted(texts: Iterable[str], normalizer: WordNormalizer) -> collections.Counter[str]:
    counts: collections.Counter[bytes] = collections.Counter()
    for batch in text_batches(texts):
        for words in normalizer.normalize(tf.constant(batch, tf.string)).numpy():
            counts.update(words.split())
    return collections.Counter({word.decode(): count for word, count in counts.items()})


def _single(normalizer: WordNormalizer, words: Iterable[str], what: str) -> list[str]:
    words = [valid_utf8(word) for word in words]
    clean = normalizer.normalize(tf.constant(words, tf.string, shape=[len(words)])).numpy()
    for word, cleaned in zip(words, clean, strict=True):
        if len(cleaned.split()) != 1:
            raise UserError(f"{what} must be one word, got {word!r}.")
    return [word.decode() for word in clean]
