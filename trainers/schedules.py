"""The learning rate as a function of the step."""

import math

import keras
from keras import ops


@keras.saving.register_keras_serializable("tfllm")
class WarmupCosine(keras.optimizers.schedules.LearningRateSchedule):
    """Linear warm-up to a peak, then half a cosine down to a fraction of it.

    Step s (counted from 0) gets `peak * (s + 1) / warmup_steps` while s < warmup_steps, so that the
    first step already learns. Step `steps` and all later ones get `peak * final_fraction`.

    Args:
        peak: The highest learning rate.
        warmup_steps: Steps until the peak is reached; 0 = start at the peak.
        steps: Steps until the final rate is reached.
        final_fraction: The final rate as a fraction of the peak, in [0, 1].

    Source:
        Warm-up: Goyal et al. 2017, section 2.2, https://arxiv.org/abs/1706.02677; cosine:
        Loshchilov and Hutter 2017, equation 5, https://arxiv.org/abs/1608.03983
    """

    def __init__(self, peak, warmup_steps, steps, final_fraction):
        self.peak = peak
        self.warmup_steps = warmup_steps
        self.steps = steps
        self.final_fraction = final_fraction

    def __call__(self, step):
        step = ops.cast(step, "float32")
        warmup = self.peak * (step + 1) / max(1, self.warmup_steps)
        progress = (step - self.warmup_steps) / max(1, self.steps - self.warmup_steps)
        cosine = (1 + ops.cos(math.pi * ops.minimum(progress, 1.0))) / 2  # 1 falling to 0
        decayed = self.peak * (self.final_fraction + (1 - self.final_fraction) * cosine)
        return ops.where(step < self.warmup_steps, warmup, decayed)

    def get_config(self):
        return {
            "peak": self.peak,
            "warmup_steps": self.warmup_steps,
            "steps": self.steps,
            "final_fraction": self.final_fraction,
        }
