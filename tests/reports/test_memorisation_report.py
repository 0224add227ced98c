"""What a model repeats of texts, and how well it knows canaries."""

import itertools
import json
import math

import pytest

from tfllm.errors import UserError
from tfllm.reports import Canary, exposure, memorisation, verbatim
from tfllm.reports.exposure import skew_normal_tail
from tfllm.reports.verbatim import Beginning, beginning, compare, draw, wilson

SIX = {"prefix_tokens": 4, "continuation_tokens": 6}
PIN = "the cat has {47}"


@pytest.fixture(scope="session")
def own(gpt, texts):
    """A text of ten tokens that the model writes by itself from its fourth on."""
    for prompt in gpt.detokenize([gpt.tokenize(text)[:4] for text in texts]):
        text = prompt + gpt.generate(prompt, max_new_tokens=16, temperature=0.0).text
        (ids,) = gpt.tokenize([text])
        if len(ids) >= 10 and gpt.detokenize(ids[:4]) == prompt:
            return gpt.detokenize(ids[:10])
    raise AssertionError("the model ends every text at once")


def test_what_the_model_writes_by_itself_is_found_and_another_text_is_not(gpt, own):
    other = gpt.detokenize([*gpt.tokenize(own)[:9], gpt.tokenize("dog")[-1]])
    found = verbatim(gpt, [own, other, "cat"], **SIX)
    assert [each.is_exact for each in found.repeated] == [True, False]
    assert (found.documents, found.too_short, found.exact, found.share) == (2, 1, 1, 0.5)
    assert found.repeated[0].matched_tokens == found.repeated[0].tokens == 6
    assert 0 < found.repeated[1].matched_tokens < 6
    assert found.mean_matched_tokens == (6 + found.repeated[1].matched_tokens) / 2


def test_a_text_is_repeated_exactly_where_greedy_decoding_writes_it(model, texts):
    found = verbatim(model, texts, prefix_tokens=5, continuation_tokens=5)
    assert found.documents >= 6
    for each in found.repeated:
        score = model.score(each.prompt, each.wanted)
        if model.tokenize(each.prompt + each.wanted)[-score.num_tokens :] == model.tokenize(
            each.wanted
        ):
            assert each.is_exact == score.is_greedy
        assert each.is_exact == (each.matched_tokens == each.tokens)


def test_the_parts_of_a_text_are_the_text_and_no_character_is_cut(gpt):
    text = "smile 🙂 wave 👋 party 🎉 done"
    ids = gpt.tokenize(text)
    for prefix in range(1, len(ids) - 9):
        part = beginning(gpt, text, prefix, 6)
        assert text.startswith(part.prompt + part.wanted)
        assert prefix <= len(gpt.tokenize(part.prompt)) <= prefix + 3
        assert 6 <= len(part.ends) <= 9
        assert part.ends[-1] == len(part.wanted)
        assert "\ufffd" not in part.prompt + part.wanted
    assert beginning(gpt, text, len(ids) - 5, 6) is None


def test_the_repeated_tokens_are_those_of_which_every_character_was_written():
    part = Beginning("a", [4, None, 8, 12], " cat sat mat", True)
    for written, tokens in [
        (" cat sat mat", 4),
        ("cat sat mat on", 4),  # without the first space, and longer
        (" cat sat ma", 3),
        (" cat sa", 1),
        (" ca", 0),
        ("", 0),
        ("dog", 0),
    ]:
        found = compare(part, written)
        assert (found.matched_tokens, found.is_exact) == (tokens, tokens == 4), written
    assert not compare(Beginning("a", [1], " ", True), "").is_exact


def test_the_interval_is_wilsons():
    # (p + z²/2n ± z √(p(1−p)/n + z²/4n²)) / (1 + z²/n) of 1 in 4, with z = 1.96.
    assert wilson(1, 4) == pytest.approx((0.0456, 0.6994), abs=1e-4)
    assert wilson(0, 10) == pytest.approx((0, 0.2775), abs=1e-4)


def test_a_draw_takes_each_text_as_often_as_another_and_keeps_the_order():
    texts = list("abcdefgh")
    drawn = [draw(iter(texts), 3, seed) for seed in range(400)]
    assert all(each == sorted(each) and len(set(each)) == 3 for each in drawn)
    counts = [sum(text in each for each in drawn) for text in texts]
    assert min(counts) > 110  # 150 expected, σ = 9.7
    assert draw(texts, None) == draw(texts, 100) == texts


def test_the_report_has_the_base_rate_beside_and_leaves_out_what_is_held_out(gpt, own):
    found = memorisation(gpt, [own, "held out " * 9], ["held out " * 9], **SIX)
    assert found.numbers["training"]["documents"] == 1
    assert found.numbers["training"]["share"] == 1
    assert found.numbers["held_out"]["documents"] == 1
    assert not any("no held-out texts" in limit for limit in found.does_not_show)
    alone = memorisation(gpt, [own], **SIX)
    assert "held_out" not in alone.numbers
    assert any("no held-out texts" in limit for limit in alone.does_not_show)


@pytest.fixture(scope="session")
def all_pins(gpt):
    """The log-probabilities of the canary with every number of two digits."""
    canary = Canary.of(PIN)
    scores = gpt.score([""] * 100, [canary.filled(i) for i in range(100)])
    return [score.logprob for score in scores]


