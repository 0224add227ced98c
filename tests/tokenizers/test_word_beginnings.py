"""Which tokens go on with a word, and the sentinels of spans."""

import numpy as np
import pytest

from tfllm.errors import UserError
from tfllm.tokenizers import train_byte_pair, with_sentinels
from tfllm.tokenizers.sentinels import sentinel_ids
from tfllm.tokenizers.wordpiece import WordPieceTokenizer
from tfllm.tokenizers.words import continues_word


def words(tokenizer, text):
    """The text, parted where a token does not go on."""
    table = continues_word(tokenizer)
    found = []
    for token_id in tokenizer.encode(text):
        said = tokenizer.token_bytes()[token_id].decode()
        if table[token_id] and found:
            found[-1] += said
        else:
            found.append(said)
    return found


def test_words_of_sentencepiece_begin_with_a_space(tokenizer):
    assert words(tokenizer, "wrap the paragraphs xyzzy") == [
        "wrap",
        " the",
        " paragraphs",
        " xyzzy",
    ]


def test_words_of_bytes_begin_with_a_space():
    tokenizer = train_byte_pair(["low lower lowest " * 9], vocabulary_size=270)
    assert words(tokenizer, "low lowest") == ["low", " lowest"]


def test_words_of_wordpiece_and_its_punctuation_are_parted_as_bert_does():
    tokenizer = WordPieceTokenizer(["[PAD]", "[UNK]", "[CLS]", "sing", "##ing", "##s", ",", "[X]"])
    assert continues_word(tokenizer).tolist() == [0, 0, 0, 0, 1, 1, 0, 0]


def test_added_tokens_are_words_of_their_own(tokenizer):
    more = with_sentinels(tokenizer, 2)
    table = continues_word(more)
    assert not table[-2:].any()
    np.testing.assert_array_equal(table[:-2], continues_word(tokenizer))


def test_the_first_sentinel_has_the_highest_id(tokenizer):
    more = with_sentinels(tokenizer, 3)
    size = tokenizer.vocabulary_size()
    assert more.vocabulary_size() == size + 3
    assert sentinel_ids(more, 3) == [size + 2, size + 1, size]
    assert more.encode("<extra_id_0> wrap<extra_id_2>")[:: len(more.encode(" wrap")) + 1] == [
        size + 2,
        size,
    ]
    assert more.encode("wrap the text") == tokenizer.encode("wrap the text")


def test_too_few_sentinels_and_senseless_numbers_of_them_are_refused(tokenizer):
    more = with_sentinels(tokenizer, 3)
    with pytest.raises(
        UserError, match="4 sentinels .* are needed, .* the tokenizer has 3 of them"
    ):
        sentinel_ids(more, 4)
    with pytest.raises(UserError, match="The tokenizer has sentinels already"):
        with_sentinels(more, 3)
    with pytest.raises(UserError, match="number of sentinels must be at least 1; got 0"):
        with_sentinels(tokenizer, 0)
