"""Another recipe, or other data, for a run that was begun: refused by name, or accepted."""

import json
import shutil

import keras
import pytest

from tfllm.errors import UserError
from tfllm.trainers import Recipe


class StopAfter(keras.callbacks.Callback):
    def __init__(self, step):
        super().__init__()
        self.step = step

    def on_train_batch_end(self, *_, **__):
        if self.model.optimizer.iterations.numpy() == self.step:
            raise KeyboardInterrupt


@pytest.fixture
def begun(tiny, train):
    """A recipe of eight steps, of which five are done in this test's folder."""
    recipe = tiny.with_settings(["ema=0.9", "sample_prompts=[]", "validate_every=8"])
    with pytest.raises(KeyboardInterrupt):
        train(recipe, callbacks=[StopAfter(5)])
    return recipe


def test_another_recipe_is_refused_with_what_differs_and_goes_on_when_accepted(
    begun, train, tmp_path
):
    changed = begun.with_settings(["optimizer.beta_2=0.5", "model.dropout=0.2", "steps=9"])
    with pytest.raises(UserError) as error:
        train(changed)
    assert "was begun by another recipe" in str(error.value)
    assert "model.dropout was 0.1, is 0.2; optimizer.beta_2 was 0.95, is 0.5" in str(error.value)
    assert "accept the changes (--accept-changes)" in str(error.value)
    run = tmp_path / "run"
    assert Recipe.from_json((run / "recipe.json").read_text()) == begun
    assert not (run / "changes.json").exists()

    result, losses = train(changed, accept_changes=True)
    assert (result.steps, len(losses)) == (9, 5)
    assert Recipe.from_json((run / "recipe.json").read_text()) == changed
    assert json.loads((run / "changes.json").read_text()) == {
        "changes": [
            {
                "after_step": 4,
                "values": {
                    "model.dropout": {"before": 0.1, "after": 0.2},
                    "optimizer.beta_2": {"before": 0.95, "after": 0.5},
                    "steps": {"before": 8, "after": 9},
                },
            }
        ]
    }


def test_what_decides_the_variables_is_refused_even_when_changes_are_accepted(
    begun, train, tmp_path
):
    other = begun.with_settings(["model.num_layers=2", "ema=0", "seed=3"])
    with pytest.raises(UserError, match=r"seed was 0, is 3.*\. Put ema, model\.num_layers back"):
        train(other, accept_changes=True)
    assert Recipe.from_json((tmp_path / "run" / "recipe.json").read_text()) == begun


def test_other_data_are_refused_even_when_changes_are_accepted(tiny, again, tmp_path):
    shutil.copytree(tiny.data, tmp_path / "other")
    meta = json.loads((tmp_path / "other" / "meta.json").read_text())
    meta["splits"]["train"]["documents"] = 7
    (tmp_path / "other" / "meta.json").write_text(json.dumps(meta))
    with pytest.raises(UserError, match=r"the data's splits\.train\.documents was 223, is 7"):
        again(tiny, data=tmp_path / "other", accept_changes=True)


def test_a_finished_run_takes_no_changes(tiny, again):
    with pytest.raises(UserError, match=r"seed was 0, is 1.*It is finished"):
        again(tiny.with_settings(["seed=1"]), accept_changes=True)
