"""A profile of some steps of a run, for TensorBoard's plugin."""

from pathlib import Path

import keras
import tensorflow as tf


class Profile(keras.callbacks.Callback):
    """Profiles steps `first` to `last`, counted from 1.

    Only what a process does is profiled: a run that goes on behind `first` begins at its first
    step, and one that ends before `last` ends the profile.

    Args:
        first: The first step.
        last: The last one.
        folder: TensorBoard's; the plugin looks for `plugins/profile` in it.
    """

    def __init__(self, first: int, last: int, folder: Path):
        super().__init__()
        self.first = first
        self.last = last
        self.folder = folder
        self._is_on = False

    def on_train_batch_begin(self, *_, **__):
        step = int(self.model.optimizer.iterations.numpy()) + 1
        if self._is_on and step > self.last:
            self._stop()
        elif not self._is_on and self.first <= step <= self.last:
            tf.profiler.experimental.start(str(self.folder))
            self._is_on = True

    def on_train_end(self, *_):
        if self._is_on:
            self._stop()

    def _stop(self):
        tf.profiler.experimental.stop()
        self._is_on = False
