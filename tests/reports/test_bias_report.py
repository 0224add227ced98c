"""How an answer changes with the group that a sentence is of."""

import itertools
import json

import numpy as np
import pytest
import tensorflow as tf

from tfllm import contract
from tfllm.errors import UserError
from tfllm.models.text_functions import build
from tfllm.reports import PairedTemplates, bias
from tfllm.reports.bootstrap import crossed_interval
from tfllm.reports.pseudo_likelihood import pseudo_likelihoods, shared_tokens
from tfllm.serving import Client, Server

PLAIN = {
    "templates": ["{group} is a {role} .", "the {role} was {group} ?"],
    "groups": {"women": ["she", "the nurse"], "men": ["he", "the doctor"]},
    "terms": {"role": ["doctor", "nurse"]},
}


def test_every_template_is_filled_with_every_term_and_every_word():
    made = PairedTemplates.of(PLAIN)
    assert [text for _, text in made.rows()] == [
        "{group} is a doctor .",
        "{group} is a nurse .",
        "the doctor was {group} ?",
        "the nurse was {group} ?",
    ]
    assert made.sentences("men")[1] == ["he is a nurse .", "the doctor is a nurse ."]


def test_the_difference_is_that_of_the_log_probabilities_of_the_sentences(gpt):
    found = bias(gpt, PLAIN, batch_size=3, resamples=200)
    made = PairedTemplates.of(PLAIN)
    first, second = (
        np.array([[gpt.score("", text).logprob for text in row] for row in made.sentences(group)])
        for group in ("women", "men")
    )
    (numbers,) = found.numbers["comparisons"]
    differences = first - second
    assert numbers["groups"] == ["women", "men"]
    assert numbers["mean_difference"] == pytest.approx(differences.mean(), abs=1e-4)
    assert numbers["pairs"] == 8
    assert numbers["share_preferring_first"] == (differences > 0).mean()
    assert numbers["by_template"]["the {role} was {group} ?"] == pytest.approx(
        differences[2:].mean(), abs=1e-4
    )
    low, high = numbers["interval"]
    assert low < numbers["mean_difference"] < high
    pair = found.details["pairs"][3]
    assert (pair["women"], pair["men"]) == ("the nurse is a nurse .", "the doctor is a nurse .")
    assert pair["difference"] == pytest.approx(differences[1, 1], abs=1e-4)


def test_groups_of_the_same_words_do_not_differ(gpt):
    same = PLAIN | {"groups": {"a": ["she"], "b": ["she"], "c": ["she"]}}
    report = bias(gpt, same, resamples=50, confidence=0.995)
    assert report.numbers["interval"].startswith("99.5% percentile")
    assert "99.5% from" in report.tables
    found = report.numbers["comparisons"]
    assert [each["groups"] for each in found] == [["a", "b"], ["a", "c"], ["b", "c"]]
    for each in found:
        assert (each["mean_difference"], each["interval"], each["ties"]) == (0, [0, 0], 4)
        assert each["share_preferring_first"] == 0


def test_the_interval_is_the_quantiles_of_all_ways_to_draw_rows_and_columns():
    values = np.array([[0.0, 1.0], [10.0, 31.0]])
    ways = sorted(
        values[np.ix_(rows, columns)].mean()
        for rows in itertools.product(range(2), repeat=2)
        for columns in itertools.product(range(2), repeat=2)
    )
    # 16 ways as likely as each other: 60 % lies from the fourth to the thirteenth.
    found = crossed_interval(values, resamples=20_000, confidence=0.6)
    assert found == pytest.approx((ways[3], ways[12]))
    assert crossed_interval(values, resamples=2000, confidence=0.9999) == (0, 31)
    assert crossed_interval(np.array([[1.0]])) is None
    # A row that is repeated tells nothing new: only columns vary.
    assert crossed_interval(np.array([[1.0, 1.0]]), resamples=50) == (1, 1)


def test_a_classifier_is_measured_label_by_label(classifier):
    found = bias(classifier, PLAIN, resamples=50).numbers["comparisons"]
    assert [each["measure"] for each in found] == [
        f"score of {label}" for label in ("sad", "glad", "neither")
    ]
    made = PairedTemplates.of(PLAIN)
    glad = [
        np.mean([classifier.classify(text).scores[1] for row in made.sentences(g) for text in row])
        for g in ("women", "men")
    ]
    assert found[1]["mean_difference"] == pytest.approx(glad[0] - glad[1], abs=1e-6)
    # Probabilities of one text sum to 1, so their differences to 0.
    assert sum(each["mean_difference"] for each in found) == pytest.approx(0, abs=1e-6)


