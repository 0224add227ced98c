"""Runs side by side: what is read of their folders, and what of a folder that cannot be read."""

import json

import pytest

from tfllm import cli
from tfllm.errors import UserError
from tfllm.trainers import Optimizer, Recipe
from tfllm.trainers.run_folder import open_run
from tfllm.trainers.runs import compare_runs, table

META = {"task": "causal_lm"}


@pytest.fixture
def runs(tmp_path):
    """A finished run, one that was stopped after a validation, and one of a damaged recipe."""
    recipes = {
        "a": Recipe(name="a", global_batch=8, steps=100),
        "b": Recipe(name="b", global_batch=8, steps=200, optimizer=Optimizer(beta_2=0.9)),
    }
    for name, recipe in recipes.items():
        with open_run(tmp_path / name, recipe, META):
            pass
    progress = {"step": 60, "loss": 3.5, "tokens_per_second": 90.0, "mfu": 0.5}
    progress["validation"] = {"loss": 3.25}
    (tmp_path / "b" / "progress.json").write_text(json.dumps(progress))
    (tmp_path / "a" / "preset").mkdir()
    numbers = {"steps": 100, "metrics": {"loss": 2.75}, "tokens_per_second": 100.0}
    (tmp_path / "a" / "result.json").write_text(json.dumps(numbers))
    (tmp_path / "c").mkdir()
    (tmp_path / "c" / "recipe.json").write_text('{"name": ')
    return tmp_path


def test_a_row_says_how_far_a_run_is_and_in_what_its_recipe_differs(runs):
    a, b, _ = compare_runs([runs])
    assert a["state"] == "finished"
    assert (a["steps"], a["validation_loss"], a["tokens_per_second"]) == (100, 2.75, 100.0)
    assert "loss" not in a
    assert b["state"] == "stopped"
    assert (b["steps"], b["of"], b["loss"], b["validation_loss"]) == (60, 200, 3.5, 3.25)
    assert (b["mfu"], b["precision"]) == (0.5, "float32")
    assert b["machine"]
    assert b["optimizer.beta_2"] == 0.9
    assert not {"global_batch", "optimizer.beta_1"} & (a.keys() | b.keys())


def test_a_run_that_cannot_be_read_is_listed_with_the_reason(runs):
    c = compare_runs([runs])[2]
    assert c["state"] == "unreadable"
    assert "A recipe must be JSON" in c["reason"]
    (runs / "b" / "progress.json").write_text("[")
    assert compare_runs([runs / "b"])[0]["state"] == "unreadable"
    assert "No such file" in compare_runs([runs / "a" / "preset"])[0]["reason"]


def test_a_run_that_a_process_has_open_is_running(runs):
    with open_run(runs / "d", Recipe(name="d"), META):
        assert compare_runs([runs / "d"])[0]["state"] == "running"
    assert compare_runs([runs / "d"])[0]["state"] == "stopped"


def test_runs_are_sorted_with_those_without_a_value_last(runs):
    rows = compare_runs([runs], sort="validation_loss", columns=["run", "validation_loss"])
    assert [row.get("validation_loss") for row in rows] == [2.75, 3.25, None]
    assert set(rows[0]) == {"run", "validation_loss"}


def test_a_column_that_no_run_has_is_refused_with_the_nearest(runs):
    with pytest.raises(UserError, match=r"did you mean 'validation_loss'"):
        compare_runs([runs], sort="validation_los")


def test_the_table_has_a_line_for_each_run(runs):
    head, *lines = table(compare_runs([runs], columns=["run", "loss", "state"])).splitlines()
    assert head.split() == ["run", "state", "loss"]
    assert lines[0].split()[1:] == ["finished", "-"]
    assert lines[1].split()[1:] == ["stopped", "3.5"]


def test_the_command_prints_the_table_for_people_and_json_for_programs(runs, capsys):
    assert cli.main(["runs", str(runs), "--columns", "run,state"]) == 0
    out, err = capsys.readouterr()
    assert [row["state"] for row in json.loads(out)["runs"]] == [
        "finished",
        "stopped",
        "unreadable",
    ]
    assert "finished" in err
    assert cli.main(["runs", str(runs / "none")]) == 2
    assert "There is no folder" in capsys.readouterr().err
