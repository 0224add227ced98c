"""A recipe that leaves the precision to the machine."""

import dataclasses
import json

import pytest

from tfllm.trainers import fit
from tfllm.trainers.devices import DEVICES, measured_product_flops
from tfllm.trainers.precision import WORTH, with_precision, with_precision_of


@pytest.fixture
def auto(tiny):
    return dataclasses.replace(tiny, precision="auto")


def test_a_given_precision_stays(tiny, tmp_path, capsys):
    assert with_precision(tiny, tmp_path) == tiny
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize(("times", "expected"), [(1.1, "float32"), (1.9, "bfloat16")])
def test_it_is_chosen_by_how_fast_products_are(
    auto, tmp_path, capsys, monkeypatch, times, expected
):
    speeds = {"float32": 1e9, "bfloat16": times * 1e9}
    monkeypatch.setattr("tfllm.trainers.precision.measured_product_flops", speeds.get)
    assert with_precision(auto, tmp_path).precision == expected
    told = f"precision: {expected} (measured on this CPU: products in bfloat16 are {times} times"
    assert told in capsys.readouterr().err


def test_a_run_has_the_precision_that_was_chosen_and_goes_on_in_it(
    auto, tmp_path, capsys, monkeypatch
):
    faster = measured_product_flops("bfloat16") > WORTH * measured_product_flops("float32")
    chosen, other = ("bfloat16", "float32") if faster else ("float32", "bfloat16")
    run = tmp_path / "run"
    fit(auto, run=run, tensorboard=tmp_path / "tb")
    assert json.loads((run / "recipe.json").read_text())["precision"] == chosen
    speeds = {chosen: 1.0, other: 9.0}
    monkeypatch.setattr("tfllm.trainers.precision.measured_product_flops", speeds.get)
    assert with_precision(auto, run).precision == chosen
    assert f"precision: {chosen} (as {run} was begun)" in capsys.readouterr().err


def test_on_paper_it_is_that_of_the_device(auto):
    cpu = dataclasses.replace(
        DEVICES["h100"], is_shared=True, flops={"float32": 2e9, "bfloat16": 2e9}
    )
    assert with_precision_of(auto, DEVICES["v5e"]).precision == "bfloat16"
    assert with_precision_of(auto, cpu).precision == "float32"
