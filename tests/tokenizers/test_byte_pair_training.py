"""Training of byte-level BPE."""

import json
import logging
from pathlib import Path

import pytest

from tfllm.errors import UserError
from tfllm.tokenizers import text_batches
from tfllm.tokenizers.byte_alphabet import ALPHABET
from tfllm.tokenizers.byte_pair_training import train_byte_pair
from tfllm.tokenizers.splitting import PATTERNS


@pytest.fixture(scope="module")
def recorded():
    return json.loads((Path(__file__).parent / "fixtures" / "byte_pair.json").read_text())


@pytest.mark.parametrize("split", PATTERNS)
def test_it_learns_the_merges_that_the_reference_learns(split, recorded):
    found = train_byte_pair(
        recorded["corpus"], vocabulary_size=420, split=split, composes=split == "qwen2"
    )

    assert [list(pair) for pair in found.merges] == recorded["splits"][split]["merges"]


def test_the_most_frequent_pair_comes_first_and_of_equals_that_of_the_lower_ids():
    tokenizer = train_byte_pair(["ab ab ab cb cb cb db db db db"], vocabulary_size=262)

    # " d" and "db" are equally frequent, four times; then "Ġ" with "a" and "c" and so on.
    assert tokenizer.merges[:2] == [("d", "b"), ("Ġ", "db")]
    assert tokenizer.merges[2] == ("a", "b")


def test_ids_are_special_tokens_then_bytes_then_merges():
    tokenizer = train_byte_pair(
        ["aaaa"] * 2, vocabulary_size=260, special_tokens=("<end>", "<other>")
    )

    assert tokenizer.get_vocabulary() == ["<end>", "<other>", *sorted(ALPHABET), "aa", "aaaa"]
    assert (tokenizer.bos_id, tokenizer.eos_id, tokenizer.pad_id) == (0, 0, -1)
    assert tokenizer.encode("a<end>aaaa<other>")[1::2] == [0, 1]
    assert tokenizer.decode([0, 259, 1]) == "aaaa"
    assert tokenizer.begins_with_bos


def test_a_pair_below_the_least_frequency_is_not_merged():
    texts = ["ab ab cd"]

    assert train_byte_pair(texts, vocabulary_size=300).merges == [("a", "b")]
    assert ("c", "d") in train_byte_pair(texts, vocabulary_size=300, min_frequency=1).merges


def test_a_long_text_in_parts_gives_what_it_gives_as_a_whole(recorded, monkeypatch):
    text = "  ".join(recorded["corpus"])
    whole = train_byte_pair([text], vocabulary_size=400).merges

    monkeypatch.setattr(text_batches, "_BATCH_CHARACTERS", 50)

    assert train_byte_pair([text], vocabulary_size=400).merges == whole


def test_too_few_texts_give_a_smaller_vocabulary_and_a_warning(caplog):
    with caplog.at_level(logging.WARNING):
        tokenizer = train_byte_pair(["abab"], vocabulary_size=1000)

    assert tokenizer.vocabulary_size() == 258
    assert "too few for a vocabulary of 1000: it has 258" in caplog.text


@pytest.mark.parametrize(
    ("texts", "settings", "words"),
    [
        ("text", {}, r"takes several texts: give \[text\]"),
        ([], {}, "the corpus is empty"),
        (["", ""], {}, "the corpus is empty"),
        (["a"], {"vocabulary_size": 256}, "must be at least 257"),
        (["a"], {"special_tokens": ()}, "special_tokens must name at least one"),
        (["a"], {"split": "none"}, "split must be one of"),
    ],
)
def test_what_cannot_be_learned_from_is_refused(texts, settings, words):
    with pytest.raises(UserError, match=words):
        train_byte_pair(texts, **settings)
