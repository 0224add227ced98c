"""Settings with which Keras fails or trains otherwise on several replicas: they are refused."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from tfllm.errors import UserError
from tfllm.optimizers import AdamW

SIZES = {"num_layers": 1, "hidden_dim": 16, "max_sequence_length": 16}
OPTIMIZERS = keras.optimizers
BY_LOGITS = {"from_logits": True}


@pytest.fixture
def two_replicas():
    return tf.distribute.MirroredStrategy(["CPU:0", "CPU:1"])


def loss(**settings):
    return keras.losses.SparseCategoricalCrossentropy(from_logits=True, **settings)


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        (lambda: {"optimizer": OPTIMIZERS.Adam(clipnorm=1.0)}, r"Adam clips .* \(clipnorm=1.0, 2"),
        (lambda: {"optimizer": OPTIMIZERS.SGD(global_clipnorm=2.0)}, r"SGD clips .*use tfllm\.opt"),
        (lambda: {"optimizer": OPTIMIZERS.SGD(clipvalue=2.0)}, r"\(clipvalue=2.0, 2 replicas\)"),
        (
            lambda: {"optimizer": OPTIMIZERS.LossScaleOptimizer(OPTIMIZERS.SGD(clipnorm=1.0))},
            "SGD clips each replica's part",
        ),
        (
            lambda: {"optimizer": OPTIMIZERS.SGD(gradient_accumulation_steps=2)},
            "gradient_accumulation_steps works on one device: got 2 .* give compile microbatches",
        ),
        (lambda: {"steps_per_execution": 4}, "steps_per_execution must be 1 .*: got 4 for 2 repl"),
        (
            lambda: {"jit_compile": True, "loss": loss()},
            "jit_compile must be left out for a loss of Keras",
        ),
        (
            lambda: {"loss": loss(reduction="mean_with_sample_weight")},
            "divides by each replica's own weights",
        ),
        (
            lambda: {"optimizer": OPTIMIZERS.LossScaleOptimizer(AdamW()), "loss": loss()},
            "LossScaleOptimizer asks one replica",
        ),
    ],
)
def test_what_is_wrong_on_two_replicas_is_refused_there_alone(
    new_model, two_replicas, settings, words
):
    new_model("gpt", **SIZES).compile(**settings())
    with two_replicas.scope():
        model = new_model("gpt", **SIZES)
        with pytest.raises(UserError, match=words):
            model.compile(**settings())


def with_a_loss_of_keras(new_model, strategy, batches):
    with strategy.scope():
        model = new_model("gpt", **SIZES)
        model.compile(OPTIMIZERS.SGD(0.5), loss=loss(), jit_compile=False)
    return model.fit(batches, verbose=0).history["loss"]


def test_a_loss_of_keras_trains_alike_in_equal_parts_and_is_refused_else(
    new_model, pack, two_replicas
):
    x, y, weight = pack([["one two", "a cat"], ["red"], ["a dog is not"], ["one"]], 16)
    whole = tf.data.Dataset.from_tensors((x, y, weight)).repeat(3)
    losses = [
        with_a_loss_of_keras(new_model, strategy, whole)
        for strategy in (tf.distribute.get_strategy(), two_replicas)
    ]
    np.testing.assert_allclose(*losses, rtol=1e-5)
    uneven = tf.data.Dataset.from_tensor_slices((x, y, weight)).batch(3)
    with pytest.raises(UserError, match="batch with drop_remainder=True, or use loss=.auto"):
        with_a_loss_of_keras(new_model, two_replicas, uneven)
