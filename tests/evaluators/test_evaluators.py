"""Every evaluator, on live models and, by one call of each kind, on served ones."""

import math
from pathlib import Path

import numpy as np
import pytest

import tfllm
from tfllm import evaluators, metrics
from tfllm.errors import UserError

FIXTURES = Path(__file__).parents[1] / "huggingface" / "fixtures"

FILMS = ["a very good film", "bad", "not good", "the cat sat", "", "who is good?"]


def classified(model, *, labels=("glad", "sad", "0", "neither", 2, "glad"), **options):
    rows = [{"text": t, "label": label} for t, label in zip(FILMS, labels, strict=True)]
    return evaluators.classification(model, rows, **options)


def test_a_classifier_is_measured_by_its_own_answers(ask):
    model = ask("classifier")
    found = classified(model, batch_size=4)
    answers = model.classify(FILMS)
    truth = [1, 0, 0, 2, 2, 1]
    predicted = [answer.labels.index(answer.label) for answer in answers]
    matrix = metrics.confusion_matrix(truth, predicted, 3)
    assert found.classes.labels == ["sad", "glad", "neither"]
    np.testing.assert_array_equal(found.classes.matrix, matrix)
    np.testing.assert_array_equal(found.classes.truth, truth)
    assert found.metrics["accuracy"] == metrics.accuracy(matrix)
    assert found.metrics["f1_macro"] == metrics.macro(matrix).f1
    assert found.metrics["recall_micro"] == metrics.micro(matrix).recall
    scores = np.array([answer.scores for answer in answers])
    area = metrics.one_vs_rest(metrics.roc_auc, truth, scores)
    assert found.metrics["roc_auc"] == pytest.approx(area)
    assert found.counts == {"rows": 6, "answered": 6, "refused": 0}
    assert [row["predicted"] for row in found.predictions] == [a.label for a in answers]
    assert found.details["classes"]["sad"]["rows"] == 2
    assert found.details["confusion"] == matrix.tolist()


def test_a_number_is_no_place_where_the_labels_are_numbers():
    model = tfllm.from_huggingface(FIXTURES / "bert-classifier")
    model.labels = ["1", "2", "3"]
    found = classified(model, labels=("1", 2, "3", 3, 1, 1))
    assert found.classes.truth.tolist() == [0, 1, 2, 2, 0, 0]
    with pytest.raises(UserError, match="Row 1 has the label 0; the model knows '1', '2', '3'"):
        classified(model, labels=(0, 1, 1, 1, 1, 1))


def test_one_class_may_be_the_positive_one(live):
    found = classified(live["classifier"], positive="glad")
    is_glad, scores = found.classes.truth == 1, found.classes.scores[:, 1]
    assert found.metrics["roc_auc"] == metrics.roc_auc(is_glad, scores)
    assert found.metrics["average_precision"] == metrics.average_precision(is_glad, scores)


def test_pairs_are_classified_as_pairs(live):
    rows = [{"text": "cat", "text_pair": "dog", "label": "sad"}]
    found = evaluators.classification(live["classifier"], rows)
    pair, alone = live["classifier"].classify("cat", "dog"), live["classifier"].classify("cat")
    assert found.predictions[0]["scores"] == pair.scores != alone.scores


def test_what_the_model_refuses_is_counted_and_told(live):
    model = live["classifier"]
    lost = "a" * 1_000_000  # one word, of which no token can be read
    (answer,) = model.classify([lost])
    assert answer.error
    rows = [{"text": "good", "label": "glad"}, {"text": lost, "label": "sad"}]
    found = evaluators.classification(model, rows)
    assert found.counts == {"rows": 2, "answered": 1, "refused": 1}
    assert found.predictions[1]["error"] == answer.error
    assert found.classes.matrix.sum() == 1
    with pytest.raises(UserError, match="refused every one of 1 rows, the first because: the text"):
        evaluators.classification(model, rows[1:])


def test_metrics_without_a_value_are_null_in_json(live):
    found = evaluators.classification(live["classifier"], [{"text": "good", "label": "glad"}])
    assert math.isnan(found.metrics["roc_auc"])
    assert found.as_json()["metrics"]["roc_auc"] is None
    assert found.as_json()["metrics"]["accuracy"] in (0.0, 1.0)


PROMPTS = ["one two three four", "a cat is not", "red green blue"]


@pytest.mark.parametrize("beam_search", [False, True])
def test_what_is_written_is_compared_with_the_targets(live, beam_search):
    model, settings = live["gpt"], {"max_new_tokens": 12}
    if beam_search:
        written = [beams.text[0] for beams in model.beam_search(PROMPTS, **settings)]
    else:
        written = [answer.text for answer in model.generate(PROMPTS, **settings)]
    targets = [written[0] + " ", ["nothing", written[1]], "something else"]
    rows = [{"prompt": p, "target": t} for p, t in zip(PROMPTS, targets, strict=True)]
    found = evaluators.generation(
        model, rows, batch_size=2, beam_search=beam_search, settings=settings
    )
    assert found.metrics["exact_match"] == pytest.approx(2 / 3)
    assert found.metrics["bleu"] == metrics.bleu(written, targets).score
    assert found.metrics["chrf"] == metrics.chrf(written, targets).score
    assert found.metrics["rouge_l"] == metrics.rouge(written, targets).rouge_l
    assert "tok:13a" in found.details["bleu"]
    cut = [row["finish_reason"] for row in found.predictions].count("length")
    assert found.counts == {"rows": 3, "answered": 3, "refused": 0, "cut_at_limit": cut}