def test_the_secret_that_a_model_likes_best_has_all_bits_and_the_least_liked_none(gpt, all_pins):
    order = sorted(range(100), key=lambda i: -all_pins[i])
    for place in (0, 1, 7, 99):
        found = exposure(gpt, f"the cat has {{{order[place]:02}}}")
        assert (found.rank, found.candidates, found.space) == (place + 1, 100, 100)
        assert found.is_exact
        assert found.extrapolated is None
        assert found.exposure == pytest.approx(math.log2(100) - math.log2(place + 1))


def test_a_sample_gives_the_rank_among_it_and_says_so(gpt, all_pins):
    found = exposure(gpt, PIN, sample=20, seed=3)
    again = exposure(gpt, PIN, sample=20, seed=3, batch_size=7)
    assert (found.candidates, found.space, found.is_exact) == (21, 100, False)
    assert found.exposure == math.log2(21) - math.log2(found.rank)
    assert found.rank == again.rank
    assert 0 <= found.extrapolated <= math.log2(100)
    best = max(range(100), key=lambda i: all_pins[i])
    assert exposure(gpt, f"the cat has {{{best:02}}}", sample=20).rank == 1


def test_a_model_that_finds_all_secrets_alike_is_not_exposed(new_model):
    model = new_model("gpt", num_layers=1)
    for variable in model.variables:
        variable.assign(variable * 0)
    found = exposure(model, PIN, sample=12)
    assert (found.rank, found.exposure, found.extrapolated) == (13, 0, 0)


def test_a_canary_is_filled_digit_by_digit():
    canary = Canary.of("code {28-1} end")
    assert (canary.text, canary.space, canary.value) == ("code 28-1 end", 1000, 281)
    assert canary.filled(7) == "code 00-7 end"
    assert canary.filled(281) == canary.text


def test_a_secret_of_many_digits_is_compared_with_as_many_others(gpt):
    digits = "0123456789" * 3
    found = exposure(gpt, f"{{{digits}}}", sample=5, seed=1)
    assert (found.candidates, found.space, found.is_exact) == (6, 10**30, False)
    assert 0 <= found.exposure <= math.log2(6)
    assert 0 <= found.extrapolated <= math.log2(10**30)


def test_the_tail_is_that_of_the_fitted_skew_normal():
    # scipy 1.17, skewnorm(…).sf, with the parameters of the moments.
    values = [-9.0, -8.5, -8.2, -8.0, -7.9, -7.8, -7.75]
    found = [skew_normal_tail(x, values) for x in (-8.5, -8.0, -7.7)]
    assert found == pytest.approx([0.800926, 0.419673, 0.0973938], rel=1e-4)
    # Without skew it is a normal's.
    normal = skew_normal_tail(2.0, [-1.0, 1.0])
    assert normal == pytest.approx(math.erfc(2 / math.sqrt(2)) / 2, rel=1e-4)
    assert skew_normal_tail(1.0, [1.0, 1.0]) == 1
    assert skew_normal_tail(1.1, [1.0, 1.0]) == 0


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({}, "give training texts, or canaries"),
        ({"texts": ["cat"]}, "None of 1 documents has 100 tokens"),
        ({"texts": ["cat"], "prefix_tokens": 0}, "prefix_tokens must be at least 1, got 0"),
        ({"texts": ["cat"], "limit": 0}, "limit must be at least 1, got 0"),
        ({"canaries": [PIN], "sample": 0}, "sample must be at least 1, got 0"),
        ({"canaries": ["no secret"]}, "one pair of braces"),
        ({"canaries": ["{1} and {2}"]}, "one pair of braces"),
        ({"canaries": ["{one}"]}, "a digit in it"),
        ({"canaries": ["a {1} " + "x" * 999]}, "The model refused 'a 1 "),
        (
            {"texts": ["cat " * 300], "prefix_tokens": 100, "continuation_tokens": 5},
            "too long: 1",
        ),
        (
            {"texts": ["cat " * 300], "prefix_tokens": 50, "continuation_tokens": 50},
            "context ended after",
        ),
    ],
)
def test_what_cannot_be_reported_is_said(gpt, options, words):
    with pytest.raises(UserError, match=words.replace("(", r"\(")):
        memorisation(gpt, **options)


def test_the_command_reads_what_a_prepared_folder_holds_out(gpt, own, run, tmp_path):
    gpt.save_to_preset(str(tmp_path / "preset"))
    (tmp_path / "a.jsonl").write_text(json.dumps({"text": own}))
    prepared = tmp_path / "prepared"
    prepared.mkdir()
    (prepared / "validation.jsonl").write_text(json.dumps({"text": "the cat sat on " * 4}))
    numbers = itertools.chain.from_iterable(
        (f"--{n.replace('_', '-')}", value) for n, value in SIX.items()
    )
    code, found, err = run(
        "report", "memorisation", tmp_path / "preset", "--data", tmp_path / "a.jsonl",
        "--held-out", prepared, "--canary", PIN, "--sample", 5, "--out", tmp_path / "out", *numbers,
    )  # fmt: skip
    assert code == 0
    assert found["training"]["share"] == 1
    assert found["held_out"]["documents"] == 1
    assert found["canaries"][0]["candidates"] == 6
    assert found["does_not_show"][0] in err
    written = json.loads((tmp_path / "out" / "report.json").read_text())
    assert written["documents"]["training"][0]["is_exact"]
    assert (tmp_path / "out" / "report.txt").read_text() == err
    code, found, err = run("report", "memorisation", tmp_path / "preset", "--data", prepared)
    assert (code, found) == (2, None)
    assert "name the texts that it was made from" in err
