"""Training: what it learns from, how much it takes, what it refuses."""

import logging

import pytest

from tfllm.errors import UserError
from tfllm.tokenizers import train_sentencepiece


def test_special_pieces_come_first_then_the_bytes(tokenizer):
    assert tokenizer.get_vocabulary()[:5] == ["<pad>", "<unk>", "<s>", "</s>", "<0x00>"]
    ids = (tokenizer.pad_id, tokenizer.unk_id, tokenizer.bos_id, tokenizer.eos_id)
    assert ids == (0, 1, 2, 3)
    assert tokenizer.token_bytes()[:5] == [b"", "\ufffd".encode(), b"", b"", b"\x00"]
    assert tokenizer.vocabulary_size() == 600


def test_indentation_is_learned_as_pieces_of_several_spaces(tokenizer):
    assert len(tokenizer.encode("        ")) < 4


def test_numbers_are_learned_digit_by_digit():
    tokenizer = train_sentencepiece(["in 1984, 1984 and 1984\n"] * 9, model_type="bpe")

    assert len(tokenizer.encode("1984")) == 4


def test_the_same_texts_give_the_same_model(tokenizer):
    texts = [f"{word} and so on, {word}\n" for word in tokenizer.get_vocabulary()] * 3

    models = {train_sentencepiece(iter(texts), vocabulary_size=400).proto for _ in range(2)}

    assert len(models) == 1


@pytest.mark.parametrize("model_type", ["unigram", "bpe"])
def test_a_small_corpus_gives_a_smaller_vocabulary_and_a_warning(model_type, caplog):
    with caplog.at_level(logging.WARNING):
        tokenizer = train_sentencepiece(["the cat sat"], model_type=model_type)

    assert 261 < tokenizer.vocabulary_size() < 300
    assert "too few for a vocabulary of 8000" in caplog.text
    assert tokenizer.decode(tokenizer.encode("any ▁ text 中")) == "any ▁ text 中"


def test_one_long_document_is_learned_to_its_end():
    document = "x" * 5000 + " " + "zebra " * 200

    tokenizer = train_sentencepiece([document], vocabulary_size=280, model_type="bpe")

    assert len(tokenizer.encode(" zebra")) == 1


def test_a_text_with_the_character_that_sentencepiece_skips_is_learned_all_the_same():
    tokenizer = train_sentencepiece(
        ["zebra\u2585 zebra\n"] * 9, vocabulary_size=280, model_type="bpe"
    )

    assert len(tokenizer.encode(" zebra")) == 1


def test_a_bounded_sample_is_taken_from_the_whole_stream():
    words = ["alpha", "gamma", "kappa", "omega"]
    stream = (f"{words[4 * i // 4000]} " * 20 for i in range(4000))

    tokenizer = train_sentencepiece(
        stream, vocabulary_size=300, model_type="bpe", max_training_bytes=20_000
    )

    assert [len(tokenizer.encode(f" {word}")) for word in words] == [1, 1, 1, 1]


def test_the_sample_is_bounded():
    def texts(count):
        for i in range(count):
            yield chr(0x4E00 + i) * 100

    # 300 bytes each: of 300 characters at most 10 can be seen.
    tokenizer = train_sentencepiece(texts(300), max_training_bytes=3000)

    learned = [p for p in tokenizer.get_vocabulary() if len(p) == 1]
    assert 5 <= len(learned) <= 10


@pytest.mark.parametrize("texts", [[], [""], ["\n", "\r\n"], ["\x00"]])
def test_an_empty_corpus_is_refused(texts):
    with pytest.raises(UserError, match="the corpus is empty"):
        train_sentencepiece(texts)


def test_a_vocabulary_without_room_for_the_characters_is_refused():
    with pytest.raises(UserError, match="vocabulary_size=262 is too small .* at least 270"):
        train_sentencepiece(["abc def ghi"], vocabulary_size=262)


def test_a_vocabulary_without_room_for_the_bytes_is_refused():
    with pytest.raises(UserError, match="must be at least 261 .* got 256"):
        train_sentencepiece(["abc"], vocabulary_size=256)


def test_arguments_out_of_range_are_refused():
    with pytest.raises(UserError, match='must be "unigram" or "bpe"; got \'word\''):
        train_sentencepiece(["abc"], model_type="word")
    with pytest.raises(UserError, match=r"must be in \[0.98, 1\]; got 0.5"):
        train_sentencepiece(["abc"], character_coverage=0.5)
    with pytest.raises(UserError, match=r"give \[text\], not text"):
        train_sentencepiece("abc")
