"""What each task is trained on, which models can do it, and how they are made."""

import dataclasses
import inspect
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import keras

from tfllm import models
from tfllm.data import Records
from tfllm.data.objectives import make_objective
from tfllm.errors import UserError
from tfllm.models import Task
from tfllm.trainers.recipe import Recipe
from tfllm.trainers.settings import check_name

_POLICIES = {"float32": "float32", "bfloat16": "mixed_bfloat16"}


class Family(NamedTuple):
    """A kind of model for a task.

    Attributes:
        task: The class of the whole.
        backbone: The class whose arguments a recipe's `model` gives.
        preprocessor: Makes its inputs.
    """

    task: Callable[..., Task]
    backbone: type
    preprocessor: type


class Training(NamedTuple):
    """What a task is trained on, and by which models.

    Attributes:
        task: The class that loads a preset.
        families: By name.
        objectives: The objective for data prepared for each of these tasks; the first of several
            unless the recipe's `objective` names another.
        settings: From the recipe and the data to the settings of the objective that they decide.
        arguments: From them to arguments of the task's class.
        metrics: New Keras metrics beside the loss.
    """

    task: type[Task]
    families: Mapping[str, Family]
    objectives: Mapping[str, tuple[str, ...]]
    settings: Callable[[Recipe, Records], dict[str, Any]] = lambda *_: {}
    arguments: Callable[[Recipe, Records], dict[str, Any]] = lambda *_: {}
    metrics: Callable[[], list[keras.metrics.Metric]] = list


def _of(task) -> Family:
    return Family(task, task.backbone_cls, task.preprocessor_cls)


def _encoders(task) -> dict[str, Family]:
    return {
        "bert": Family(task, models.BertBackbone, models.EncoderPreprocessor),
        "lstm": Family(task, models.LSTMEncoderBackbone, models.EncoderPreprocessor),
    }


def _labels(_, records: Records) -> dict[str, Any]:
    found = {split: records.meta["splits"][split]["labels"] for split in ("train", "validation")}
    if strangers := sorted(found["validation"].keys() - found["train"].keys()):
        raise UserError(
            f"The held-out examples have labels that the training ones have not: "
            f"{', '.join(strangers)}. Prepare more data or with another validation_fraction, or "
            "leave them out."
        )
    if len(found["train"]) < 2:
        raise UserError(
            f"A classifier needs examples of two labels at least, {records.folder} has only "
            f"{', '.join(found['train'])}."
        )
    return {"labels": found["train"]}


def _pair_head(recipe: Recipe, _) -> dict[str, Any]:
    return {"next_sentence": recipe.objective.get("pair", "none") != "none"}


class Accuracy(keras.metrics.SparseCategoricalAccuracy):
    """Of the examples that have a weight, each counted once: class weights are the loss's."""

    def update_state(self, y_true, y_pred, sample_weight=None):
        counted = None if sample_weight is None else keras.ops.sign(sample_weight)
        return super().update_state(y_true, y_pred, counted)


def _accuracy() -> list[keras.metrics.Metric]:
    return [Accuracy(name="accuracy")]


TRAININGS: dict[str, Training] = {
    "causal_lm": Training(
        models.CausalLM,
        {"gpt": _of(models.GPTCausalLM), "lstm": _of(models.LSTMCausalLM)},
        dict.fromkeys(("causal_lm", "completion", "chat"), ("next_token",)),
    ),
    "masked_lm": Training(
        models.MaskedLM,
        _encoders(models.MaskedLM),
        {"masked_lm": ("masked_lm",)},
        arguments=_pair_head,
    ),
    "seq2seq_lm": Training(
        models.Seq2SeqLM,
        {
            "marian": _of(models.MarianSeq2SeqLM),
            "t5": _of(models.T5Seq2SeqLM),
            "lstm": _of(models.LSTMSeq2SeqLM),
        },
        {"seq2seq_lm": ("pairs",), "denoising": ("span_corruption", "prefix_lm")},
    ),
    "text_classifier": Training(
        models.TextClassifier,
        _encoders(models.TextClassifier),
        {"text_classifier": ("labels",)},
        settings=_labels,
        arguments=lambda recipe, records: {
            "labels": list(_labels(recipe, records)["labels"]),
            "problem_type": "single_label_classification",  # whatever that of the preset is
        },
        metrics=_accuracy,
    ),
    "span_qa": Training(models.SpanQA, _encoders(models.SpanQA), {"span_qa": ("answer_spans",)}),
    "text_embedder": Training(
        models.TextEmbedder,
        _encoders(models.TextEmbedder),
        {"text_embedder": ("text_pairs",)},
        settings=lambda _, records: {"scored": records.meta["splits"]["train"]["scored"] > 0},
    ),
    "skip_gram": Training(
        models.SkipGram,
        {"skip_gram": _of(models.SkipGram)},
        {"skip_gram": ("skip_gram",)},
    ),
}


