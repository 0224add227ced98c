"""Recipes that train little of a preset."""

import dataclasses

import keras
import numpy as np
import pytest

from tfllm.errors import UserError
from tfllm.models import CausalLM
from tfllm.trainers import Adaptation, Optimizer
from tfllm.trainers.adapting import scales


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
def adapted(tiny, finished):
    """LoRA on what `finished` learned, for four steps, with a rate per layer."""
    return dataclasses.replace(
        tiny, model={}, preset=finished[1].preset, steps=4, checkpoint_every=2, validate_every=4,
        sample_prompts=(), adaptation=Adaptation(lora_rank=2, lora_feed_forward=True),
        optimizer=Optimizer(peak_learning_rate=0.1, warmup_steps=0, layer_decay=0.5),
    )  # fmt: skip


def test_lora_by_a_recipe_changes_its_kernels_alone_and_survives_a_kill(adapted, train, capsys):
    result, losses = train(adapted, "whole")
    numbers = 2 * (16 * 2 + 2 * 16) + 2 * (16 * 2 + 2 * 64)  # query and value; inner and outer
    assert f"tiny: {numbers:,} weights" in capsys.readouterr().err
    base, model = (CausalLM.from_preset(path) for path in (adapted.preset, result.preset))
    changed = set()
    for before, after in zip(base.weights, model.weights, strict=True):
        assert before.path == after.path
        if not np.array_equal(before, after):
            changed.add(after.path)
    assert changed == {
        f"block_0/{name}/kernel"
        for name in (
            "attention/query", "attention/value", "feed_forward/inner", "feed_forward/outer"
        )
    }  # fmt: skip

    with pytest.raises(Crash):
        train(adapted, "killed", callbacks=[CrashAfter(3)])
    resumed, rest = train(adapted, "killed")
    assert rest == losses[2:]
    again = CausalLM.from_preset(resumed.preset)
    for found, expected in zip(again.get_weights(), model.get_weights(), strict=True):
        np.testing.assert_array_equal(found, expected)


def test_frozen_parts_by_a_recipe_stay(adapted, train):
    recipe = dataclasses.replace(
        adapted, steps=1, adaptation=Adaptation(freeze_layers=1, freeze_embeddings=True)
    )
    result, _ = train(recipe)
    base, model = (CausalLM.from_preset(path) for path in (adapted.preset, result.preset))
    changed = {
        after.path
        for before, after in zip(base.weights, model.weights, strict=True)
        if not np.array_equal(before, after)
    }
    assert changed == {"final_norm/gamma", "final_norm/beta"}


def test_the_rate_per_layer_is_that_of_the_recipe(adapted, finished):
    model = CausalLM.from_preset(finished[1].preset)
    assert scales(model, adapted)["block_0/attention/query/kernel"] == 0.5**2
    plain = dataclasses.replace(adapted, optimizer=Optimizer())
    assert scales(model, plain) is None


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        (["preset="], "without a preset they are random"),
        (["adaptation.lora_rank=0"], "lora_feed_forward needs a lora_rank above 0"),
        (["adaptation.freeze_layers=2"], "must be 0 to 1, .* GPTCausalLM has: got 2"),
    ],
)
def test_what_cannot_be_adapted_is_refused(adapted, train, settings, words):
    with pytest.raises(UserError, match=words):
        train(
            dataclasses.replace(
                adapted, model={} if settings[0] != "preset=" else {
                    "num_layers": 1, "num_heads": 2, "hidden_dim": 16
                }
            ).with_settings(settings)
        )  # fmt: skip


@pytest.mark.parametrize(
    ("setting", "words"),
    [
        ("adaptation.lora_rank=-1", "Adaptation.lora_rank must be at least 0: got -1"),
        ("adaptation.freeze_layers=-1", "Adaptation.freeze_layers must be at least 0: got -1"),
        ("optimizer.layer_decay=0", r"Optimizer.layer_decay must be in \(0, 1\]: got 0"),
        ("ema=1", r"Recipe.ema must be in \[0, 1\): got 1"),
        ("patience=-1", r"Recipe.patience must be at least 0 .*: got -1"),
    ],
)
def test_settings_out_of_range_are_refused(tiny, setting, words):
    with pytest.raises(UserError, match=words):
        tiny.with_settings([setting])
