"""Runs on batches of a budget of positions: alike on any devices, and resumable."""

import dataclasses

import keras
import numpy as np
import pytest
import tensorflow as tf
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from tfllm.data import Records
from tfllm.errors import UserError
from tfllm.trainers import Optimizer, Recipe
from tfllm.trainers.compiled import compiled_model, schedule_of
from tfllm.trainers.feed import make_feed
from tfllm.trainers.fit import utilisation_of
from tfllm.trainers.flops import model_flops
from tfllm.trainers.tasks import begun_alike, objective_of

TRANSFORMER = {"num_layers": 1, "num_heads": 2, "hidden_dim": 16, "intermediate_dim": 24}


def recipe_for(data, task, family, **changes):
    return Recipe(
        name="tiny",
        task=task,
        family=family,
        model=TRANSFORMER,
        data=str(data[task]),
        batch_tokens=600,
        length_buckets=3,
        steps=4,
        optimizer=Optimizer(peak_learning_rate=1e-2, warmup_steps=1),
        validate_every=4,
        checkpoint_every=2,
        **changes,
    )


class Crash(Exception):
    pass


class CrashAfter(keras.callbacks.Callback):
    def __init__(self, step):
        super().__init__()
        self.step = step

    def on_train_batch_end(self, batch, **_):
        if batch + 1 == self.step:
            raise Crash


@pytest.mark.parametrize(
    ("task", "family"),
    [
        ("seq2seq_lm", "marian"),
        pytest.param("text_classifier", "bert", marks=pytest.mark.slow),
        pytest.param("text_embedder", "bert", marks=pytest.mark.slow),
    ],
)
def test_two_replicas_train_and_validate_as_one(data, train, task, family):
    recipe = recipe_for(data, task, family)
    one, losses = train(recipe, "one")
    two, losses_of_two = train(recipe, "two", strategy="mirrored")
    assert len(losses) == 4
    np.testing.assert_allclose(losses_of_two, losses, rtol=2e-5)
    assert two.validation_loss == pytest.approx(one.validation_loss, rel=2e-5)


def test_a_run_that_goes_on_has_the_losses_of_one_that_ran_through(data, train):
    recipe = recipe_for(data, "text_classifier", "bert", precision="bfloat16")
    _, whole = train(recipe, "whole")
    with pytest.raises(Crash):
        train(recipe, "killed", callbacks=[CrashAfter(3)])
    _, resumed = train(recipe, "killed")
    assert resumed == whole[2:]


def test_the_mean_loss_of_the_buckets_is_that_of_one_large_padded_batch(data):
    recipe = recipe_for(data, "seq2seq_lm", "marian")
    records = Records(recipe.data)
    found = {}
    for buckets, budget in ((1, 100_000), (3, 600)):
        here = dataclasses.replace(recipe, length_buckets=buckets, batch_tokens=budget)
        keras.utils.set_random_seed(0)
        model = compiled_model(here, records, schedule_of(here))
        objective = begun_alike(objective_of(here, records), model)
        feed = make_feed(here, records, objective, model, 1)
        found[buckets] = model.evaluate(feed.validation(), verbose=0)
    assert found[1] == pytest.approx(found[3], rel=1e-5)


def test_the_start_and_tensorboard_say_how_full_the_positions_are(data, train, capsys):
    recipe = recipe_for(data, "text_classifier", "bert")
    result, _ = train(recipe)
    said = capsys.readouterr().err
    assert "4 steps of at most 600 tokens" in said
    assert "buckets (rows x tokens): " in said
    assert "% of the places hold tokens; " in said

    records = Records(recipe.data)
    model = compiled_model(recipe, records, schedule_of(recipe))
    feed = make_feed(recipe, records, objective_of(recipe, records), model, 1)
    masks = [model.preprocess_samples(*batch)[0]["padding_mask"] for batch in feed.train(0, 4)]
    tokens = sum(int(tf.reduce_sum(mask)) for mask in masks)
    positions = sum(mask.shape.num_elements() for mask in masks)
    assert [feed.size(step).positions for step in range(4)] == [
        mask.shape.num_elements() for mask in masks
    ]
    events = EventAccumulator(f"{result.tensorboard}/train")
    events.Reload()

    def last(name):
        return float(tf.make_ndarray(events.Tensors(name)[-1].tensor_proto))

    assert last("packing_efficiency") == pytest.approx(tokens / positions)
    # The first step, which makes the graph, is not timed.
    seconds = 3 * (last("seconds/compute") + last("seconds/input"))
    timed = sum(feed.size(step).tokens for step in range(1, 4))
    assert last("tokens_per_second") * seconds == pytest.approx(timed, rel=1e-4)
    assert last("mfu") > 0


