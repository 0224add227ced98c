"""Optimizers that are right under a `tf.distribute` strategy."""

from tfllm.optimizers.adamw import AdamW

__all__ = ["AdamW"]
