"""A training run from a recipe to a preset: `fit`, read top to bottom."""

import dataclasses
import json
import os
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

import keras
import numpy as np
import tensorflow as tf

from tfllm.aside import make_folder
from tfllm.data import Records
from tfllm.errors import UserError
from tfllm.models.one_program import JitCompile
from tfllm.trainers import callbacks as own
from tfllm.trainers import run_folder
from tfllm.trainers.averaging import use_averages
from tfllm.trainers.checkpoints import Checkpoints
from tfllm.trainers.compiled import compiled_model, schedule_of
from tfllm.trainers.devices import peak_flops
from tfllm.trainers.early_stopping import BestWeights
from tfllm.trainers.feed import Kind, are_token_ids, make_feed, standing_for_all
from tfllm.trainers.flops import model_flops
from tfllm.trainers.hyperparameters import write_recipe, write_result
from tfllm.trainers.laps import Lap, Laps, Waiting
from tfllm.trainers.monitor import Compute, Monitor, steps_done
from tfllm.trainers.precision import with_precision
from tfllm.trainers.profiling import Profile
from tfllm.trainers.recipe import Recipe
from tfllm.trainers.strategy import make_strategy
from tfllm.trainers.tasks import begun_alike, objective_of
from tfllm.trainers.validation import Validation
from tfllm.trainers.watch import Watch
from tfllm.trainers.workers import Workers
from tfllm.trainers.writing import Writer


class Result(NamedTuple):
    """What a run came to.

    Attributes:
        run: The run's folder.
        preset: The trained model, for `tfllm.from_preset`.
        tensorboard: The folder to look at with TensorBoard.
        steps: Optimizer steps.
        best_step: That of the weights of the preset: the best ones with the recipe's `patience`,
            else the last.
        validation_loss: The loss on the whole validation split, for language models the mean
            cross-entropy per target in nats; None if nothing is held out.
        bits_per_byte: The same per byte of text, in bits; None for other tasks than causal_lm.
        metrics: All that was measured on the validation split, by name.
        tokens_per_second: Trained on per second in the last process of the run, padding left out
            where it is known: in packed rows and with `batch_tokens`.
    """

    run: str
    preset: str
    tensorboard: str
    steps: int
    best_step: int
    validation_loss: float | None
    bits_per_byte: float | None
    metrics: dict[str, float]
    tokens_per_second: float


def fit(
    recipe: Recipe,
    *,
    data: str | os.PathLike[str] | None = None,
    run: str | os.PathLike[str] | None = None,
    tensorboard: str | os.PathLike[str] | None = None,
    strategy: str = "auto",
    jit_compile: JitCompile = "auto",
    accept_changes: bool = False,
    callbacks: Iterable[keras.callbacks.Callback] = (),
    watch: Watch | None = None,
) -> Result:
    """Trains a model by a recipe, going on where an earlier process of the same run ended.

    A run that was killed and goes on ends with the weights, to the bit, of one that was not. On
    SIGTERM and SIGINT the step is finished and saved, and the process exits with 143 and 130, as a
    shell reports a process that they ended. The global seeds of Python, NumPy and TensorFlow are
    set to the recipe's.

    Args:
        recipe: What to train, on what and how long.
        data: Instead of the recipe's own.
        run: The run's folder; `runs/NAME` by default.
        tensorboard: Where TensorBoard's files go; `tensorboard_logs/` and the name of the run's
            folder by default.
        strategy: See `make_strategy`.
        jit_compile: Whether XLA compiles the training step as a whole; "auto" does it on GPUs. A
            TPU compiles it in any case. Texts are then padded to one length, and dropout draws
            other random numbers.
        accept_changes: Whether a run that was begun by another recipe may go on by this one, where
            it has the same variables; changes.json in its folder says what changed after which
            step.
        callbacks: Called after the run's own ones. Of several workers each calls them; they must
            not stop one alone.
        watch: What is looked at beside the usual numbers; None = nothing.

    Raises:
        UserError: if the recipe, the data, the strategy and the run's folder do not fit together,
            or another process trains in that folder.
        Failure: if the loss or the gradient is no longer a finite number, if no checkpoint can be
            read, if the last one cannot be written, or if another worker of the run is gone.
        SystemExit: after a SIGTERM or a SIGINT.
    """
    recipe = dataclasses.replace(recipe, data=str(data)) if data else recipe
    run = Path(run or Path("runs") / recipe.name)
    tensorboard = Path(tensorboard or Path("tensorboard_logs") / run.name)

    distribution = make_strategy(strategy)
    workers = Workers(distribution)
    precision = workers.chiefs(with_precision(recipe, run).precision)
    recipe = dataclasses.replace(recipe, precision=precision)
    records = _records(recipe, distribution.num_replicas_in_sync)
    watch = watch or Watch()

    with (
        workers.loss_told(),
        workers.folders(run, tensorboard) as (run, tensorboard),
        run_folder.open_run(run, recipe, records.meta, accept_changes=accept_changes),
    ):
        result = _train(recipe, records, workers, run, tensorboard, callbacks, watch, jit_compile)
        return Result(*workers.chiefs(result))


