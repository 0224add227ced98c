"""Early stopping: when a run ends, with which weights, and that a kill changes neither."""

import dataclasses
import math

import keras
import numpy as np
import pytest

from tfllm.data import prepare
from tfllm.errors import Failure, UserError
from tfllm.models import CausalLM
from tfllm.optimizers import AdamW
from tfllm.trainers.checkpoints import Checkpoints
from tfllm.trainers.early_stopping import BestWeights
from tfllm.trainers.writing import Writer


@pytest.fixture
def kept(tmp_path):
    """A model of one weight, its checkpoints, and the best weights with a patience of 2."""
    model = keras.Sequential([keras.Input((1,)), keras.layers.Dense(1, use_bias=False)])
    model.compile(AdamW(0.1), "mse")
    model.optimizer.build(model.trainable_variables)
    checkpoints = Checkpoints(tmp_path / "checkpoints", model, keep=2)
    with Writer() as writer:
        best = BestWeights(tmp_path / "best", model, checkpoints, patience=2, writer=writer)
        yield model, checkpoints, best, writer


def validated(kept, step, loss):
    """A validation, at which the weight is the number of the step."""
    model, _, best, writer = kept
    model.set_weights([np.array([[step]])])
    best.record(step, loss)
    writer.wait()


def test_the_first_of_the_lowest_losses_is_the_best(kept):
    model, _, best, writer = kept
    for step, loss in [(2, 3.0), (4, 1.0), (6, 1.0), (8, math.nan)]:
        assert not best.is_over(step - 2)
        validated(kept, step, loss)
    assert best.is_over(8)
    assert best.restore(8) == 4
    assert model.get_weights()[0] == 4


def test_what_was_best_at_each_checkpoint_is_kept_and_nothing_else(kept):
    _, checkpoints, best, _ = kept
    for step in range(1, 6):
        validated(kept, step, 1 / step)
        checkpoints.save(step)
    assert sorted(path.name for path in best.folder.iterdir()) == [
        "step-00000003",  # of the checkpoint that went when that of step 5 was saved
        "step-00000004",
        "step-00000005",
        "validations.json",
    ]


def test_a_run_that_goes_on_forgets_the_validations_that_come_again(kept):
    model, checkpoints, best, _ = kept
    validated(kept, 2, 2.0)
    checkpoints.save(2)
    validated(kept, 4, 1.0)  # and here the process is killed
    assert best.step(2) == 2
    # On another device the same step may come out otherwise.
    validated(kept, 4, 3.0)
    assert not best.is_over(4)
    assert best.restore(4) == 2
    assert model.get_weights()[0] == 2
    validated(kept, 6, 2.5)
    assert best.is_over(6)


def test_a_step_that_comes_again_has_its_new_weights(kept):
    model, _, best, writer = kept
    validated(kept, 4, 1.0)
    model.set_weights([np.array([[5]])])
    best.record(4, 0.5)
    writer.wait()
    best.restore(4)
    assert model.get_weights()[0] == 5


def test_without_a_validation_the_weights_stay(kept):
    model, _, best, writer = kept
    model.set_weights([np.array([[7]])])
    assert best.restore(3) == 3
    assert model.get_weights()[0] == 7


def test_best_weights_that_are_damaged_are_said(kept):
    _, _, best, _ = kept
    validated(kept, 4, 1.0)
    (best.folder / "step-00000004" / "checkpoint.index").write_bytes(b"")
    with pytest.raises(Failure, match=r"best/step-00000004 cannot be read: "):
        best.restore(4)


class Spoil(keras.callbacks.Callback):
    """From the beginning of step 5 on, the model is much worse; keeps the weights of step 4."""

    def on_train_batch_begin(self, *_, **__):
        if self.model.optimizer.iterations.numpy() == 4:
            self.weights_of_step_4 = self.model.get_weights()
            embeddings = self.model.backbone.token_embedding.embeddings
            embeddings.assign(embeddings * 100.0)


class Crash(Exception):
    pass


class CrashAfter(keras.callbacks.Callback):
    def __init__(self, step):
        super().__init__()
        self.step = step

    def on_train_batch_end(self, *_, **__):
        if self.model.optimizer.iterations.numpy() == self.step:
            raise Crash


@pytest.fixture
def impatient(tiny):
    return dataclasses.replace(
        tiny, steps=20, patience=2, validate_every=2, checkpoint_every=5, sample_prompts=()
    )


def weights(result):
    return CausalLM.from_preset(result.preset).get_weights()


# After step 8 only the preset is missing; after step 4 there are validations and no checkpoint.
@pytest.mark.parametrize(("crashes", "rest"), [((7, 8), 0), ((4,), 8)])
def test_a_killed_run_ends_as_an_unbroken_one_with_the_best_weights(
    impatient, train, crashes, rest, capsys
):
    spoil = Spoil()
    unbroken, _ = train(impatient, "whole", callbacks=[spoil])
    assert (unbroken.steps, unbroken.best_step) == (8, 4)
    said = capsys.readouterr().err
    assert "Ended after step 8: no validation after step 4 was better." in said
    for found, expected in zip(weights(unbroken), spoil.weights_of_step_4, strict=True):
        np.testing.assert_array_equal(found, expected)

    for step in crashes:
        with pytest.raises(Crash):
            train(impatient, "killed", callbacks=[Spoil(), CrashAfter(step)])
    resumed, losses = train(impatient, "killed", callbacks=[Spoil()])
    assert len(losses) == rest
    assert resumed[3:-1] == unbroken[3:-1]  # all but the folders and the speed
    for found, expected in zip(weights(resumed), weights(unbroken), strict=True):
        np.testing.assert_array_equal(found, expected)


def test_a_run_without_patience_has_its_last_weights(finished):
    assert finished[1].best_step == finished[1].steps == 8


def test_other_validations_would_find_other_weights(impatient, train):
    first = dataclasses.replace(impatient, steps=4)
    with pytest.raises(Crash):
        train(first, callbacks=[CrashAfter(4)])
    with pytest.raises(UserError, match="validate_every was 2, is 1"):
        train(dataclasses.replace(first, validate_every=1))


def test_patience_needs_something_held_out(impatient, train, tmp_path):
    (tmp_path / "text.txt").write_text("One document only. " * 200)
    prepare(
        tmp_path / "text.txt", tmp_path / "data", vocabulary_size=300, sequence_length=32,
        validation_fraction=0.0,
    )  # fmt: skip
    with pytest.raises(UserError, match="patience needs validations, and .* has no validation"):
        train(impatient, data=tmp_path / "data")
