"""Whole words: cleaning in the graph, counting, the table of forms, saving."""

import pytest
import tensorflow as tf

from tfllm.errors import UserError
from tfllm.tokenizers import WordTokenizer, load_tokenizer, train_words
from tfllm.tokenizers.word_normalizer import WordNormalizer

TEXTS = [
    "The cat sat. The cats sat on the mats; a dog did NOT sit!",
    "A dog, a cat: dogs & cats -- “don’t” you know?",
]


def words_of(text, **settings):
    (found,) = WordNormalizer(**settings).normalize(tf.constant([text])).numpy()
    return found.decode().split(" ")


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("It's THE end -- isn't it?", ["it's", "the", "end", "isn't", "it"]),
        ("_You_ 'said' ''so'' ' ' '", ["you", "said", "so"]),
        ("rock 'n' roll, the boys' o’clock", ["rock", "n", "roll", "the", "boys", "o'clock"]),
        ("ﬁne Straße ΣΑΣ cafe\u0301 ２", ["fine", "strasse", "σασ", "café", "2"]),
        ("mother-in-law\tin\n1815\u00a0AD", ["mother", "in", "law", "in", "1815", "ad"]),
        ("今天 天气，很好", ["今天", "天气", "很好"]),
        ("... !", [""]),
        ("", [""]),
    ],
)
def test_a_text_becomes_its_words(text, words):
    assert words_of(text) == words


def test_case_is_kept_when_it_shall_be():
    assert words_of("The US, us", lowercase=False) == ["The", "US", "us"]


def test_digits_become_zeros_or_part_words():
    assert words_of("in 1815 and 3rd ½", digits="zero") == ["in", "0000", "and", "0rd", "0", "0"]
    assert words_of("in 1815 and 3rd", digits="drop") == ["in", "and", "rd"]


def test_invalid_bytes_part_words():
    (found,) = WordNormalizer().normalize(tf.constant([b"ab\xffcd \xc3"])).numpy()
    assert found == b"ab cd"


def test_words_are_counted_and_the_most_frequent_come_first():
    tokenizer = train_words(TEXTS, min_count=2)
    found = dict(zip(tokenizer.words, tokenizer.counts.tolist(), strict=True))
    assert found == {"a": 3, "the": 3, "cat": 2, "cats": 2, "dog": 2, "sat": 2}
    assert list(found) == ["a", "the", "cat", "cats", "dog", "sat"]  # ties by the alphabet
    assert train_words(TEXTS, min_count=2, vocabulary_size=3).words == ["a", "the", "cat"]


def test_forms_count_under_their_lemma_and_are_looked_up_as_it():
    lemmas = {"cats": "cat", "Sat": "sit", "sitting": "sit", "mats": "mat", "dogs": "dog"}
    tokenizer = train_words(TEXTS, min_count=2, stop_words=["the", "A", "mat"], lemmas=lemmas)
    found = dict(zip(tokenizer.words, tokenizer.counts.tolist(), strict=True))
    assert found == {"cat": 4, "dog": 3, "sit": 3}
    assert tokenizer.encode("the cats are sitting on the mats") == [0, 2]  # in no text, but known
    assert tokenizer.decode(tokenizer.encode("Dogs sat")) == "dog sit"


@pytest.fixture(scope="module")
def tokenizer():
    return train_words(TEXTS, min_count=1, digits="zero", lemmas={"cats": "cat"})


def test_unknown_words_are_left_out(tokenizer):
    ids = tokenizer.tokenize(["a zebra sat", "zebra", "", "Don’t!"])
    assert tokenizer.detokenize(ids).numpy().tolist() == [b"a sat", b"", b"", b"don't"]
    assert ids.to_list()[0] == [tokenizer.token_to_id("a"), tokenizer.token_to_id("sat")]
    assert tokenizer.token_to_id("zebra") == -1


def test_both_faces_write_the_same(tokenizer):
    ids = [*range(tokenizer.vocabulary_size()), -1, 999]
    assert tokenizer.detokenize([ids])[0].numpy().decode() == tokenizer.decode(ids)
    assert tokenizer.decode(ids) == " ".join(tokenizer.words)


def test_a_saved_tokenizer_comes_back(tokenizer, tmp_path):
    tokenizer.save(tmp_path / "words")
    again = load_tokenizer(tmp_path / "words")
    assert again.words == tokenizer.words
    assert again.counts.tolist() == tokenizer.counts.tolist()
    assert again.normalizer == tokenizer.normalizer
    for text in (*TEXTS, "cats 1815"):
        assert again.encode(text) == tokenizer.encode(text)


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"min_count": 9}, "None of the 12 words occurs 9 times"),
        ({"min_count": 0}, "must be at least 1: got 0 and None"),
        ({"digits": "none"}, "digits must be one of keep, zero, drop; got 'none'"),
        ({"stop_words": ["of the"]}, "A stop word must be one word, got 'of the'"),
        ({"lemmas": {"": "a"}}, "The form of a lemma must be one word, got ''"),
        ({"lemmas": {"a": "?"}}, r"A lemma must be one word, got '\?'"),
    ],
)
def test_what_cannot_be_counted_is_refused(settings, words):
    texts = ["one two three four five six seven eight nine ten eleven twelve"]
    with pytest.raises(UserError, match=words):
        train_words(texts, **{"min_count": 1, **settings})


def test_a_form_of_no_word_is_refused():
    with pytest.raises(UserError, match="'cats' is a form of 'cat', which is no word"):
        WordTokenizer({"dog": 2}, {"cats": "cat"})


def test_ids_and_missing_words_are_refused(tokenizer):
    size = tokenizer.vocabulary_size()
    with pytest.raises(UserError, match=rf"must be in \[0, {size}\); got {size}"):
        tokenizer.id_to_token(size)
    with pytest.raises(UserError, match="has no words yet"):
        WordTokenizer().vocabulary_size()


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"cat\tx\n", "words.tsv is damaged"),
        (b"cat 3\n", "words.tsv line 1 must be two columns, it is 1"),
        (b"\xff\t3\n", "words.tsv are not UTF-8"),
        (None, "Cannot read the words .*words.tsv .No such file"),
    ],
)
def test_damaged_files_are_refused_by_name(tokenizer, tmp_path, content, words):
    tokenizer.save_assets(tmp_path)
    path = tmp_path / "words.tsv"
    path.unlink()
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(UserError, match=words):
        WordTokenizer().load_assets(tmp_path)
