"""`tfllm evaluate`: what is measured follows from the model and the data."""

import json
from pathlib import Path

import numpy as np
import pytest

import tfllm
from tfllm import cli, evaluators
from tfllm.errors import UserError

FIXTURES = Path(__file__).parents[1] / "huggingface" / "fixtures"

FILMS = [("a good film", "glad"), ("bad", "sad"), ("not good", "sad"), ("very bad", "glad")]


@pytest.fixture
def films(tmp_path):
    """A table with names of its own for the columns."""
    path = tmp_path / "films.tsv"
    path.write_text("".join(f"{text}\t{label}\n" for text, label in [("review", "y"), *FILMS]))
    return path


COLUMNS = {"text": "review", "label": "y"}


def rows_of(path, rows):
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def test_the_python_call_reads_columns_by_other_names(live, films):
    found = evaluators.evaluate(live["classifier"], films, columns=COLUMNS, batch_size=2)
    rows = [{"text": text, "label": label} for text, label in FILMS]
    assert found.predictions == evaluators.classification(live["classifier"], rows).predictions


def test_columns_may_be_numbers_where_there_are_no_names(live, films):
    films.write_text("\n".join("\t".join(row) for row in FILMS))
    found = evaluators.evaluate(live["classifier"], films, columns={"text": "1", "label": "2"})
    assert found.counts["rows"] == 4


def test_limit_and_metrics_leave_out_the_rest(live, films):
    found = evaluators.evaluate(
        live["classifier"], films, columns=COLUMNS, limit=3, metrics=["accuracy", "matthews"]
    )
    assert list(found.metrics) == ["accuracy", "matthews"]
    assert found.counts["rows"] == 3


CONTEXT = "the cat sat on the mat"
DATA = {
    "multiple_choice": ("gpt", {"prompt": "a cat is", "choices": ["not", "red"], "label": "not"}),
    "generation": ("gpt", {"source": "one two", "target": "three", "text": "x"}),
    "language_model": ("gpt", {"text": "one two three"}),
    "span_qa": ("qa", {"question": "who?", "context": CONTEXT, "answers": ["the cat"]}),
    "similarity": ("embedder", {"text": "a cat", "text_pair": "the dog", "score": 3}),
    "analogies": ("embedder", {"a": "cat", "b": "dog", "c": "good", "d": "bad"}),
    "classification": ("classifier", {"text": "a film", "text_pair": "good", "label": "glad"}),
}


@pytest.mark.parametrize("task", DATA)
def test_the_task_is_the_first_that_model_and_data_fit(live, tmp_path, task):
    name, row = DATA[task]
    rows = [row, {**row, "score": 1}] if task == "similarity" else [row]
    options = {"settings": {"max_new_tokens": 2}} if task == "generation" else {}
    data = rows_of(tmp_path / "rows.jsonl", rows)
    found = evaluators.evaluate(live[name], data, **options)
    assert found.task == task
    assert found.metrics


def test_the_held_out_part_of_prepared_data_is_measured(live, tmp_path):
    rows_of(tmp_path / "validation.jsonl", [{"text": "one two three"}])
    (tmp_path / "other.txt").write_text("not this")
    found = evaluators.evaluate(live["gpt"], tmp_path)
    assert found.counts["bytes"] == len("one two three")


def test_answers_of_squad_stand_in_a_table_as_json(live, tmp_path):
    answers = {"text": ["the cat", "x"], "answer_start": [0, 1]}
    row = {"question": "who?", "context": CONTEXT}
    rows_of(tmp_path / "rows.jsonl", [row | {"answers": answers}, row | {"answers": "a [cat"}])
    cells = [["question", "context", "answers"], ["who?", CONTEXT, json.dumps(answers)]]
    cells.append(["who?", CONTEXT, "a [cat"])
    (tmp_path / "rows.tsv").write_text("".join("\t".join(row) + "\n" for row in cells))
    found = [evaluators.evaluate(live["qa"], tmp_path / f"rows.{end}") for end in ("jsonl", "tsv")]
    assert found[0].predictions == found[1].predictions
    assert found[1].predictions[0]["answers"] == answers


def test_a_completion_is_a_target(live, tmp_path):
    rows_of(tmp_path / "validation.jsonl", [{"prompt": "one two", "completion": "x"}])
    found = evaluators.evaluate(live["gpt"], tmp_path, settings={"max_new_tokens": 2})
    assert found.task == "generation"
    assert found.predictions[0]["target"] == ["x"]


def test_a_text_alone_measures_no_encoder_decoder(tmp_path):
    model = tfllm.from_huggingface(FIXTURES / "t5-relu")
    data = rows_of(tmp_path / "rows.jsonl", [{"text": "one two"}])
    with pytest.raises(UserError, match="has text, expected .*generation: target"):
        evaluators.evaluate(model, data)
    with pytest.raises(UserError, match="this one writes targets after sources"):
        evaluators.evaluate(model, data, task="language_model")


def test_plain_text_and_a_column_of_a_table_have_a_perplexity(live, tmp_path):
    (tmp_path / "a.txt").write_text("one two three")
    (tmp_path / "b.tsv").write_text("text\tn\none two three\t1\n")
    found = [evaluators.evaluate(live["gpt"], tmp_path / name) for name in ("a.txt", "b.tsv")]
    assert found[0].metrics == found[1].metrics
    assert found[0].counts["bytes"] == 13


