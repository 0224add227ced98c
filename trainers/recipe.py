"""A recipe: everything that decides a training run, as plain values.

    Recipe(
        name="gpt_tiny",
        family="gpt",
        model=dict(num_layers=2, num_heads=4, hidden_dim=64, intermediate_dim=256),
        optimizer=Optimizer(peak_learning_rate=3e-3),
        global_batch=16,
        steps=500,
    )

A recipe of one's own is a Python file with a function `recipe()` that returns one. What a run was
trained by is written beside it as recipe.json, so that reading a run executes no code.
"""

import dataclasses
import importlib
import json
import pkgutil
import runpy
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from tfllm.errors import UserError
from tfllm.trainers import recipes
from tfllm.trainers.settings import check, check_name, check_types, from_dict, with_setting

_ENCODERS = ("bert", "lstm")
# The tasks, and the families of models for each.
TASKS = {
    "causal_lm": ("gpt", "lstm"),
    "masked_lm": _ENCODERS,
    "seq2seq_lm": ("marian", "t5", "lstm"),
    "text_classifier": _ENCODERS,
    "span_qa": _ENCODERS,
    "text_embedder": _ENCODERS,
    "skip_gram": ("skip_gram",),
}
# What data must be prepared for, to be batched by a budget: the rest is packed without padding.
BUDGETED = ("seq2seq_lm", "text_classifier", "span_qa", "text_embedder")
PRECISIONS = ("float32", "bfloat16", "auto")


@dataclasses.dataclass(frozen=True)
class Optimizer:
    """AdamW and its learning rate.

    Attributes:
        peak_learning_rate: The rate at the end of the warm-up.
        warmup_steps: Steps of the linear warm-up.
        final_fraction: The last step's rate as a fraction of the peak, reached by a cosine.
        weight_decay: Decoupled decay of the matrices, multiplied by the rate at each step.
        beta_1: Decay of the mean of the gradients.
        beta_2: Decay of the mean of their squares.
        clip_norm: The largest norm of the whole gradient; 0 = no clipping.
        layer_decay: The rate of a layer as a fraction of that of the layer above it, see
            `tfllm.models.layer_scales`; 1 = the same for all.

    Raises:
        UserError: for a value of the wrong type or out of its range.
    """

    peak_learning_rate: float = 1e-3
    warmup_steps: int = 100
    final_fraction: float = 0.1
    weight_decay: float = 0.1
    beta_1: float = 0.9
    beta_2: float = 0.95
    clip_norm: float = 1.0
    layer_decay: float = 1.0

    def __post_init__(self):
        check_types(self)
        check(self, "peak_learning_rate", self.peak_learning_rate > 0, "above 0")
        check(self, "warmup_steps", self.warmup_steps >= 0, "at least 0")
        for name in ("final_fraction", "weight_decay"):
            check(self, name, 0 <= getattr(self, name) <= 1, "in [0, 1]")
        for name in ("beta_1", "beta_2"):
            check(self, name, 0 <= getattr(self, name) < 1, "in [0, 1)")
        check(self, "clip_norm", self.clip_norm >= 0, "at least 0 (0 = no clipping)")
        check(self, "layer_decay", 0 < self.layer_decay <= 1, "in (0, 1]")


@dataclasses.dataclass(frozen=True)
class Adaptation:
    """How little of a preset is trained; its task's head always is.

    Attributes:
        lora_rank: The rank of LoRA on the queries and values, see `tfllm.models.enable_lora`; the
            rest is frozen. 0 = no LoRA.
        lora_feed_forward: Whether LoRA is on the feed-forward networks too.
        freeze_layers: The first blocks that stay as they are.
        freeze_embeddings: Whether the embeddings stay as they are.

    Raises:
        UserError: for a value of the wrong type or out of its range.
    """

    lora_rank: int = 0
    lora_feed_forward: bool = False
    freeze_layers: int = 0
    freeze_embeddings: bool = False

    def __post_init__(self):
        check_types(self)
        for name in ("lora_rank", "freeze_layers"):
            check(self, name, getattr(self, name) >= 0, "at least 0")


