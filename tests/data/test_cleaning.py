"""Cleaning a corpus: stop words, lemmas, and what is refused."""

import pytest

from tfllm.data.cleaning import ENGLISH_STOP_WORDS, clean, read_lemmas, read_stop_words
from tfllm.errors import UserError
from tfllm.tokenizers.word_normalizer import WordNormalizer


def test_a_corpus_is_cleaned_text_by_text():
    texts = iter(["The cats WERE on the mats!", "...", "In 1815 a cat ran."])
    found = clean(
        texts,
        digits="drop",
        stop_words={"the", "on", "in", "be"},
        lemmas={"cats": "cat", "were": "be"},
    )
    assert list(found) == ["cat mats", "", "a cat ran"]


def test_a_stream_is_read_as_it_is_written():
    def endless():
        while True:
            yield "One two " * 1000

    assert next(clean(endless())) == " ".join(["one two"] * 1000)


def test_the_english_stop_words_are_words_after_normalisation():
    joined = " ".join(sorted(ENGLISH_STOP_WORDS))
    assert WordNormalizer().normalize([joined])[0].numpy().decode() == joined
    assert read_stop_words("english") is ENGLISH_STOP_WORDS


def test_stop_words_and_lemmas_come_from_files(tmp_path):
    (tmp_path / "stop.txt").write_text("\ufeffthe\n\n of \n", encoding="utf-8")
    assert read_stop_words(tmp_path / "stop.txt") == {"the", "of"}
    (tmp_path / "lemmas.tsv").write_text("was\tbe\n\nis \t be\nwas\tbe\n", encoding="utf-8")
    assert read_lemmas(tmp_path / "lemmas.tsv") == {"was": "be", "is": "be"}


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"was\tbe\nis be\n", "lemmas.tsv line 2: expected a form, a tab and its lemma, got 'is"),
        (b"saw\tsee\nsaw\tsaw\n", "lemmas.tsv line 2: 'saw' has the lemmas 'see' and 'saw'"),
        (b"was\t\n", "lemmas.tsv line 1: expected"),
        (b"\xff\tbe\n", "The lemmas .*lemmas.tsv are not UTF-8"),
        (None, "Cannot read the lemmas .*lemmas.tsv: No such file"),
    ],
)
def test_lemmas_that_are_none_are_refused(tmp_path, content, words):
    path = tmp_path / "lemmas.tsv"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(UserError, match=words):
        read_lemmas(path)


def test_digits_that_are_no_choice_are_refused():
    with pytest.raises(UserError, match="digits must be one of keep, zero, drop"):
        list(clean(["a"], digits="hide"))
