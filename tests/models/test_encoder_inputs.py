"""Texts and pairs of texts as rows of tokens, and where they are cut."""

import itertools

import numpy as np
import pytest
import tensorflow as tf

from tfllm.errors import UserError
from tfllm.models import EncoderPreprocessor, TextClassifier
from tfllm.models.encoder_inputs import encoder_inputs, padded_width, truncated_lengths
from tfllm.tokenizers.wordpiece import WordPieceTokenizer


def one_by_one(first, second, room):
    """Takes tokens from the longer one, of two equal ones from the first."""
    while first + second > room:
        if first > second:
            first -= 1
        elif second > first:
            second -= 1
        else:
            break
    while first + second > room:  # both are equally long now
        first, second = (first - 1, second) if first >= second else (first, second - 1)
    return first, second


def test_the_longer_text_loses_tokens_until_both_are_equal():
    cases = list(itertools.product(range(0, 14), range(0, 14), range(1, 12)))
    first, second, room = (tf.constant(column, tf.int64) for column in zip(*cases, strict=True))
    found = np.stack(truncated_lengths(first, second, room), -1)
    for case, pair in zip(cases, found.tolist(), strict=True):
        expected = one_by_one(*case)
        assert sorted(pair) == sorted(expected), case
        assert pair[0] <= case[0]
        assert pair[1] <= case[1]


@pytest.mark.parametrize(
    ("lengths", "room", "kept"),
    # Read off Hugging Face `tokenizers` 0.23.
    [
        ((5, 9), 7, (3, 4)),
        ((9, 5), 7, (4, 3)),
        ((9, 9), 7, (3, 4)),
        ((2, 20), 7, (2, 5)),
        ((20, 2), 7, (5, 2)),
        ((6, 6), 6, (3, 3)),
        ((1, 2), 7, (1, 2)),
    ],
)
def test_the_odd_token_goes_to_the_longer_text_or_to_the_second(lengths, room, kept):
    found = truncated_lengths(*(tf.constant([x]) for x in lengths), tf.constant([room]))
    assert tuple(int(x[0]) for x in found) == kept


def rows(pieces, first, second, length):
    inputs, _ = encoder_inputs(pieces, tf.constant(first), tf.constant(second), length)
    there = inputs["padding_mask"].numpy() == 1
    tokens = [
        " ".join(pieces.id_to_token(int(i)) for i in row[mask])
        for row, mask in zip(inputs["token_ids"].numpy(), there, strict=True)
    ]
    segments = [
        row[mask].tolist() for row, mask in zip(inputs["segment_ids"].numpy(), there, strict=True)
    ]
    return tokens, segments


def test_texts_stand_between_their_special_tokens(pieces):
    tokens, segments = rows(
        pieces, ["the cat", "the cat", "", "", "a [SEP] b"], ["", "sat on", "sat", "", " "], 16
    )
    assert tokens == [
        "[CLS] the cat [SEP]",
        "[CLS] the cat [SEP] sat on [SEP]",
        "[CLS] [SEP] sat [SEP]",
        "[CLS] [SEP]",
        "[CLS] a [SEP] [UNK] [SEP] [SEP]",
    ]
    assert segments == [[0] * 4, [0] * 4 + [1] * 3, [0, 0, 1, 1], [0, 0], [0] * 5 + [1]]


def test_rows_are_cut_to_the_length_and_keep_their_separators(pieces):
    tokens, _ = rows(pieces, ["one two three four five"] * 2, ["", "a cat sat on the mat"], 7)
    assert tokens == [
        "[CLS] one two three four five [SEP]",
        "[CLS] one two [SEP] a cat [SEP]",
    ]


def test_rows_are_padded_to_little_more_than_the_longest(pieces):
    assert int(padded_width(tf.constant([3, 9]), 100)) == 16
    assert int(padded_width(tf.constant([3, 9]), 12)) == 12
    assert int(padded_width(tf.zeros([0], tf.int32), 12)) == 8
    reads = EncoderPreprocessor(pieces, 30)
    assert reads(["one two"])["token_ids"].shape == [1, 8]
    assert EncoderPreprocessor(pieces, 30, "max_length")(["one two"])["token_ids"].shape == [1, 30]
    padded = reads(["one two", "one two three four five not is"])
    assert padded["token_ids"][0, 4:].numpy().tolist() == [pieces.pad_id] * 12
    assert padded["padding_mask"].numpy().sum(-1).tolist() == [4, 9]


def test_a_very_long_text_is_read_at_its_beginning_only(classifier):
    long = "the cat sat on the mat " * 100_000
    found = classifier.classify([long, long[:1000], "the cat"])
    assert found[0] == found[1]
    assert [answer.error for answer in found] == ["", "", ""]


def test_a_text_whose_beginning_holds_too_few_tokens_is_an_error_of_its_row(classifier):
    found = classifier.classify([" " * 30_000 + "the cat", "x" * 30_000 + " the cat", "the cat"])
    words = "the text is too long: its first 9728 bytes hold fewer tokens than the model takes"
    assert [answer.error for answer in found] == [words, words, ""]
    assert (found[0].label, found[0].score, found[0].scores) == ("", 0.0, [0.0] * 3)
    alone = classifier.classify("the cat")
    np.testing.assert_allclose(found[2].scores, alone.scores, atol=1e-6)


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"sequence_length": 3}, "sequence_length must be at least 4, got 3"),
        ({"padding": "left"}, 'padding must be "longest" or "max_length", got \'left\''),
    ],
)
def test_a_preprocessor_that_cannot_be_is_refused(pieces, settings, words):
    with pytest.raises(UserError, match=words):
        EncoderPreprocessor(pieces, **settings)


def test_rows_longer_than_the_backbone_takes_are_refused(new_encoder):
    with pytest.raises(UserError, match="rows of 40 tokens, the backbone takes 32: give the pre"):
        new_encoder(TextClassifier, num_classes=2, sequence_length=40)


def test_a_tokenizer_that_does_not_fit_is_refused(new_encoder, tokenizer):
    def ask(reads, **settings):
        model = new_encoder(TextClassifier, num_classes=2, **settings)
        model.preprocessor.tokenizer = reads or model.preprocessor.tokenizer
        return model.classify("the cat")

    with pytest.raises(UserError, match="needs a WordPieceTokenizer, got a SentencePieceTokenizer"):
        ask(tokenizer)
    with pytest.raises(UserError, match=r"has 43 tokens, more than the model's .* of 20"):
        ask(None, backbone={"vocabulary_size": 20})
    with pytest.raises(UserError, match=r"needs \[CLS\] and \[SEP\] in its vocabulary"):
        ask(WordPieceTokenizer(["[UNK]", "a"]))


def test_a_tokenizer_that_does_not_fit_is_refused_before_training(new_encoder, tokenizer):
    model = new_encoder(TextClassifier, num_classes=2)
    model.preprocessor.tokenizer = tokenizer
    with pytest.raises(UserError, match="needs a WordPieceTokenizer"):
        model.fit(np.array(["a"]), np.array([0]), verbose=0)
