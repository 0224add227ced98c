"""What happens around the steps of a run, as Keras callbacks.

Keras reads the loss of each step from the device before it calls the callbacks, so looking at it
costs nothing more.
"""

import functools
import math
import signal
import sys
import textwrap
import threading
import time
from pathlib import Path

import keras
import tensorflow as tf
from tqdm import tqdm

from tfllm.errors import Failure
from tfllm.trainers.averaging import averaged
from tfllm.trainers.checkpoints import UNWRITABLE, Checkpoints
from tfllm.trainers.early_stopping import BestWeights
from tfllm.trainers.event_file import EventFile
from tfllm.trainers.recipe import Recipe
from tfllm.trainers.saying import reason, say
from tfllm.trainers.validation import Validation
from tfllm.trainers.writing import Writer

LOG_EVERY = 10  # steps between two points in TensorBoard; the loss is their mean
SAMPLE_TOKENS = 48
SAMPLE_TEMPERATURE = 0.8


def steps_done(model: keras.Model) -> int:
    """The optimizer steps that a model has made, over all the processes of its run."""
    return int(model.optimizer.iterations.numpy())


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

    Another SIGTERM changes nothing; another Ctrl-C ends the process at once.

    Attributes:
        asked: The number of the signal that came; 0 = none.
    """

    def __init__(self):
        super().__init__()
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
        self.asked = self.asked or number

    def on_train_batch_end(self, *_, **__):
        if self.asked:
            self.model.stop_training = True


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


class Monitor(keras.callbacks.Callback):
    """Measures each step; shows a line with the time left, and scalars in TensorBoard.

    Args:
        recipe: The run's recipe.
        validation: What says more of a loss.
        schedule: The learning rate as a function of the steps already done.
        folder: Where TensorBoard's files go.

    Attributes:
        tokens_per_second: Positions trained on per second, over all replicas, without the first
            step (which compiles) and without validation and checkpoints.
    """

    def __init__(self, recipe: Recipe, validation: Validation, schedule, folder: Path):
        super().__init__()
        self.recipe = recipe
        self.validation = validation
        self.schedule = schedule
        self.tokens_per_step = recipe.global_batch * validation.records.sequence_length
        self.tokens_per_second = 0.0
        self._events = EventFile(folder / "train")
        self._losses: list[float] = []  # since the last point
        self._num_timed = 0
        self._timed_s = 0.0

    def on_train_begin(self, *_):
        self._bar = tqdm(
            total=self.recipe.steps,
            initial=steps_done(self.model),
            desc=self.recipe.name,
            unit="step",
            file=sys.stderr,
            disable=None,
        )

    def on_train_batch_begin(self, *_, **__):
        # Keras reports the mean of the epoch so far: emptied, it is the step's own loss.
        self.model.reset_metrics()
        self._step_began = time.perf_counter()

    def on_train_batch_end(self, batch, logs=None):
        if batch > 0:
            self._timed_s += time.perf_counter() - self._step_began
            self._num_timed += 1
            self.tokens_per_second = self._num_timed * self.tokens_per_step / self._timed_s
        self._losses.append(logs["loss"])
        self._bar.set_postfix(
            loss=f"{logs['loss']:.3f}", tokens_s=f"{self.tokens_per_second:,.0f}", refresh=False
        )
        self._bar.update()
        step = steps_done(self.model)
        if step % LOG_EVERY == 0 or step == self.recipe.steps:
            self._log(step)

    def _log(self, step):
        mean_loss = sum(self._losses) / len(self._losses)
        self._losses.clear()
        scalars = self.validation.describe({"loss": mean_loss}, "train") | {
            "learning_rate": float(self.schedule(step - 1)),
            "gradient_norm": float(self.model.optimizer.gradient_norm.numpy()),
            "tokens_per_second": self.tokens_per_second,
        }
        with self._events.at(step):
            for name, value in scalars.items():
                tf.summary.scalar(name, value)

    def on_train_end(self, *_):
        self._bar.close()


class Validate(keras.callbacks.Callback):
    """Validates every `recipe.validate_every` steps and shows what the model writes.

    It comes before `SaveCheckpoints`, so that a run which goes on from a checkpoint knows the
    validation of its step. The averages of the weights are validated, where there are any.

    Args:
        recipe: The run's recipe.
        validation: How to.
        folder: Where TensorBoard's files go.
        best: Keeps the best weights and ends the run; None if the last ones shall be kept.
    """

    def __init__(
        self, recipe: Recipe, validation: Validation, folder: Path, best: BestWeights | None
    ):
        super().__init__()
        self.recipe = recipe
        self.validation = validation
        self.best = best
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
        shown = ", ".join(f"{name} {value:.3f}" for name, value in reached.items())
        say(f"step {step:,}: {shown}")
        if self.best is not None:
            self.best.record(step, reached["loss"])
        samples = self._samples(step) if self.recipe.sample_prompts else []
        with self._events.at(step):
            for name, value in reached.items():
                tf.summary.scalar(name, value)
            if samples:
                tf.summary.text("samples", samples)

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