@dataclasses.dataclass(frozen=True)
class Recipe:
    """One training run.

    Attributes:
        name: Of the run's folder, unless another is given.
        task: What is learned; one of `TASKS`.
        family: The kind of model, one of the task's; "" is its first. Not read with a preset.
        model: The arguments of the family's backbone. The vocabulary's size and the longest
            sequence come from the data and are not among them.
        preset: The folder of a model to start from, instead of a new one: its head too if it is of
            the same task.
        objective: The settings of the task's objective, see `tfllm.data.objectives`; `name` is
            which one where the task has several.
        data: The folder that `tfllm prepare` wrote.
        global_batch: Rows per step, over all replicas together. Not read with `batch_tokens`.
        batch_tokens: Instead of so many rows: positions of a step at most, padding included, over
            all replicas together; texts of like length are batched, see `tfllm.data.buckets`. For
            data of `BUDGETED`. 0 = `global_batch` rows.
        length_buckets: Lengths that batches are padded to with `batch_tokens`, at most.
        steps: Optimizer steps.
        optimizer: See `Optimizer`.
        microbatches: Equal parts of each replica's share of a step that are computed one after
            the other, for their memory.
        label_smoothing: Share of a target's probability that goes to all classes alike, in [0, 1).
        adaptation: See `Adaptation`.
        ema: The momentum of moving averages of the weights, such as 0.999, in [0, 1). They are
            validated and become the preset. 0 = no averages.
        patience: Validations in a row without a new lowest loss after which the run ends; the
            preset has the best weights. 0 = all steps, and the last weights.
        precision: "float32", or "bfloat16" for bfloat16 arithmetic on float32 weights; "auto" is
            the one that suits the machine where the run begins.
        seed: Decides the first weights, the order of the rows and the dropout.
        validate_every: Steps between two validations.
        validation_steps: The most batches of one validation; 0 = the whole validation split.
        checkpoint_every: Steps between two checkpoints.
        keep_checkpoints: How many of the newest checkpoints stay.
        sample_prompts: Prompts whose continuations TensorBoard shows at each validation.

    Raises:
        UserError: for a value of the wrong type or out of its range.
    """

    name: str
    task: str = "causal_lm"
    family: str = ""
    model: dict[str, Any] = dataclasses.field(default_factory=dict)
    preset: str = ""
    objective: dict[str, Any] = dataclasses.field(default_factory=dict)
    data: str = ""
    global_batch: int = 16
    batch_tokens: int = 0
    length_buckets: int = 16
    steps: int = 1000
    optimizer: Optimizer = dataclasses.field(default_factory=Optimizer)
    microbatches: int = 1
    label_smoothing: float = 0.0
    adaptation: Adaptation = dataclasses.field(default_factory=Adaptation)
    ema: float = 0.0
    patience: int = 0
    precision: str = "float32"
    seed: int = 0
    validate_every: int = 200
    validation_steps: int = 20
    checkpoint_every: int = 200
    keep_checkpoints: int = 2
    sample_prompts: tuple[str, ...] = ()

    def __post_init__(self):
        check_types(self)
        check(self, "name", self.name == Path(self.name).name != "", "the name of a folder")
        check(self, "task", self.task in TASKS, f"one of {', '.join(TASKS)}")
        families = TASKS[self.task]
        object.__setattr__(self, "family", self.family or families[0])
        check(self, "family", self.family in families, f"one of {', '.join(families)}")
        check(self, "seed", 0 <= self.seed < 2**32, "in [0, 2**32)")
        check(self, "precision", self.precision in PRECISIONS, f"one of {', '.join(PRECISIONS)}")
        for name in ("label_smoothing", "ema"):
            check(self, name, 0 <= getattr(self, name) < 1, "in [0, 1)")
        check(self, "batch_tokens", self.batch_tokens >= 0, "at least 0 (0 = global_batch rows)")
        check(self, "patience", self.patience >= 0, "at least 0 (0 = all steps)")
        for name in (
            "global_batch", "length_buckets", "microbatches", "steps", "validate_every",
            "checkpoint_every",
        ):  # fmt: skip
            check(self, name, getattr(self, name) >= 1, "at least 1")
        check(self, "keep_checkpoints", self.keep_checkpoints >= 1, "at least 1")
        check(self, "validation_steps", self.validation_steps >= 0, "at least 0 (0 = all)")

    def with_settings(self, settings: Iterable[str]) -> "Recipe":
        """A copy with some values replaced.

        Args:
            settings: As on the command line, such as "optimizer.peak_learning_rate=3e-4",
                "model.num_layers=2" or "sample_prompts=['Once', 'The']".

        Raises:
            UserError: for a name that does not exist (the nearest is offered) and for a value of
                the wrong type or out of its range.
        """
        recipe = self
        for setting in settings:
            recipe = with_setting(recipe, setting)
        return recipe

    @classmethod
    def from_json(cls, text: str) -> "Recipe":
        """The recipe of a recipe.json.

        Raises:
            UserError: if it is no JSON, or no recipe.
        """
        try:
            values = json.loads(text)
        except json.JSONDecodeError as error:
            raise UserError(f"A recipe must be JSON: {error}.") from None
        return from_dict(cls, values)


def recipe_names() -> list[str]:
    """The recipes that come with the package."""
    return sorted(module.name for module in pkgutil.iter_modules(recipes.__path__))


def load_recipe(name: str) -> Recipe:
    """A recipe by the name of one in the package, or by the path of a .py or .json file.

    Raises:
        UserError: for an unknown name (the nearest is offered), a missing file, a JSON file
            that cannot be read, or a Python file without a function `recipe()` that returns a
            `Recipe`.
    """
    path = Path(name)
    if path.suffix not in (".py", ".json"):
        check_name(name, recipe_names(), "the recipes")
        return importlib.import_module(f"{recipes.__name__}.{name}").recipe()
    if not path.is_file():
        raise UserError(f"No recipe at {path}. The package has {', '.join(recipe_names())}.")
    if path.suffix == ".json":
        try:
            text = path.read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            raise UserError(f"The recipe {path} cannot be read as UTF-8: {error}.") from error
        return Recipe.from_json(text)
    function = runpy.run_path(str(path)).get("recipe")
    made = function() if callable(function) else None
    if not isinstance(made, Recipe):
        raise UserError(f"{path} must have a function recipe() that returns a Recipe.")
    return made
