"""Perplexity by a sliding window."""

import math

import pytest

from tfllm.errors import UserError
from tfllm.evaluators import language_model, perplexity
from tfllm.evaluators.windows import windows

TEXT = "the cat sat on the mat and the dog sat on the log. 你好，世界 🙂 why not? because! " * 3


@pytest.mark.parametrize("stride", [1, 5, 16, 32])
def test_the_pieces_are_the_text_and_fit_with_what_stands_before(gpt, stride):
    found = list(windows(gpt, TEXT, 32, stride))
    assert "".join(piece for _, piece in found) == TEXT
    at = 0
    for before, piece in found:
        assert TEXT[:at].endswith(before)
        tokens = gpt.tokenize([before, piece])
        assert len(tokens[1]) <= max(stride + 1, 4)
        assert sum(map(len, tokens)) <= 32
        at += len(piece)
    room = [len(gpt.tokenize(before)) for before, _ in found[len(found) // 2 :]]
    assert max(room) >= min(32 - stride, 26)  # a character of four tokens may be left out


def test_one_token_at_a_time_is_the_score_of_the_whole_text(gpt):
    text = "the cat sat on the mat"  # all of it fits in the context
    found = perplexity(gpt, [text], context_length=gpt.backbone.max_sequence_length, stride=1)
    whole = gpt.score("", text)
    assert found.num_tokens == whole.num_tokens
    assert found.logprob_per_token * found.num_tokens == pytest.approx(whole.logprob, rel=1e-4)
    assert found.num_bytes == len(text)


def test_the_numbers_are_those_of_the_pieces(ask):
    model = ask("gpt")
    found = language_model(model, [TEXT, "a cat"], context_length=32, stride=12, batch_size=3)
    pieces = [piece for text in (TEXT, "a cat") for piece in windows(model, text, 32, 12)]
    scores = [model.score(*piece) for piece in pieces]
    nats = -sum(score.logprob for score in scores)
    assert found.counts == {
        "tokens": sum(score.num_tokens for score in scores),
        "bytes": len((TEXT + "a cat").encode()),
    }
    assert found.metrics["bits_per_byte"] == pytest.approx(
        nats / math.log(2) / found.counts["bytes"], rel=1e-5
    )
    assert found.metrics["perplexity"] == pytest.approx(
        math.exp(nats / found.counts["tokens"]), rel=1e-4
    )


def test_the_context_is_the_models_own_unless_it_is_given(ask, gpt):
    found = language_model(ask("gpt"), ["a cat is not a dog"])
    length = gpt.backbone.max_sequence_length
    assert found.details == {"context_length": length, "stride": length // 2}


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"context_length": 1}, "at least 2, got 1"),
        ({"context_length": 8, "batch_size": 0}, "batch_size must be at least 1"),
        ({"context_length": 8, "stride": 9}, "from 1 to the 8 tokens of the context, got 9"),
        ({"context_length": 8, "stride": 0}, "from 1 to the 8 tokens"),
        ({"context_length": 300}, "refused a window of 300 tokens"),
    ],
)
def test_numbers_that_cannot_be_are_refused(gpt, options, words):
    with pytest.raises(UserError, match=words):
        perplexity(gpt, [TEXT * 4], **options)


def test_no_text_has_no_perplexity(gpt):
    with pytest.raises(UserError, match="no text to score"):
        perplexity(gpt, ["", ""], context_length=8)


def test_a_tokenizer_that_loses_text_is_refused(live):
    with pytest.raises(UserError, match="does not give back the text: 'UPPER"):
        list(windows(live["classifier"], "UPPER CASE", 8, 4))
