"""Every task from its data to a preset that answers, on one device and on two replicas alike."""

import dataclasses
import math

import pytest

import tfllm
from tfllm.data import Records, prepare
from tfllm.errors import UserError
from tfllm.trainers import Optimizer, Recipe
from tfllm.trainers.recipe import TASKS
from tfllm.trainers.tasks import TRAININGS, Accuracy, begun_alike, make_model, objective_of

TRANSFORMER = {"num_layers": 1, "num_heads": 2, "hidden_dim": 16, "intermediate_dim": 24}
LSTM = {"num_layers": 1, "hidden_dim": 16}
TINY = {
    "gpt": {"num_layers": 1, "num_heads": 2, "hidden_dim": 16},
    "bert": TRANSFORMER,
    "marian": TRANSFORMER,
    "t5": TRANSFORMER,
    "lstm": LSTM,
}


def recipe_for(task, family, folder, **changes):
    return Recipe(
        name="tiny",
        task=task,
        family=family,
        model=TINY[family],
        data=str(folder),
        global_batch=4,
        steps=3,
        optimizer=Optimizer(peak_learning_rate=1e-2, warmup_steps=1),
        validate_every=3,
        checkpoint_every=3,
        **changes,
    )


def answers(model):
    """What the model says, by its own call."""
    if hasattr(model, "generate"):
        return model.generate("the cat", max_new_tokens=4).text
    calls = {
        "TextClassifier": lambda: model.classify("the cat").label,
        "MaskedLM": lambda: model.fill_mask("the [MASK] sleeps.").token[0],
        "SpanQA": lambda: model.answer("who the", "the cat sleeps.").answer,
        "TextEmbedder": lambda: len(model.embed("the cat").embedding),
    }
    return calls[type(model).__name__]()


# Task, family, what the data were prepared for, settings of the objective: each objective once.
OBJECTIVES = [
    ("causal_lm", "gpt", "completion", {}),
    ("masked_lm", "bert", "masked_lm", {"pair": "next_sentence", "whole_words": True}),
    ("seq2seq_lm", "marian", "seq2seq_lm", {"drop": 0.1, "shuffle": 2}),
    ("seq2seq_lm", "t5", "denoising", {}),
    ("seq2seq_lm", "t5", "denoising", {"name": "prefix_lm"}),
    ("text_classifier", "bert", "text_classifier", {"class_weights": "balanced"}),
    ("span_qa", "bert", "span_qa", {}),
    ("text_embedder", "bert", "text_embedder", {}),
]
# Those of the LSTM that no recipe of the package trains.
RECURRENT = [
    ("span_qa", "lstm", "span_qa", {}),
    ("text_embedder", "lstm", "text_embedder", {}),
]


def test_the_families_of_recipes_are_those_that_can_be_made():
    assert {task: tuple(training.families) for task, training in TRAININGS.items()} == TASKS


@pytest.mark.parametrize(("task", "family", "kind", "objective"), OBJECTIVES)
def test_an_objective_has_the_same_loss_curve_on_two_replicas(
    data, train, task, family, kind, objective
):
    recipe = recipe_for(task, family, data[kind], objective=objective)
    result, losses = train(recipe, "one", strategy="one")
    _, on_two = train(recipe, "two", strategy="mirrored")
    assert on_two == pytest.approx(losses, rel=1e-5)
    assert len(losses) == 3
    assert math.isfinite(result.validation_loss)
    assert answers(tfllm.from_preset(result.preset)) is not None


@pytest.mark.parametrize(("task", "family", "kind", "objective"), RECURRENT)
def test_every_task_has_its_recurrent_baseline(data, train, task, family, kind, objective):
    recipe = recipe_for(task, family, data[kind], objective=objective)
    result, losses = train(recipe, strategy="one")
    assert len(losses) == 3
    assert math.isfinite(result.validation_loss)
    assert answers(tfllm.from_preset(result.preset)) is not None


def test_metrics_of_the_task_are_measured_on_what_is_held_out(data, train):
    expected = {
        "text_classifier": {"loss", "accuracy"},
        "seq2seq_lm": {"loss", "perplexity"},
    }
    for task, family in (("text_classifier", "bert"), ("seq2seq_lm", "marian")):
        recipe = recipe_for(task, family, data[task])
        result, _ = train(recipe, task, strategy="one")
        assert set(result.metrics) == expected[task]
    assert result.metrics["perplexity"] == pytest.approx(math.exp(result.metrics["loss"]))


def test_a_preset_of_another_task_gives_its_backbone_and_its_tokenizer(data, train):
    masked, _ = train(recipe_for("masked_lm", "bert", data["masked_lm"]), "masked")
    recipe = dataclasses.replace(
        recipe_for("text_classifier", "bert", data["text_classifier"]), model={}
    )
    with pytest.raises(UserError, match="was prepared with another tokenizer than that of the pr"):
        train(dataclasses.replace(recipe, preset=masked.preset), "refused")
    path = data["text_classifier"].parent / "text_classifier.jsonl"
    folder = data["text_classifier"].parent / "without_tokenizer"
    prepare(path, folder, task="text_classifier", sequence_length=24)
    result, _ = train(
        dataclasses.replace(recipe, preset=masked.preset, data=str(folder), steps=1), "classifier"
    )
    model = tfllm.from_preset(result.preset)
    assert model.labels == ["glad", "neither", "sad"]
    assert model.preprocessor.sequence_length == 24
    before = tfllm.from_preset(masked.preset).preprocessor.tokenizer.get_vocabulary()
    assert model.preprocessor.tokenizer.get_vocabulary() == before