def test_only_the_wanted_measures_are_computed(live):
    rows = [{"source": "一二", "target": "三 四"}]
    found = evaluators.generation(
        live["gpt"], rows, measures=["rouge1", "chrf"], rouge_tokenizer="characters",
        settings={"max_new_tokens": 2},
    )  # fmt: skip
    assert set(found.metrics) == {"rouge1", "chrf"}
    assert found.details["rouge"] == "tok:characters"


def test_a_prompt_that_is_too_long_is_a_refused_row(live):
    rows = [{"prompt": PROMPTS[0], "target": "x"}, {"prompt": "why not? " * 60, "target": "x"}]
    found = evaluators.generation(live["gpt"], rows, settings={"max_new_tokens": 2})
    assert found.counts["refused"] == 1
    assert "too long" in found.predictions[1]["error"]


CONTEXT = "the cat sat on the mat and the dog sat on the log"


def test_answers_are_measured_by_exact_match_and_f1(live):
    model = live["qa"]
    questions = ["who sat?", "where?", "what?"]
    said = [answer.answer for answer in model.answer(questions, [CONTEXT] * 3)]
    answers = [{"text": [said[0], "x"]}, [], [{"text": "log", "answer_start": 46}]]
    rows = [
        {"question": question, "context": CONTEXT, "answers": right}
        for question, right in zip(questions, answers, strict=True)
    ]
    found = evaluators.span_qa(model, rows, batch_size=2)
    expected = metrics.span_scores(said, [[said[0], "x"], [], ["log"]])
    assert found.metrics["f1"] == expected["all"].f1
    assert found.metrics["no_answer_exact_match"] == expected["no_answer"].exact_match
    assert found.counts["has_answer"] == 2
    assert found.counts["no_answer"] == 1
    assert [row["predicted"] for row in found.predictions] == said


def test_null_says_that_there_is_no_answer(live):
    rows = [{"question": "who?", "context": CONTEXT, name: None} for name in ("answer", "answers")]
    assert evaluators.span_qa(live["qa"], rows).counts["no_answer"] == 2


def test_one_answer_of_a_table_is_enough(live):
    rows = [{"question": "who?", "context": CONTEXT, "answer": "the cat"}]
    assert set(evaluators.span_qa(live["qa"], rows).metrics) == {"exact_match", "f1"}


PAIRS = [("a cat", "the cat"), ("a cat", "the log"), ("good", "bad"), ("who", "where")]


def test_cosines_are_correlated_with_the_scores(live):
    model = live["embedder"]
    rows = [
        {"text": a, "text_pair": b, "score": score}
        for (a, b), score in zip(PAIRS, [5, "1.5", 2, 4], strict=True)
    ]
    found = evaluators.similarity(model, rows, batch_size=3)
    vectors = [[np.array(e.embedding) for e in model.embed(list(pair))] for pair in PAIRS]
    cosines = [a @ b for a, b in vectors]
    assert found.metrics["spearman"] == pytest.approx(metrics.spearman(cosines, [5, 1.5, 2, 4]))
    assert found.metrics["pearson"] == pytest.approx(
        metrics.pearson(cosines, [5, 1.5, 2, 4]), abs=1e-5
    )
    assert [row["predicted"] for row in found.predictions] == pytest.approx(cosines, abs=1e-5)
    assert found.vectors.columns["text"][:2] == ["a cat", "the cat"]
    assert len(found.vectors.vectors) == 7


def test_no_call_has_more_rows_than_a_batch(live):
    class Narrow:
        def embed(self, texts):
            assert len(texts) <= 2  # as a server that refuses more
            return live["embedder"].embed(texts)

    rows = [{"text": "a cat", "text_pair": "the dog", "score": i} for i in range(3)]
    assert evaluators.similarity(Narrow(), rows, batch_size=2).counts["answered"] == 3


def test_analogies_are_completed_among_the_words_that_are_given(live):
    model, words = live["embedder"], ["cat", "dog", "good", "bad", "who", "where", "log"]
    vectors = np.array([answer.embedding for answer in model.embed(words)])
    questions = [[0, 1, 2], [2, 3, 4], [4, 5, 0]]
    nearest = metrics.nearest_by_sum(vectors, questions)
    rows = [
        dict(zip("abcd", [words[i] for i in (*question, d)], strict=True))
        for question, d in zip(questions, [nearest[0], nearest[1], 6], strict=True)
    ]
    rows[2]["d"] = "log" if words[nearest[2]] != "log" else "bad"
    found = evaluators.analogies(model, rows, words=words)
    assert found.metrics["accuracy"] == pytest.approx(2 / 3)
    assert [row["predicted"] for row in found.predictions] == [words[i] for i in nearest]
    assert found.counts["candidates"] == 7