def _train(  # noqa: PLR0913
    recipe, records, workers, run, tensorboard, callbacks, watch, jit_compile
):
    """Goes on to the end of a run that this process has open. Only the chief's result counts."""
    # Where the weights come from, the first that there is:
    # 1. the finished run, 2. its newest checkpoint that can be read, 3. the recipe's seed.
    if workers.chiefs((run / run_folder.PRESET).exists()):
        print(f"{run} is finished: nothing to do. Another --run trains again.", file=sys.stderr)
        return _result(run, tensorboard) if workers.is_chief else None
    make_folder(tensorboard)
    keras.utils.set_random_seed(recipe.seed)
    schedule = schedule_of(recipe)
    distribution = workers.strategy
    objective = objective_of(recipe, records)
    with distribution.scope():
        model = compiled_model(recipe, records, schedule, jit_compile)
        _require_writer(recipe, model)
    objective = begun_alike(objective, model)
    checkpoints = Checkpoints(run / run_folder.CHECKPOINTS, model, recipe.keep_checkpoints)
    start = workers.chiefs(checkpoints.restore())
    if start:
        workers.take_state([*model.variables, *model.optimizer.variables])

    held_out = records.num_rows("validation") > 0
    writer = Writer()
    best = _best(recipe, held_out, model, checkpoints, run / run_folder.BEST, writer)
    replicas = distribution.num_replicas_in_sync
    feed = make_feed(recipe, records, objective, model, replicas)
    validation = Validation(records, objective, recipe.global_batch, feed)
    compute, of_peak = utilisation_of(recipe, model, feed, replicas)
    if workers.is_chief:
        _announce(recipe, records, model, feed, replicas, start, run, tensorboard)
        print(of_peak, file=sys.stderr)
    write_recipe(tensorboard, recipe)
    batches = feed.train(start, recipe.steps - start)
    laps, waiting = Laps(), Waiting()
    monitor = Monitor(recipe, validation, feed, schedule, tensorboard, run, compute, laps, waiting)
    validate = own.Validate(recipe, validation, tensorboard, best, monitor, watch)
    with own.StopOnSignal(workers) as signals, writer:
        if start < recipe.steps and not workers.chiefs(best is not None and best.is_over(start)):
            model.fit(
                waiting.measured(batches),
                shuffle=False,
                verbose=0,
                callbacks=[
                    monitor,
                    own.StopOnNaN(),
                    *([validate, Lap(laps, "validation")] if held_out else []),
                    signals,
                    own.SaveCheckpoints(checkpoints, recipe, writer),
                    Lap(laps, "checkpoint"),
                    *([Profile(*watch.profile, tensorboard)] if watch.profile else []),
                    *callbacks,
                ],
            )
    done = steps_done(model)
    if signals.asked and done < recipe.steps:
        print(f"Stopped after step {done:,}; the same call goes on from there.", file=sys.stderr)
        raise SystemExit(128 + signals.asked)

    if best and best.is_over(done):
        print(
            f"Ended after step {done:,}: no validation after step {best.step(done):,} was better.",
            file=sys.stderr,
        )
    use_averages(model)  # as `fit` did, if there were steps left
    best_step = best.restore(done) if best else done
    workers.take_state(model.variables)
    reached = validation.measure(model) if held_out else {}
    numbers = {
        "steps": done,
        "best_step": best_step,
        "validation_loss": reached.get("loss"),
        "bits_per_byte": reached.get("bits_per_byte"),
        "metrics": reached,
        "tokens_per_second": monitor.tokens_per_second,
    }
    run_folder.write_json(run / run_folder.RESULT, numbers)
    write_result(tensorboard, done, reached)
    model.save_to_preset(str(run / run_folder.PRESET))  # last: a run with a preset is finished
    return _result(run, tensorboard)