def test_class_weights_are_those_of_the_labels(data):
    recipe = recipe_for("text_classifier", "bert", data["text_classifier"])
    records = Records(data["text_classifier"])
    counts = records.meta["splits"]["train"]["labels"]
    total = sum(counts.values())
    for objective, expected in [
        ({}, {name: 1.0 for name in counts}),
        ({"class_weights": "balanced"}, {n: total / 3 / c for n, c in counts.items()}),
        ({"class_weights": {"sad": 3}}, {name: 3.0 if name == "sad" else 1.0 for name in counts}),
    ]:
        made = objective_of(dataclasses.replace(recipe, objective=objective), records)
        found = {}
        for x, y, weight in records.batches("train", 4, made, num_steps=10):
            for label, value in zip(y.numpy(), weight.numpy(), strict=True):
                found[list(counts)[label]] = value
            assert x[0].shape == (4,)
        assert found == pytest.approx(expected)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"task": "span_qa"}, "needs data of `tfllm prepare --task span_qa`; .* has text_classif"),
        ({"objective": {"name": "pairs"}}, "must be labels; got 'pairs'"),
        ({"objective": {"class_weight": 1}}, "did you mean 'class_weights'"),
        ({"objective": {"class_weights": {"x": 1}}}, "class_weights has no label 'x'; there are"),
        ({"objective": {"class_weights": {"sad": 0}}}, "weight of 'sad' must be above 0, got 0"),
        ({"objective": {"class_weights": "even"}}, 'must be "balanced" or a dict, got'),
        ({"sample_prompts": ("a",)}, "sample_prompts are for models that write: a TextClassifier"),
        ({"preset": "nowhere"}, "has the preset's model: leave `model` out"),
        ({"global_batch": 6, "microbatches": 4}, "multiple of the 1 replicas times 4 microbatches"),
    ],
)
def test_a_recipe_that_does_not_fit_its_data_is_refused(data, train, changes, words):
    recipe = recipe_for("text_classifier", "bert", data["text_classifier"])
    with pytest.raises(UserError, match=words):
        train(dataclasses.replace(recipe, **changes), strategy="one")


def test_data_without_a_tokenizer_need_a_preset(data, train, tmp_path):
    path = data["text_classifier"].parent / "text_classifier.jsonl"
    prepare(path, tmp_path / "data", task="text_classifier")
    with pytest.raises(UserError, match="has no tokenizer: prepare the data again with one"):
        train(recipe_for("text_classifier", "bert", tmp_path / "data"))


def test_a_decoder_begins_in_training_as_it_does_when_it_writes(data, tmp_path):
    records = Records(data["seq2seq_lm"])
    recipe = recipe_for("seq2seq_lm", "marian", data["seq2seq_lm"])
    named = dataclasses.replace(recipe, objective={"decoder_start_token_id": 5})
    begun = {}
    for name, made in (("plain", recipe), ("named", named)):
        model = make_model(made, records)
        objective = begun_alike(objective_of(made, records), model)
        begun[name] = objective.decoder_start_token_id, model.preprocessor.start_id
    assert begun == {"plain": (records.tokenizer.padding_id,) * 2, "named": (5, 5)}
    model.save_to_preset(tmp_path / "preset")
    recipe = dataclasses.replace(recipe, model={}, preset=str(tmp_path / "preset"))
    model = make_model(recipe, records)
    assert begun_alike(objective_of(recipe, records), model).decoder_start_token_id == 5
    wrong = dataclasses.replace(recipe, objective={"decoder_start_token_id": 10**6})
    with pytest.raises(UserError, match="must be a token of the model, from 0 to"):
        begun_alike(objective_of(wrong, records), model)


def test_a_preset_without_a_chat_template_gets_that_of_the_data(data, tmp_path):
    records = Records(data["chat"])
    recipe = recipe_for("causal_lm", "gpt", data["chat"])
    model = make_model(recipe, records)
    model.preprocessor.tokenizer.chat_template = None
    model.save_to_preset(tmp_path / "preset")
    recipe = dataclasses.replace(recipe, model={}, preset=str(tmp_path / "preset"))
    records = Records(data["chat"])  # the model above had the very tokenizer of the other one
    template = make_model(recipe, records).chat_template()
    assert template.as_dict() == records.tokenizer.chat_template.as_dict()


def test_a_class_weight_does_not_count_an_example_twice():
    accuracy = Accuracy()
    accuracy.update_state([0, 1, 1], [[1.0, 0.0], [1.0, 0.0], [1.0, 0.0]], [5.0, 0.5, 0.0])
    assert float(accuracy.result()) == 0.5


def test_one_label_is_nothing_to_learn(tmp_path):
    (tmp_path / "one.csv").write_text("text,label\na cat,1\na dog,1\n")
    prepare(tmp_path / "one.csv", tmp_path / "data", task="text_classifier", validation_fraction=0)
    with pytest.raises(UserError, match="needs examples of two labels at least, .* has only 1"):
        objective_of(recipe_for("text_classifier", "bert", ""), Records(tmp_path / "data"))


def test_a_preset_of_scores_becomes_a_classifier_of_labels(data, tmp_path):
    records = Records(data["text_classifier"])
    recipe = recipe_for("text_classifier", "bert", data["text_classifier"])
    model = make_model(recipe, records)
    model.problem_type = "regression"
    model.save_to_preset(tmp_path / "preset")
    recipe = dataclasses.replace(recipe, model={}, preset=str(tmp_path / "preset"))
    assert make_model(recipe, records).problem_type == "single_label_classification"