@pytest.mark.parametrize("served", [False, True], ids=["preset", "served"])
def test_the_command_writes_numbers_answers_a_table_and_pictures(
    live, request, films, tmp_path, capsys, served
):
    if served:
        target = f"127.0.0.1:{request.getfixturevalue('server').port}/classifier"
    else:
        target = str(tmp_path / "preset")
        live["classifier"].save_to_preset(target)
    command = ["evaluate", target, "--data", str(films), "--column", "text=review"]
    command += ["--column", "label=y", "--out", str(tmp_path / "out"), "--batch-size", "3"]
    assert cli.main([*command, "--tensorboard", str(tmp_path / "logs"), "--positive", "sad"]) == 0
    out, err = capsys.readouterr()
    result = json.loads(out)
    rows = [{"text": text, "label": label} for text, label in FILMS]
    expected = evaluators.classification(live["classifier"], rows, positive="sad")
    assert result["target"] == target
    assert result["task"] == "classification"
    assert result["metrics"] == pytest.approx(expected.metrics, abs=1e-6)
    assert result["counts"] == {"rows": 4, "answered": 4, "refused": 0}
    written = json.loads((tmp_path / "out" / "evaluation.json").read_text())
    assert written["metrics"] == result["metrics"]
    assert written["details"]["confusion"] == expected.details["confusion"]
    assert written["data"] == [str(films)]
    lines = (tmp_path / "out" / "predictions.jsonl").read_text().splitlines()
    assert [json.loads(line)["predicted"] for line in lines] == [
        row["predicted"] for row in expected.predictions
    ]
    table = (tmp_path / "out" / "evaluation.txt").read_text()
    assert table == evaluators.table(expected)
    assert err.endswith(table)
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == [
        "evaluation.json",
        "evaluation.txt",
        "predictions.jsonl",
    ]
    assert list((tmp_path / "logs").glob("events.out.tfevents.*"))


def test_the_command_gives_settings_to_the_generator(live, tmp_path, capsys):
    live["gpt"].save_to_preset(tmp_path / "preset")
    data = rows_of(tmp_path / "rows.jsonl", [{"prompt": "one two", "target": "x"}])
    command = ["evaluate", str(tmp_path / "preset"), "--data", str(data), "--metrics", "chrf, "]
    assert cli.main([*command, "--max-new-tokens", "3", "--out", str(tmp_path / "out")]) == 0
    result = json.loads(capsys.readouterr().out)
    assert list(result["metrics"]) == ["chrf"]
    (line,) = (tmp_path / "out" / "predictions.jsonl").read_text().splitlines()
    answer = live["gpt"].generate("one two", max_new_tokens=3)
    assert json.loads(line)["predicted"] == answer.text
    details = json.loads((tmp_path / "out" / "evaluation.json").read_text())["details"]
    assert details["settings"] == {"max_new_tokens": 3}


ROW = {"text": "a", "label": "glad"}


@pytest.mark.parametrize(
    ("model", "row", "options", "words"),
    [
        ("classifier", ROW, {"task": "translation"}, "one of classification, span_qa"),
        ("classifier", ROW, {"task": "generation"}, "needs a model that answers generate; this"),
        ("classifier", ROW, {"limit": 0}, "limit must be at least 1, got 0"),
        ("classifier", ROW, {"beam_search": True}, "takes no beam_search; it takes batch_size"),
        ("classifier", ROW, {"metrics": ["bleu"]}, "has no metric 'bleu'; it has accuracy"),
        ("classifier", {"text": "a"}, {}, r"has text, expected .*classification: text, label"),
        ("embedder", {"x": 1}, {}, "has no known field, expected .*similarity: text, text_pair"),
        ("gpt", {"prompt": "a"}, {}, "generation: target, source or prompt"),
        ("classifier", ROW, {"columns": {"title": "x"}}, "no field 'title'"),
    ],
)
def test_what_does_not_fit_together_is_refused(live, tmp_path, model, row, options, words):
    data = rows_of(tmp_path / "rows.jsonl", [row])
    with pytest.raises(UserError, match=words):
        evaluators.evaluate(live[model], data, **options)


def test_a_model_that_nothing_measures_is_refused(tmp_path):
    data = rows_of(tmp_path / "rows.jsonl", [ROW])
    with pytest.raises(UserError, match="No evaluation fits a model that answers nothing known"):
        evaluators.evaluate(object(), data)


def test_rows_of_arrays_are_written_as_json(live, tmp_path):
    row = {"text": "good", "label": np.int64(1), "weight": np.float32("nan"), "at": np.arange(2)}
    evaluators.write_report(evaluators.classification(live["classifier"], [row]), tmp_path)
    written = json.loads((tmp_path / "predictions.jsonl").read_text())
    assert (written["label"], written["weight"], written["at"]) == (1, None, [0, 1])


def test_a_table_for_people_has_a_line_per_number_and_class():
    found = evaluators.Evaluation(
        "classification",
        {"accuracy": 0.5, "roc_auc": float("nan")},
        {"rows": 12},
        {"classes": {"glad": {"f1": 0.25, "rows": 2}}},
    )
    assert evaluators.table(found) == (
        "classification\n"
        "accuracy        0.5000\n"
        "roc_auc            nan\n"
        "rows                12\n"
        "\n"
        "class      f1  rows\n"
        "glad   0.2500     2\n"
    )