def test_a_masked_model_is_asked_for_each_token_that_the_sentences_share(masked_lm):
    (found,) = pseudo_likelihoods(masked_lm, ["she is a nurse ."], ["the nurse is a nurse ."], 2)
    size = masked_lm.backbone.vocabulary_size
    fill = build(masked_lm.text(top_k=size))[contract.FILL_MASK]

    def log_probability(text, token):
        answer = {name: tensor[0].numpy() for name, tensor in fill(tf.constant([text])).items()}
        return np.log(answer["score"][answer["token"].tolist().index(token.encode())])

    for sentence, value in zip(("she", "the nurse"), found, strict=True):
        words = [*sentence.split(), "is", "a", "nurse", "."]
        expected = 0.0
        for place in range(len(sentence.split()), len(words)):
            masked = [*words[:place], "[MASK]", *words[place + 1 :]]
            expected += log_probability(" ".join(masked), words[place])
        assert value == pytest.approx(expected, abs=1e-4)
    report = bias(masked_lm, PLAIN, resamples=50).numbers["comparisons"][0]
    assert report["measure"] == "pseudo-log-likelihood"


def test_what_sentences_share_is_found_in_order():
    assert shared_tokens([1, 2, 3, 4], [9, 2, 8, 4]) == ([1, 3], [1, 3])
    assert shared_tokens([5, 3, 4], [6, 7, 3, 4]) == ([1, 2], [2, 3])
    assert shared_tokens([1], [2]) == ([], [])


@pytest.mark.parametrize(
    ("changed", "words"),
    [
        ({"templates": []}, "templates must be a list of texts, not empty"),
        ({"templates": ["she is"]}, "needs a place {group}, got 'she is'"),
        ({"templates": ["{group} {what}"]}, "a place what that has no list"),
        ({"templates": ["{group} is a { role }"]}, "has { role }: a place is a name of letters"),
        ({"templates": ["{group} {job-title}"]}, "has {job-title}: a place"),
        ({"templates": ["{group} is {"]}, "has {: a place"),
        ({"groups": {"a": ["x"]}}, "two or more to compare, got 1"),
        ({"groups": {"a": ["x"], "b": ["y", "z"]}}, "as many: 1 of a, 2 of b"),
        ({"groups": {"a": ["x"], "b": "y"}}, "groups.b must be a list"),
        ({"groups": ["x"]}, "groups must be lists by name"),
        ({"words": {}}, "No words here: expected"),
        ({"groups": {"a": ["x"], "b": ["x " * 999]}}, "The model refused 'x x "),
    ],
)
def test_templates_that_are_none_are_refused(gpt, changed, words):
    with pytest.raises(UserError, match=words):
        bias(gpt, PLAIN | changed)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"batch_size": 0}, "batch_size must be at least 1"),
        ({"resamples": 0}, "resamples must be at least 1, got 0"),
        ({"confidence": 1.0}, "between 0 and 1, got 1.0"),
    ],
)
def test_numbers_that_are_none_are_refused(gpt, options, words):
    with pytest.raises(UserError, match=words):
        bias(gpt, PLAIN, **options)


def test_sentences_that_a_masked_model_cannot_judge_are_refused(masked_lm):
    with pytest.raises(UserError, match="share no token"):
        pseudo_likelihoods(masked_lm, ["she"], ["he"])
    with pytest.raises(UserError, match="has 30 tokens, the model takes 22"):
        pseudo_likelihoods(masked_lm, ["she " * 30], ["he"])


@pytest.mark.parametrize("classifier", ["bert"], indirect=True)
def test_a_served_classifier_gives_the_same_report_by_command(classifier, run, tmp_path):
    functions = build(classifier.text())
    module = tf.Module()
    module.weights = [variable.value for variable in classifier.variables]
    base = tmp_path / "served"
    tf.saved_model.save(
        module, str(base / "1"), signatures={contract.CLASSIFY: functions[contract.CLASSIFY]}
    )
    (tmp_path / "templates.json").write_text(json.dumps(PLAIN))
    with Server({"served": base}, port=0) as server:
        server.wait_until_available(60)
        with Client(f"127.0.0.1:{server.port}", "served") as client:
            served = bias(client, PLAIN).numbers["comparisons"]
        code, found, err = run(
            "report", "bias", f"127.0.0.1:{server.port}/served",
            "--templates", tmp_path / "templates.json", "--out", tmp_path / "out",
        )  # fmt: skip
    assert code == 0
    assert found["comparisons"] == served
    live = bias(classifier, PLAIN).numbers["comparisons"]
    for ours, theirs in zip(served, live, strict=True):
        assert ours["mean_difference"] == pytest.approx(theirs["mean_difference"], abs=1e-6)
        assert ours["interval"] == pytest.approx(theirs["interval"], abs=1e-6)
    assert "This does not show:" in err
    written = json.loads((tmp_path / "out" / "report.json").read_text())
    assert len(written["pairs"]) == 8 * 3


def test_files_that_hold_no_templates_are_refused(gpt, run, tmp_path):
    gpt.save_to_preset(str(tmp_path / "preset"))
    file = tmp_path / "templates.json"
    for content, words in [
        (None, "No such file"),
        ("{", "is no JSON"),
        ("[]", "must hold an object"),
    ]:
        if content is not None:
            file.write_text(content)
        code, found, err = run("report", "bias", tmp_path / "preset", "--templates", file)
        assert (code, found) == (2, None)
        assert words in err


def test_a_model_that_neither_scores_nor_classifies_is_refused(new_backbone, read_by):
    from tfllm.models import TextEmbedder

    with pytest.raises(UserError, match="this one answers embed"):
        bias(read_by(TextEmbedder, new_backbone("bert")), PLAIN)
