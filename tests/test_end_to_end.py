"""Text to a gRPC answer by the one command that does it all."""

import contextlib
import io
import json

import pytest

from tfllm import cli
from tfllm.models import CausalLM
from tfllm.quickstart import PROMPT, SAMPLING

TINY = ["--set", "steps=3", "--set", "model.hidden_dim=32", "--set", "model.num_layers=1"]


@pytest.fixture(scope="module")
def quickstart(tmp_path_factory):
    """What `tfllm quickstart` printed, and the folder it worked in."""
    work = tmp_path_factory.mktemp("work")
    with pytest.MonkeyPatch.context() as patch, contextlib.redirect_stdout(io.StringIO()) as out:
        patch.chdir(work)
        assert cli.main(["quickstart", *TINY]) == 0
    return json.loads(out.getvalue()), work


def test_the_served_answer_is_the_live_models(quickstart):
    result, work = quickstart
    for family, key in (("gpt", "text"), ("lstm", "text_lstm")):
        live = CausalLM.from_preset(work / "quickstart" / "runs" / family / "preset")
        assert live.generate(PROMPT, **SAMPLING).text == result[key]


def test_both_models_are_measured_on_held_out_text(quickstart):
    result, _ = quickstart
    assert set(result["bits_per_byte"]) == {"gpt", "lstm"}
    assert all(0 < bits < 8 for bits in result["bits_per_byte"].values())


def test_tensorboard_has_both_runs(quickstart):
    result, work = quickstart
    for logs in result["tensorboard"]:
        assert list((work / logs).rglob("events.out.tfevents.*"))


def test_a_folder_that_holds_something_else_is_not_emptied(tmp_path, capsys):
    (tmp_path / "mine.txt").write_text("mine")
    assert cli.main(["quickstart", "--folder", str(tmp_path)]) == 2
    assert "holds something else" in capsys.readouterr().err
    assert (tmp_path / "mine.txt").read_text() == "mine"