def test_the_operations_of_a_bucket_are_those_of_its_shape(data):
    recipe = recipe_for(data, "seq2seq_lm", "marian")
    recipe = dataclasses.replace(recipe, batch_tokens=300, length_buckets=8)
    records = Records(recipe.data)
    model = compiled_model(recipe, records, schedule_of(recipe))
    objective = begun_alike(objective_of(recipe, records), model)
    feed = make_feed(recipe, records, objective, model, 1)
    compute, said = utilisation_of(recipe, model, feed, 1)
    kinds = feed.kinds()
    assert len(kinds) > 4
    assert sum(kind.share for kind in kinds) == pytest.approx(1)
    exact = [model_flops(model, x, y) for x, y, _ in (kind.batch for kind in kinds)]
    np.testing.assert_allclose(compute.flops, exact, rtol=0.05)
    assert len(set(compute.flops)) == len(set(exact))
    assert " GFLOP per step" in said
    assert {feed.size(step).kind for step in range(40)} == set(range(len(kinds)))
    for step, (x, *_) in enumerate(feed.train(0, 3)):
        assert x["encoder_token_ids"].shape == (
            kinds[feed.size(step).kind].batch[0]["encoder_token_ids"].shape
        )


def test_packed_data_say_how_full_they_are_too(data, train, capsys):
    recipe = recipe_for(data, "seq2seq_lm", "marian")
    train(dataclasses.replace(recipe, batch_tokens=0, global_batch=2, steps=1))
    efficiency = Records(recipe.data).meta["splits"]["train"]["packing_efficiency"]
    assert f"; {efficiency:.1%} of the places hold tokens." in capsys.readouterr().err


@pytest.mark.slow
def test_each_bucket_is_a_program_of_its_own_where_xla_compiles_the_step(data):
    recipe = dataclasses.replace(recipe_for(data, "text_classifier", "bert"), batch_tokens=150)
    records, losses = Records(recipe.data), []
    for jit_compile in (False, True):
        keras.utils.set_random_seed(0)
        model = compiled_model(recipe, records, schedule_of(recipe), jit_compile)
        feed = make_feed(recipe, records, objective_of(recipe, records), model, 1)
        shapes = {x["token_ids"].shape for x, *_ in feed.train(0, 5)}
        assert len(shapes) > 1, shapes
        losses.append(model.fit(feed.train(0, 5), shuffle=False, verbose=0).history["loss"])
    np.testing.assert_allclose(losses[0], losses[1], rtol=1e-3)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"batch_tokens": 40}, r"batch_tokens must be at least \d+, 8 rows of the longest"),
        ({"batch_tokens": -1}, "batch_tokens must be at least 0"),
        ({"length_buckets": 0}, "length_buckets must be at least 1"),
        ({"task": "masked_lm", "family": "bert"}, "batch_tokens is for data of seq2seq_lm, "),
    ],
)
def test_a_budget_that_makes_no_sense_is_refused(data, train, changes, words):
    recipe = recipe_for(data, "seq2seq_lm", "marian")
    task = changes.get("task", recipe.task)

    def begin():
        train(dataclasses.replace(recipe, data=str(data[task]), **changes))

    with pytest.raises(UserError, match=words):
        begin()