def _records(recipe: Recipe, replicas: int) -> Records:
    if not recipe.batch_tokens and recipe.global_batch % (replicas * recipe.microbatches):
        parts = f" times {recipe.microbatches} microbatches" if recipe.microbatches > 1 else ""
        raise UserError(
            f"global_batch must be a multiple of the {replicas} replicas{parts}: got "
            f"{recipe.global_batch}."
        )
    if not recipe.data:
        raise UserError("No data: give the folder that `tfllm prepare` wrote (--data).")
    records = Records(recipe.data)
    if not records.num_rows("train"):
        raise UserError(f"{recipe.data} has no train rows: prepare more text.")
    return records


def _result(run: Path, tensorboard: Path) -> Result:
    numbers = json.loads((run / run_folder.RESULT).read_text())
    preset = run / run_folder.PRESET
    return Result(run=str(run), preset=str(preset), tensorboard=str(tensorboard), **numbers)


def _best(recipe: Recipe, held_out: bool, model, checkpoints, folder, writer) -> BestWeights | None:
    if not recipe.patience:
        return None
    if not held_out:
        raise UserError(
            f"patience needs validations, and {recipe.data} has no validation rows: prepare it "
            "with some text held out."
        )
    return BestWeights(folder, model, checkpoints, recipe.patience, writer)


def _require_writer(recipe: Recipe, model) -> None:
    if recipe.sample_prompts and not hasattr(model, "generate"):
        raise UserError(
            f"sample_prompts are for models that write: a {type(model).__name__} does not."
        )


def utilisation_of(recipe, model, feed, replicas) -> tuple[Compute, str]:
    """What a run's utilisation is computed from, and what to say of it."""
    flops = _flops_of_kinds(model, feed.kinds())
    if flops is None:
        return Compute(None, None), "The rows have no fixed length: no utilisation is measured."
    peak = peak_flops(recipe.precision)
    if peak is None:
        return Compute(flops, None), "This accelerator's peak is not known: no utilisation."
    # Logical CPUs share the one that was measured.
    shared = len(tf.config.list_logical_devices("CPU")) if peak.is_shared else 1
    devices = max(1, replicas // shared)
    least, most = (f"{of(flops) / 1e9:,.4g}" for of in (min, max))
    said = (
        f"{least}{'' if least == most else f' to {most}'} GFLOP per step; utilisation is of "
        f"{devices} x {peak.flops / 1e9:,.4g} GFLOP/s ({peak.source})."
    )
    return Compute(flops, devices * peak.flops), said


def _flops_of_kinds(model, kinds: list[Kind]) -> list[int] | None:
    """Those of the kind that stands for each, by its positions; None if that is not known."""
    standing = standing_for_all(kinds)
    found = {}
    for i in set(standing):
        x, y, _ = kinds[i].batch
        flops = model_flops(model, x, y) if are_token_ids(x) else None
        if flops is None:
            return None
        found[i] = flops / kinds[i].positions()
    return [round(found[i] * kind.positions()) for i, kind in zip(standing, kinds, strict=True)]


def _announce(recipe, records, model, feed, replicas, start, run, tensorboard):  # noqa: PLR0913
    """Says what will happen, in numbers."""
    weights = sum(int(np.prod(weight.shape)) for weight in model.trainable_weights)
    device = tf.config.list_logical_devices()[-1].device_type  # CPUs are listed first
    print(
        f"{recipe.name}: {weights:,} weights, {recipe.precision}, on {replicas} x {device}"
        f"{', each step compiled by XLA' if model.is_one_program else ''}.\n"
        f"{feed.described()}\n"
        f"Writes {run} (a checkpoint every {recipe.checkpoint_every} steps) and {tensorboard}."
        + (f"\nGoes on after step {start:,}." if start else "")
        + (
            "" if records.num_rows("validation") else "\nNo text is held out: nothing is validated."
        ),
        file=sys.stderr,
    )
