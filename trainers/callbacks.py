"""What happens around the steps of a run, as Keras callbacks."""

import functools
import itertools
import math
import signal
import textwrap
import threading
from pathlib import Path

import keras
import tensorflow as tf

from tfllm.errors import Failure
from tfllm.trainers.attention_entropy import AttentionEntropy
from tfllm.trainers.averaging import averaged
from tfllm.trainers.checkpoints import UNWRITABLE, Checkpoints
from tfllm.trainers.early_stopping import BestWeights
from tfllm.trainers.event_file import EventFile
from tfllm.trainers.monitor import Monitor, steps_done
from tfllm.trainers.recipe import Recipe
from tfllm.trainers.saying import reason, say
from tfllm.trainers.validation import Validation
from tfllm.trainers.watch import Watch
from tfllm.trainers.workers import Workers
from tfllm.trainers.writing import Writer

SAMPLE_TOKENS = 48
SAMPLE_TEMPERATURE = 0.8
_SIGNALS = signal.SIGTERM, signal.SIGINT


class StopOnNaN(keras.callbacks.Callback):
    """Ends a run whose loss or gradient is no longer a finite number.

    It comes before `SaveCheckpoints`, so that no checkpoint has weights that are lost.

    Raises:
        Failure: naming the step.
    """

    def on_train_batch_end(self, batch, logs=None):
        norm = float(self.model.optimizer.gradient_norm.numpy())
        for name, value in (("loss", logs["loss"]), ("norm of the gradient", norm)):
            if not math.isfinite(value):
                raise Failure(
                    f"The {name} is {value} at step {steps_done(self.model)}; the {batch} steps "
                    "before it were finite. Train in another run folder with a lower "
                    "optimizer.peak_learning_rate or a longer optimizer.warmup_steps."
                )


class StopOnSignal(keras.callbacks.Callback):
    """Inside `with`, a SIGTERM or a SIGINT (Ctrl-C) ends the run after the step that it met.

    Another SIGTERM changes nothing; another Ctrl-C ends the process at once. A signal to one worker
    ends all after the same step, as does what came before in the list of callbacks.

    Args:
        workers: Of the run.

    Attributes:
        asked: The number of the signal that ended the run; 0 = none.
    """

    def __init__(self, workers: Workers):
        super().__init__()
        self.workers = workers
        self._came = 0
        self.asked = 0

    def __enter__(self):
        # Python lets only the main thread handle signals; elsewhere the run is not interruptible.
        self._previous = {}
        if threading.current_thread() is threading.main_thread():
            for number in (signal.SIGTERM, signal.SIGINT):
                self._previous[number] = signal.signal(number, self._ask)
        return self

    def __exit__(self, *_):
        for number, handler in self._previous.items():
            signal.signal(number, handler)

    def _ask(self, number, _):
        if number == signal.SIGINT:
            # The system's own handler from now on: the next one raises KeyboardInterrupt.
            signal.signal(number, signal.default_int_handler)
        self._came = self._came or number

    def on_train_batch_end(self, *_, **__):
        came = [self._came == number for number in _SIGNALS]
        *asked, stop = self.workers.any(*came, self.model.stop_training)
        self.asked = next(itertools.compress(_SIGNALS, asked), 0)
        self.model.stop_training = stop or self.asked > 0


