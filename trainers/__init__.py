"""Training runs: recipes, strategies, checkpoints and `fit`."""

from tfllm.trainers.fit import Result, fit
from tfllm.trainers.recipe import Adaptation, Optimizer, Recipe, load_recipe, recipe_names
from tfllm.trainers.strategy import is_chief, make_strategy
from tfllm.trainers.watch import Watch

__all__ = [
    "Adaptation",
    "Optimizer",
    "Recipe",
    "Result",
    "Watch",
    "fit",
    "is_chief",
    "load_recipe",
    "make_strategy",
    "recipe_names",
]
