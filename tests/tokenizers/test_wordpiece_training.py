"""Training WordPiece: the most frequent pairs, within bounds, the same every time."""

import inspect
import logging
import textwrap

import pytest

from tfllm.errors import UserError
from tfllm.tokenizers.wordpiece_training import train_wordpiece

CORPUS = [inspect.getdoc(textwrap) or "", inspect.getsource(textwrap)]
SPECIAL = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]


def test_characters_come_first_and_then_the_most_frequent_pairs():
    tokenizer = train_wordpiece(["ab abc ab B", "abc xy"], vocabulary_size=14, min_frequency=1)

    assert tokenizer.get_vocabulary() == [
        *SPECIAL,
        *["##b", "##c", "##y", "a", "b", "c", "x", "y"],
        "ab",
    ]
    assert tokenizer.encode("abcb") == [13, 6, 5]


def test_all_that_is_learned_from_is_known_afterwards():
    tokenizer = train_wordpiece(CORPUS, vocabulary_size=400)

    assert tokenizer.vocabulary_size() == 400
    assert tokenizer.unk_id not in tokenizer.encode(" ".join(CORPUS))
    words = tokenizer.get_vocabulary()
    assert {"the", "text", "##ing"} <= set(words)
    assert len(set(words)) == 400


def test_the_same_texts_in_parts_or_as_bytes_give_the_same_vocabulary():
    text = "\n".join(CORPUS)
    expected = train_wordpiece([text], vocabulary_size=300).get_vocabulary()

    lines = train_wordpiece(text.split("\n"), vocabulary_size=300)
    octets = train_wordpiece([text.encode()], vocabulary_size=300)

    assert lines.get_vocabulary() == expected == octets.get_vocabulary()


def test_a_text_longer_than_a_batch_is_cut_between_words():
    text = "one two three " * 90_000  # 1.26 million characters

    long = train_wordpiece([text], vocabulary_size=100)
    short = train_wordpiece(["one two three"] * 10, vocabulary_size=100)

    assert long.get_vocabulary() == short.get_vocabulary()


def test_normalization_is_that_of_the_tokenizer():
    cased = train_wordpiece(["Éa Éa 中文"], vocabulary_size=50, lowercase=False)
    lowered = train_wordpiece(["Éa Éa 中文"], vocabulary_size=50)
    accents = train_wordpiece(
        ["Éa Éa 中文"], vocabulary_size=50, strip_accents=False, tokenize_chinese_chars=False
    )

    assert cased.get_vocabulary()[5:] == ["##a", "a", "É", "中", "文", "Éa"]
    assert lowered.get_vocabulary()[5:] == ["##a", "a", "e", "中", "文", "ea"]
    assert accents.get_vocabulary()[5:] == ["##a", "##文", "a", "é", "中", "文", "éa"]
    assert cased.encode("Éa") == [cased.token_to_id("Éa")]


def test_rare_characters_and_pairs_are_left_out():
    texts = ["aa aa aa bb bb q", "b" * 101]

    tokenizer = train_wordpiece(texts, vocabulary_size=50, alphabet_size=2, min_frequency=3)

    assert tokenizer.get_vocabulary()[5:] == ["##a", "##b", "a", "b", "aa"]


def test_a_corpus_too_small_for_the_vocabulary_is_said(caplog):
    with caplog.at_level(logging.WARNING):
        train_wordpiece(["a"], vocabulary_size=50)

    assert "too few for a vocabulary of 50: it has 6 pieces" in caplog.text


def test_wrong_use_is_refused():
    refused = [
        ("text", {}, r"takes several texts: give \[text\]"),
        ([], {}, "the corpus is empty"),
        (["  \n", "\x00"], {}, "the corpus is empty"),
        (["abc"], {"vocabulary_size": 9}, r"vocabulary_size=9 is too small .* take 10\. Raise"),
        (["abc"], {"alphabet_size": 0}, "alphabet_size must be at least 1; got 0"),
    ]

    for texts, settings, words in refused:
        with pytest.raises(UserError, match=words):
            train_wordpiece(texts, **settings)
