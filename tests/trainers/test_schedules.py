"""The learning rate of a step, by hand-computed values."""

import keras
import numpy as np
import pytest

from tfllm.trainers.schedules import WarmupCosine


def rates(schedule, steps):
    return [float(schedule(step)) for step in steps]


def test_it_warms_up_linearly_then_falls_as_half_a_cosine():
    schedule = WarmupCosine(peak=1.0, warmup_steps=4, steps=12, final_fraction=0.1)
    np.testing.assert_allclose(rates(schedule, range(4)), [0.25, 0.5, 0.75, 1.0])
    middle, three_quarters = 0.55, 0.1 + 0.9 * (1 - 0.5**0.5) / 2
    np.testing.assert_allclose(
        rates(schedule, [4, 8, 10, 12]), [1.0, middle, three_quarters, 0.1], rtol=1e-6
    )


def test_after_the_last_step_it_stays_at_the_final_rate():
    schedule = WarmupCosine(peak=2.0, warmup_steps=1, steps=5, final_fraction=0.25)
    np.testing.assert_allclose(rates(schedule, [5, 6, 500]), 0.5, rtol=1e-6)


@pytest.mark.parametrize(("warmup_steps", "first"), [(0, 1.0), (10, 0.1)])
def test_no_warm_up_and_one_longer_than_the_run_are_fine(warmup_steps, first):
    schedule = WarmupCosine(peak=1.0, warmup_steps=warmup_steps, steps=2, final_fraction=0.0)
    assert float(schedule(0)) == pytest.approx(first)


def test_it_survives_serialization():
    schedule = WarmupCosine(peak=0.5, warmup_steps=3, steps=9, final_fraction=0.2)
    copy = keras.optimizers.schedules.deserialize(keras.optimizers.schedules.serialize(schedule))
    assert rates(copy, range(10)) == rates(schedule, range(10))
