"""The model of a recipe, ready to train, and its whole steps as functions that XLA compiles."""

from collections.abc import Callable, Iterator
from typing import Any

import keras
import tensorflow as tf

from tfllm.data import Records
from tfllm.models.one_program import JitCompile
from tfllm.optimizers import AdamW
from tfllm.trainers.adapting import adapt, scales
from tfllm.trainers.feed import make_feed
from tfllm.trainers.recipe import Recipe
from tfllm.trainers.schedules import WarmupCosine
from tfllm.trainers.tasks import TRAININGS, begun_alike, make_model, objective_of


def compiled_model(
    recipe: Recipe,
    records: Records,
    schedule: WarmupCosine,
    jit_compile: JitCompile = "auto",
) -> Any:
    """The model of a recipe, compiled with its built optimizer.

    Where XLA compiles its whole step, texts are padded to one length, or to those of the recipe's
    buckets: it would compile every new one anew.

    Args:
        recipe: What to train.
        records: On what.
        schedule: The learning rate.
        jit_compile: As of `Task.compile`.

    Raises:
        UserError: they do not fit together.
    """
    model: Any = adapt(make_model(recipe, records), recipe)
    settings = recipe.optimizer
    optimizer = AdamW(
        schedule,
        weight_decay=settings.weight_decay,
        beta_1=settings.beta_1,
        beta_2=settings.beta_2,
        global_clipnorm=settings.clip_norm or None,
        scales=scales(model, recipe),
        use_ema=recipe.ema > 0,
        ema_momentum=recipe.ema,
    )
    model.compile(
        optimizer,
        weighted_metrics=TRAININGS[recipe.task].metrics() or None,
        microbatches=recipe.microbatches,
        label_smoothing=recipe.label_smoothing,
        jit_compile=jit_compile,
    )
    if model.is_one_program and hasattr(model.preprocessor, "padding"):
        model.preprocessor.padding = "max_length"
    model.step_per_shape = model.is_one_program and recipe.batch_tokens > 0
    model.optimizer.build(model.trainable_variables)
    return model


def schedule_of(recipe: Recipe) -> WarmupCosine:
    """The learning rate of a recipe."""
    settings = recipe.optimizer
    return WarmupCosine(
        settings.peak_learning_rate, settings.warmup_steps, recipe.steps, settings.final_fraction
    )


def whole_steps(
    recipe: Recipe, records: Records
) -> Iterator[tuple[str, Callable, list[tf.Tensor]]]:
    """Steps of `fit` as a TPU or GPU runs them: forward, backward, clipping, update in one program.

    There is one for each shape of the recipe's batches: one, or one for each of its buckets.

    Args:
        recipe: What to train.
        records: On what.

    Yields:
        The shape of the token ids, as "16x64" (of an encoder and a decoder "16x64-16x32"); a
        `tf.function` that XLA compiles; and the tensors of a batch to call it with.

    Raises:
        UserError: as of `compiled_model` and `BucketFeed`.
    """
    keras.utils.set_random_seed(recipe.seed)
    model = compiled_model(recipe, records, schedule_of(recipe), jit_compile=True)
    objective = begun_alike(objective_of(recipe, records), model)
    feed = make_feed(recipe, records, objective, model, replicas=1)
    batches = [model.preprocess_samples(*batch) for batch in feed.one_of_each()]
    # Keras makes its metrics in the first step.
    model.evaluate(tf.data.Dataset.from_tensors(batches[0]), verbose=0)
    for batch in batches:
        shapes = (ids.shape for name, ids in batch[0].items() if name.endswith("token_ids"))
        name = "-".join("x".join(map(str, shape)) for shape in shapes)
        yield name, *_one_program(model, batch)


def _one_program(model, batch) -> tuple[Callable, list[tf.Tensor]]:
    tensors = [tensor for tensor in tf.nest.flatten(batch) if tensor is not None]

    @tf.function(jit_compile=True, autograph=False)
    def step(*tensors):
        given = iter(tensors)
        return model.train_step(
            tf.nest.map_structure(lambda t: t if t is None else next(given), batch)
        )

    return step, tensors
