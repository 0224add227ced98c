"""tfllm's models: by the loop of `tfllm train`, by `model.fit`, and by the step alone.

All of them read the same prepared rows. `run` has the callbacks of a run, with TensorBoard and a
line of progress; `fit` has none; `step` calls the compiled train step on one batch.
"""

import shutil

from worker import Requests, answer_lines, arguments

args = arguments()

import keras  # noqa: E402 - reads what `arguments` set
import tensorflow as tf  # noqa: E402

from tfllm import trainers  # noqa: E402
from tfllm.data import Records  # noqa: E402
from tfllm.optimizers import AdamW  # noqa: E402
from tfllm.trainers.tasks import make_model  # noqa: E402

shape = args.shape
model_of = {"num_layers": shape.num_layers, "hidden_dim": shape.width}
if args.model == "gpt":
    model_of["num_heads"] = shape.num_heads
recipe = trainers.Recipe(
    name=args.model,
    family=args.model,
    model=model_of,
    data=str(args.folder / args.model),
    precision=args.precision,
    global_batch=shape.rows,
    steps=100_000,
    validate_every=100_000,
    checkpoint_every=100_000,
)


class OnDemand(keras.callbacks.Callback):
    """Makes a run wait for the next request after each that is done."""

    def __init__(self):
        super().__init__()
        self.requests = Requests()

    def on_train_batch_begin(self, *_, **__):
        if self.params.setdefault("left", 0) == 0:
            self.params["left"] = self.requests.next()
            if not self.params["left"]:
                raise SystemExit

    def on_train_batch_end(self, _, logs):
        self.params["left"] -= 1
        if not self.params["left"]:
            self.requests.done(logs["loss"])


def run():
    folder = args.folder / f"run-{args.model}-{args.precision}"
    shutil.rmtree(folder, ignore_errors=True)
    trainers.fit(recipe, run=folder, tensorboard=folder / "tensorboard", callbacks=[OnDemand()])


def fit_or_step():
    records = Records(recipe.data)
    keras.utils.set_random_seed(0)
    model = make_model(recipe, records)
    model.compile(AdamW(1e-3, global_clipnorm=1.0), jit_compile=False)
    model.optimizer.build(model.trainable_variables)
    batches = records.batches("train", shape.rows)
    if args.variant == "fit":
        return lambda steps: model.fit(
            batches, steps_per_epoch=steps, verbose=0, shuffle=False
        ).history["loss"][-1]
    step = tf.function(model.train_step, autograph=False)
    batch = next(iter(batches))

    def train(steps):
        for _ in range(steps):
            logs = step(batch)
        return logs["loss"]

    return train


if args.variant == "run":
    run()
else:
    answer_lines(fit_or_step())
