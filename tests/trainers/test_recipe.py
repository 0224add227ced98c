"""Recipes: settings from text, JSON and back, finding them, and what is refused."""

import dataclasses
import json

import pytest

from tfllm.errors import UserError
from tfllm.trainers.recipe import Optimizer, Recipe, load_recipe, recipe_names

RECIPE = Recipe(name="small", model={"num_layers": 4, "dropout": 0.1}, sample_prompts=("a", "b"))


def test_settings_replace_values_at_every_depth_and_leave_the_original():
    changed = RECIPE.with_settings(
        ["steps=7", "optimizer.peak_learning_rate=3e-4", "model.num_layers=2", "name=b=c"]
    )
    assert (changed.steps, changed.optimizer.peak_learning_rate) == (7, 3e-4)
    assert changed.model == {"num_layers": 2, "dropout": 0.1}
    assert changed.name == "b=c"
    assert (RECIPE.steps, RECIPE.model["num_layers"]) == (1000, 4)


def test_settings_take_the_type_of_the_field():
    changed = RECIPE.with_settings(
        ["optimizer.clip_norm=2", "sample_prompts=['x']", "data=123", "model.tied=False"]
    )
    assert type(changed.optimizer.clip_norm) is float
    assert changed.sample_prompts == ("x",)
    assert changed.data == "123"
    assert changed.model["tied"] is False


@pytest.mark.parametrize(
    ("setting", "words"),
    [
        ("step=5", "no 'step' in Recipe; did you mean 'steps'?"),
        ("optimizer.beta2=0.9", "no 'beta2' in Optimizer; did you mean 'beta_2'?"),
        ("qqq=5", "no 'qqq' in Recipe; there are name, task, family, model"),
        ("steps=1.5", "steps must be of type int: got '1.5'"),
        ("model.num_layers=two", "model.num_layers must be of type int: got 'two'"),
        ("optimizer=fast", "optimizer must be of type Optimizer: got 'fast'"),
        ("steps.x=1", "steps is a value and has no field 'x'"),
        ("steps", "A setting looks like steps=100 or model.num_layers=2: got 'steps'"),
        ("steps=0", "Recipe.steps must be at least 1: got 0"),
        ("seed=True", "seed must be of type int: got 'True'"),
    ],
)
def test_wrong_settings_are_refused_with_words(setting, words):
    with pytest.raises(UserError) as error:
        RECIPE.with_settings([setting])
    assert words in str(error.value)


@pytest.mark.parametrize(
    ("field", "value", "words"),
    [
        ("name", "", "must be the name of a folder: got ''"),
        ("name", "a/b", "must be the name of a folder: got 'a/b'"),
        ("family", "bert", "must be one of gpt, lstm: got 'bert'"),
        ("seed", -1, r"must be in \[0, 2\*\*32\): got -1"),
        ("seed", 2**32, r"must be in \[0, 2\*\*32\): got 4294967296"),
        ("precision", "float16", "must be one of float32, bfloat16, auto: got 'float16'"),
        ("global_batch", 0, "must be at least 1: got 0"),
        ("validate_every", 0, "must be at least 1: got 0"),
        ("checkpoint_every", 0, "must be at least 1: got 0"),
        ("keep_checkpoints", 0, "must be at least 1: got 0"),
        ("validation_steps", -1, r"must be at least 0 \(0 = all\): got -1"),
        ("steps", "10", "Recipe.steps must be of type int: got '10'"),
        ("model", ["x"], "Recipe.model must be of type dict"),
    ],
)
def test_values_out_of_range_are_refused_with_words(field, value, words):
    with pytest.raises(UserError, match=words):
        dataclasses.replace(RECIPE, **{field: value})


@pytest.mark.parametrize(
    ("field", "value", "words"),
    [
        ("peak_learning_rate", 0.0, "above 0"),
        ("warmup_steps", -1, "at least 0"),
        ("final_fraction", 1.5, r"in \[0, 1\]"),
        ("weight_decay", -0.1, r"in \[0, 1\]"),
        ("beta_1", 1.0, r"in \[0, 1\)"),
        ("beta_2", -0.5, r"in \[0, 1\)"),
        ("clip_norm", -1.0, "0 = no clipping"),
    ],
)
def test_an_optimizer_out_of_range_is_refused_with_words(field, value, words):
    with pytest.raises(UserError, match=f"Optimizer.{field} must be .*{words}"):
        Optimizer(**{field: value})


def test_json_gives_the_same_recipe_back():
    recipe = dataclasses.replace(RECIPE, optimizer=Optimizer(beta_2=0.5, clip_norm=2))
    assert Recipe.from_json(json.dumps(dataclasses.asdict(recipe))) == recipe


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("{", "A recipe must be JSON"),
        ('{"name": "a", "step": 3}', "no 'step' in Recipe; did you mean 'steps'?"),
        ('{"name": "a", "optimizer": {"beta1": 3}}', "no 'beta1' in Optimizer"),
        ('{"steps": 3}', "Recipe needs the field 'name'"),
        ('{"name": "a", "optimizer": 3}', "Recipe.optimizer must be of type Optimizer: got 3"),
        ("[1]", "Recipe must be an object of named values: got [1]"),
    ],
)
def test_json_that_is_no_recipe_is_refused_with_words(text, words):
    with pytest.raises(UserError) as error:
        Recipe.from_json(text)
    assert words in str(error.value)


@pytest.mark.parametrize("name", recipe_names())
def test_every_recipe_of_the_package_is_found_under_its_own_name(name):
    assert load_recipe(name).name == name


def test_a_recipe_comes_from_a_python_file_and_from_a_json_file(tmp_path):
    (tmp_path / "mine.json").write_text(json.dumps(dataclasses.asdict(RECIPE)))
    (tmp_path / "mine.py").write_text(
        "from tfllm.trainers.recipe import Recipe\n"
        "def recipe(): return Recipe(name='mine', steps=3)\n"
    )
    assert load_recipe(str(tmp_path / "mine.json")) == RECIPE
    assert load_recipe(str(tmp_path / "mine.py")) == Recipe(name="mine", steps=3)


def test_a_recipe_that_is_not_there_is_refused_with_words(tmp_path):
    with pytest.raises(UserError, match="no 'gpt_smal' in the recipes; .* 'gpt_small'?"):
        load_recipe("gpt_smal")
    with pytest.raises(UserError, match=r"No recipe at .*none\.json\. The package has .*gpt_10m"):
        load_recipe(str(tmp_path / "none.json"))
    (tmp_path / "latin.json").write_bytes(b'{"name": "caf\xe9"}')
    with pytest.raises(UserError, match=r"latin\.json cannot be read as UTF-8: .*0xe9"):
        load_recipe(str(tmp_path / "latin.json"))
    (tmp_path / "empty.py").write_text("recipe = 3")
    with pytest.raises(UserError, match=r"empty\.py must have a function recipe\(\)"):
        load_recipe(str(tmp_path / "empty.py"))