def test_a_word_that_is_refused_refuses_its_analogies(live):
    lost = "a" * 1_000_000
    rows = [dict(zip("abcd", quad, strict=True)) for quad in (["cat"] * 4, ["cat", lost, "a", "b"])]
    found = evaluators.analogies(live["embedder"], rows)
    assert found.counts["refused"] == 1
    assert found.predictions[1]["error"].startswith("'aaaa")


def test_the_most_probable_choice_is_taken(ask):
    model = ask("gpt")
    rows = [
        {"prompt": "one two three", "choices": ["four", "the dog sat on the log"], "label": 0},
        {"prompt": "a cat is not a", "choices": ["four", "dog"], "label": "four"},
    ]
    found = evaluators.multiple_choice(model, rows)
    logprobs = [
        [model.score(row["prompt"], " " + choice).logprob for choice in row["choices"]]
        for row in rows
    ]
    right = [scores[0] > scores[1] for scores in logprobs]
    assert found.metrics["accuracy"] == sum(right) / 2
    long, short = logprobs[0][1] / len(rows[0]["choices"][1]), logprobs[0][0] / 4
    four, dog = logprobs[1][0] / 4, logprobs[1][1] / 3
    normalized = [short > long, four > dog]
    assert found.metrics["accuracy_normalized"] == sum(normalized) / 2
    assert found.predictions[1]["logprobs"] == pytest.approx(logprobs[1], rel=1e-4)


def test_a_label_that_is_a_number_is_the_place_of_a_choice(live):
    row = {"prompt": "one two", "choices": ["1", "2", "3"]}
    labels = [0, 1, 2, "1", "2", "3", 3]  # the last is no place, so a choice
    found = evaluators.multiple_choice(live["gpt"], [row | {"label": label} for label in labels])
    said = found.predictions[0]["predicted"]
    alone = [
        evaluators.multiple_choice(live["gpt"], [row | {"label": label}]).metrics["accuracy"]
        for label in labels
    ]
    assert alone == [choice == said for choice in ("1", "2", "3", "1", "2", "3", "3")]


QA = {"question": "who?", "context": CONTEXT}
CHOICE = {"prompt": "a", "choices": ["b", "c"]}
WRONG = {
    "no rows": ("classification", [], "no rows to evaluate"),
    "no text": ("classification", [{"label": 1}], "Row 1 has no 'text'; it has 'label'"),
    "an unknown label": (
        "classification",
        [{"text": "a", "label": "angry"}],
        "Row 1 has the label 'angry'; the model knows 'sad', 'glad', 'neither'",
    ),
    "a number of no label": ("classification", [{"text": "a", "label": 3}], "has the label 3"),
    "no target": ("generation", [{"prompt": "a"}], "Row 1 has no 'target'"),
    "no prompt": ("generation", [{"target": "a"}], "has no 'source' and no 'prompt'"),
    "no text in target": ("generation", [{"prompt": "a", "target": []}], "no text in 'target'"),
    "answers of numbers": ("span_qa", [QA | {"answers": [1]}], "Row 1: expected a text or a list"),
    "a score that is none": (
        "similarity",
        [{"text": "a", "text_pair": "b", "score": "high"}],
        "score must be a number, got 'high'",
    ),
    "choices of nothing": ("multiple_choice", [CHOICE | {"choices": []}], "must be a list of tex"),
    "a label of no choice": ("multiple_choice", [CHOICE | {"label": 2}], "its choices are"),
}
MODELS = {"classification": "classifier", "span_qa": "qa", "similarity": "embedder"}


@pytest.mark.parametrize(("task", "rows", "words"), WRONG.values(), ids=WRONG)
def test_rows_that_cannot_be_measured_are_refused(live, task, rows, words):
    with pytest.raises(UserError, match=words):
        getattr(evaluators, task)(live[MODELS.get(task, "gpt")], rows)


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda live: classified(live["classifier"], positive="x"), "one of sad, glad, neither"),
        (lambda live: classified(live["classifier"], batch_size=0), "batch_size must be at least"),
        (lambda live: evaluators.generation(live["gpt"], [], measures=["meteor"]), "no measure"),
        (
            lambda live: evaluators.generation(live["gpt"], [], settings={"warmth": 1}),
            "generate has no setting 'warmth'; it has max_new_tokens",
        ),
        (
            lambda live: evaluators.generation(
                live["gpt"], [], settings={"top_k": 1}, beam_search=True
            ),
            "beam_search has no setting 'top_k'; it has max_new_tokens, length_penalty",
        ),
    ],
)
def test_options_that_cannot_be_are_refused(live, call, words):
    with pytest.raises(UserError, match=words):
        call(live)