class SaveCheckpoints(keras.callbacks.Callback):
    """Saves a checkpoint every `recipe.checkpoint_every` steps and at the last one.

    The next step begins when the state is copied; the copy is written meanwhile, and waited for
    when a twentieth of the interval has passed, or one step: so much more may a kill cost. Where it
    cannot be written the older ones stay and the run goes on, to try again at the next one.

    Args:
        checkpoints: Of the run.
        recipe: The run's.
        writer: Writes them.

    Raises:
        Failure: if the last one cannot be written.
    """

    def __init__(self, checkpoints: Checkpoints, recipe: Recipe, writer: Writer):
        super().__init__()
        self.checkpoints = checkpoints
        self.recipe = recipe
        self.writer = writer
        self._lag = max(1, recipe.checkpoint_every // 20)
        self._saved = 0
        self._missing = ""

    def on_train_batch_end(self, *_, **__):
        step = steps_done(self.model)
        if step < self._saved + self._lag:
            self.writer.check()
        else:
            self.writer.wait()
        last = step == self.recipe.steps or self.model.stop_training
        if last or step % self.recipe.checkpoint_every == 0:
            self._saved = step
            write = self.checkpoints.snapshot(step)
            self.writer.add(functools.partial(self._save, step, last, write))

    def _save(self, step, last, write):
        self._missing = ""
        try:
            write()
        except UNWRITABLE as error:
            self._missing = (
                f"The checkpoint of step {step:,} was not written to {self.checkpoints.folder} "
                f"({reason(error)}); {self._there()} there. Make room on that disk"
            )
            if not last:  # of the last one, `on_train_end` speaks
                say(f"{self._missing}: the run goes on and tries again.")

    def _there(self):
        steps = self.checkpoints.steps()
        return f"that of step {steps[-1]:,} is" if steps else "none is"

    def on_train_end(self, *_):
        self.writer.wait()
        if self._missing:
            raise Failure(f"{self._missing}, and the same call goes on from there.")


class Validate(keras.callbacks.Callback):
    """Validates every `recipe.validate_every` steps and shows what the model writes.

    It comes before `SaveCheckpoints`, so that a run which goes on from a checkpoint knows the
    validation of its step. The averages of the weights are validated, where there are any.

    Args:
        recipe: The run's recipe.
        validation: How to.
        folder: Where TensorBoard's files go.
        best: Keeps the best weights and ends the run; None if the last ones shall be kept.
        monitor: Is told what was reached.
        watch: What else is looked at.
    """

    def __init__(  # noqa: PLR0913
        self,
        recipe: Recipe,
        validation: Validation,
        folder: Path,
        best: BestWeights | None,
        monitor: Monitor,
        watch: Watch,
    ):
        super().__init__()
        self.recipe = recipe
        self.validation = validation
        self.best = best
        self.monitor = monitor
        self.watch = watch
        self._entropy: AttentionEntropy | None = None
        self._events = EventFile(folder / "validation")

    def on_train_batch_end(self, *_, **__):
        step = steps_done(self.model)
        if step % self.recipe.validate_every and step != self.recipe.steps:
            return
        with averaged(self.model):
            self._validate(step)
        if self.best is not None and self.best.is_over(step):
            self.model.stop_training = True

    def _validate(self, step):
        reached = self.validation.measure(self.model, self.recipe.validation_steps)
        self.monitor.validated(step, reached)
        if self.best is not None:
            self.best.record(step, reached["loss"])
        samples = self._samples(step) if self.recipe.sample_prompts else []
        with self._events.at(step):
            for name, value in reached.items():
                tf.summary.scalar(name, value)
            if samples:
                tf.summary.text("samples", samples)
            self._look()

    def _look(self):
        if self.watch.histograms:
            for variable in self.model.trainable_variables:
                tf.summary.histogram(variable.path, variable.value)
        if self.watch.attention_entropy:
            if self._entropy is None:
                batches = self.validation.batches().take(1)
                self._entropy = AttentionEntropy(self.model, batches)
            for name, bits in zip(self._entropy.layers, self._entropy.measure(), strict=True):
                tf.summary.scalar(f"attention_entropy/{name}", bits)

    def _samples(self, step):
        generations = self.model.generate(
            list(self.recipe.sample_prompts),
            max_new_tokens=SAMPLE_TOKENS,
            temperature=SAMPLE_TEMPERATURE,
            seed=step,
        )
        pairs = zip(self.recipe.sample_prompts, generations, strict=True)
        # Indented, Markdown shows a text as it is.
        return [textwrap.indent(prompt + new.text, "    ") for prompt, new in pairs]
