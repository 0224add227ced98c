"""Moving averages of the weights: what they are, where they are used, and after a kill."""

import dataclasses

import keras
import numpy as np
import pytest
import tensorflow as tf
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tensorboard.util.tensor_util import make_ndarray

from tfllm.models import CausalLM
from tfllm.optimizers import AdamW
from tfllm.trainers import make_strategy
from tfllm.trainers.averaging import averaged, use_averages

MOMENTUM = 0.7


class KeepWeights(keras.callbacks.Callback):
    """The weights after each step."""

    def __init__(self):
        super().__init__()
        self.weights = []

    def on_train_batch_end(self, *_, **__):
        self.weights.append([v.numpy() for v in self.model.trainable_variables])


def by_hand(weights):
    """The first is the average of one step; each next one moves it by 1 - momentum."""
    average, *others = weights
    for new in others:
        average = [MOMENTUM * a + (1 - MOMENTUM) * w for a, w in zip(average, new, strict=True)]
    return average


def fitted(strategy):
    x, y = np.random.default_rng(0).normal(size=(2, 6, 4, 3)).astype("float32")
    keras.utils.set_random_seed(0)
    with strategy.scope():
        model = keras.Sequential([keras.Input((3,)), keras.layers.Dense(3)])
        model.compile(AdamW(0.1, use_ema=True, ema_momentum=MOMENTUM), "mse", jit_compile=False)
        model.optimizer.build(model.trainable_variables)
    keep = KeepWeights()
    batches = tf.data.Dataset.from_tensor_slices((x, y))
    model.fit(batches, shuffle=False, verbose=0, callbacks=[keep])
    return model, keep.weights


@pytest.mark.parametrize("strategy", ["one", "mirrored"])
def test_the_averages_take_the_place_of_the_weights_and_give_it_back(strategy):
    model, weights = fitted(make_strategy(strategy))
    for variable, value in zip(model.trainable_variables, weights[-1], strict=True):
        variable.assign(value)  # the end of `fit` had put the averages there
    with averaged(model):
        inside = model.get_weights()
    for found, expected in zip(inside, by_hand(weights), strict=True):
        np.testing.assert_allclose(found, expected, rtol=1e-5)
    for found, expected in zip(model.get_weights(), weights[-1], strict=True):
        np.testing.assert_array_equal(found, expected)
    use_averages(model)
    for found, expected in zip(model.get_weights(), inside, strict=True):
        np.testing.assert_array_equal(found, expected)


def test_without_averages_the_weights_stay():
    model = keras.Sequential([keras.Input((3,)), keras.layers.Dense(3)])
    model.compile(AdamW(0.1), "mse")
    before = model.get_weights()
    with averaged(model):
        np.testing.assert_array_equal(model.get_weights()[0], before[0])
    use_averages(model)
    np.testing.assert_array_equal(model.get_weights()[0], before[0])


class Crash(Exception):
    pass


class CrashAfter(keras.callbacks.Callback):
    def __init__(self, step):
        super().__init__()
        self.step = step

    def on_train_batch_end(self, *_, **__):
        if self.model.optimizer.iterations.numpy() == self.step:
            raise Crash


def test_a_run_validates_and_keeps_the_averages_and_a_kill_changes_no_bit(tiny, train):
    recipe = dataclasses.replace(tiny, ema=MOMENTUM, validation_steps=0, sample_prompts=())
    keep = KeepWeights()
    unbroken, losses = train(recipe, "whole", callbacks=[keep])
    preset = CausalLM.from_preset(unbroken.preset)
    averages = by_hand(keep.weights)
    for found, expected in zip(preset.trainable_variables, averages, strict=True):
        np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-6)
    # The last validation within the training was of these averages too.
    events = EventAccumulator(f"{unbroken.tensorboard}/validation").Reload()
    logged = {event.step: make_ndarray(event.tensor_proto) for event in events.Tensors("loss")}
    assert logged[8] == pytest.approx(unbroken.validation_loss, rel=1e-6)
    # Training itself does not see them.
    _, plain = train(dataclasses.replace(recipe, ema=0.0), "plain")
    assert losses == plain

    for step in (7, 8):  # 8: all steps are done, only the preset is missing
        with pytest.raises(Crash):
            train(recipe, "killed", callbacks=[CrashAfter(step)])
    resumed, none = train(recipe, "killed")
    assert none == []
    assert resumed.validation_loss == unbroken.validation_loss
    again = CausalLM.from_preset(resumed.preset)
    for found, expected in zip(again.get_weights(), preset.get_weights(), strict=True):
        np.testing.assert_array_equal(found, expected)
