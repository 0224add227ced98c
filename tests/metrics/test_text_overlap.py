"""BLEU, chrF and ROUGE against recorded numbers, and the ways to part texts."""

import pytest

from tfllm import metrics
from tfllm.errors import UserError

NAMES = ["english", "french", "chinese", "several references", "nothing written"]


@pytest.fixture(params=NAMES)
def case(request, recorded):
    return recorded["text_overlap"][request.param]


@pytest.mark.parametrize("tokenizer", metrics.BLEU_TOKENIZERS)
def test_bleu_is_sacrebleus(case, tokenizer):
    found = metrics.bleu(case["hypotheses"], case["references"], tokenizer=tokenizer)
    assert found.score == pytest.approx(case["bleu"][tokenizer], abs=1e-9)
    assert f"tok:{tokenizer}" in found.signature


def test_chrf_is_sacrebleus(case):
    found = metrics.chrf(case["hypotheses"], case["references"])
    assert found.score == pytest.approx(case["chrf"], abs=1e-9)
    plus = metrics.chrf(case["hypotheses"], case["references"], word_order=2)
    assert plus.score == pytest.approx(case["chrf++"], abs=1e-9)
    assert "nw:2" in plus.signature


def test_rouge_is_that_of_rouge_score(case):
    found = metrics.rouge(case["hypotheses"], case["references"])
    assert list(found) == pytest.approx(list(case["rouge"].values()), abs=1e-12)


def test_lower_case_is_an_option_of_bleu():
    texts, references = ["The CAT sat on it"], ["the cat sat on it"]
    assert metrics.bleu(texts, references).score < 100
    assert metrics.bleu(texts, references, lowercase=True).score == pytest.approx(100)


def test_rouge_of_a_script_without_spaces_needs_its_characters():
    texts, references = ["今天天气好"], ["今天天气很好"]
    assert metrics.rouge(texts, references).rouge1 == 0.0  # rouge-score reads only a-z and 0-9
    found = metrics.rouge(texts, references, tokenizer="characters")
    assert found == pytest.approx((10 / 11, 6 / 9, 10 / 11))


def test_rouge_by_words_of_any_script_keeps_accents():
    texts, references = ["Был été"], ["был ete"]
    assert metrics.rouge(texts, references, tokenizer="words").rouge1 == 0.5


def test_stems_count_as_the_word_where_they_are_asked_for():
    texts, references = ["running dogs"], ["run dog"]
    assert metrics.rouge(texts, references).rouge1 == 0.0
    assert metrics.rouge(texts, references, stemmer=True).rouge1 == 1.0


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: metrics.bleu(["a"], ["a"], tokenizer="flores200"), "one of 13a, intl, zh"),
        (lambda: metrics.rouge(["a"], ["a"], tokenizer="13a"), "one of english, words, char"),
        (lambda: metrics.rouge(["a"], ["a"], tokenizer="words", stemmer=True), "are of English"),
        (lambda: metrics.bleu([], []), "got 0 texts and references for 0"),
        (lambda: metrics.chrf(["a", "b"], ["a"]), "got 2 texts and references for 1"),
        (lambda: metrics.rouge(["a"], [[]]), "got 1 texts and references for 0"),
    ],
)
def test_what_cannot_be_compared_is_refused(call, words):
    with pytest.raises(UserError, match=words):
        call()