def objective_of(recipe: Recipe, records: Records):
    """The objective of a recipe on prepared data.

    Raises:
        UserError: the data were prepared for another task, or a setting is none.
    """
    training = TRAININGS[recipe.task]
    if records.task not in training.objectives:
        raise UserError(
            f"A recipe of the task {recipe.task} needs data of `tfllm prepare --task "
            f"{' or '.join(training.objectives)}`; {records.folder} has {records.task}."
        )
    names = training.objectives[records.task]
    given = dict(recipe.objective)
    name = given.pop("name", names[0])
    if name not in names:
        raise UserError(
            f"The objective of {recipe.task} on data of {records.task} must be "
            f"{' or '.join(names)}; got {name!r}."
        )
    tokenizer = None if records.meta["tokenizer"] is None else records.tokenizer
    return make_objective(name, training.settings(recipe, records) | given, tokenizer)


def begun_alike(objective, model: Task):
    """The objective whose decoder reads first what that of the model does.

    A start that the objective's settings name becomes that of the model.

    Raises:
        UserError: it is no token of the model.
    """
    if not hasattr(objective, "decoder_start_token_id"):
        return objective
    preprocessor: Any = model.preprocessor
    start = objective.decoder_start_token_id
    if start is None:
        return dataclasses.replace(objective, decoder_start_token_id=preprocessor.start_id)
    if not 0 <= start < model.backbone.vocabulary_size:
        raise UserError(
            f"decoder_start_token_id must be a token of the model, from 0 to "
            f"{model.backbone.vocabulary_size - 1}: got {start}."
        )
    preprocessor.decoder_start_token_id = start
    return objective


def make_model(recipe: Recipe, records: Records) -> Task:
    """The model that a run begins with: new, or of the recipe's preset.

    Raises:
        UserError: the recipe's model cannot be made, or does not fit the data.
    """
    training = TRAININGS[recipe.task]
    arguments = training.arguments(recipe, records) | {"seed": recipe.seed}
    if recipe.preset:
        model = _from_preset(training, recipe, records, arguments)
    else:
        model = _new(training, recipe, records, arguments)
    if not _lengths(training, records):
        return model
    longest = model.backbone.max_sequence_length
    if records.sequence_length > longest:
        raise UserError(
            f"The model takes {longest} tokens, the rows of {records.folder} have "
            f"{records.sequence_length}: prepare with --sequence-length {longest}."
        )
    return model


def _new(training: Training, recipe: Recipe, records: Records, arguments) -> Task:
    family = training.families[recipe.family]
    given = {
        "vocabulary_size": records.tokenizer.vocabulary_size(),
        "max_sequence_length": records.sequence_length,
        "dtype": _POLICIES[recipe.precision],
    }
    parameters = inspect.signature(family.backbone).parameters.values()
    names = [p.name for p in parameters if p.kind != p.VAR_KEYWORD]
    if "source_vocabulary_size" in names:
        source = records.tokenizer.source_vocabulary_size()
        own = source != given["vocabulary_size"]
        given["source_vocabulary_size"] = source if own else None
    known = [name for name in names if name not in given]
    given = {name: value for name, value in given.items() if name in names}
    for name in recipe.model:
        check_name(name, known, f"the model of a recipe of the family {recipe.family}")
    try:
        backbone = family.backbone(**given, **recipe.model)
    except (TypeError, ValueError, ArithmeticError) as error:  # missing, or out of its range
        raise UserError(f"The recipe's model cannot be made: {error}") from error
    preprocessor = family.preprocessor(records.tokenizer, **_lengths(training, records))
    return family.task(backbone=backbone, preprocessor=preprocessor, **arguments)


def _lengths(training: Training, records: Records) -> dict[str, int]:
    """The arguments of the preprocessor that say how long a row is."""
    length = records.sequence_length
    if issubclass(training.task, models.SkipGram):
        return {}  # it reads windows, however long a row is
    if issubclass(training.task, models.Seq2SeqLM):
        return {"encoder_sequence_length": length, "decoder_sequence_length": length}
    return {"sequence_length": length}


def _from_preset(training: Training, recipe: Recipe, records: Records, arguments) -> Task:
    if recipe.model:
        raise UserError(
            "A recipe with a preset has the preset's model: leave `model` out, got "
            f"{', '.join(recipe.model)}."
        )
    model = training.task.from_preset(recipe.preset, dtype=_POLICIES[recipe.precision], **arguments)
    for name, length in _lengths(training, records).items():
        setattr(model.preprocessor, name, length)
    if records.meta["tokenizer"] is not None:
        _require_same_tokenizer(model.preprocessor.tokenizer, records, recipe.preset)
        if records.task == "chat":  # the template that the rows were written with
            model.preprocessor.tokenizer.chat_template = records.tokenizer.chat_template
    return model


def _require_same_tokenizer(tokenizer, records: Records, preset: str) -> None:
    # Equal numbers for other tokens would train on nonsense without any error.
    theirs = records.tokenizer
    if (
        type(theirs) is not type(tokenizer)
        or theirs.get_vocabulary() != tokenizer.get_vocabulary()
        or theirs.source_vocabulary_size() != tokenizer.source_vocabulary_size()
    ):
        raise UserError(
            f"{records.folder} was prepared with another tokenizer than that of the preset: "
            f"prepare it with --tokenizer {Path(preset)}."
        )
