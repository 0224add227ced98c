"""Steps that XLA compiles as a whole: on several replicas, and what cannot be compiled."""

import numpy as np
import pytest
import tensorflow as tf

from tfllm.errors import UserError
from tfllm.models.one_program import is_one_program
from tfllm.optimizers import AdamW

SIZES = {"hidden_dim": 16, "max_sequence_length": 16}
ROWS = [["one two", "a cat"], ["red green blue"], ["a dog is not"], ["one"]]


@pytest.fixture
def two_replicas():
    return tf.distribute.MirroredStrategy(["CPU:0", "CPU:1"])


def trained(new_model, strategy, batches, **settings):
    with strategy.scope():
        model = new_model("gpt", **SIZES)
        model.compile(AdamW(1e-2, global_clipnorm=0.05, use_ema=True), **settings)
    losses = model.fit(batches, verbose=0).history["loss"]
    return losses, [variable.numpy() for variable in model.trainable_variables]


def test_two_replicas_that_xla_compiled_train_as_one_device_that_it_did_not(
    new_model, pack, two_replicas
):
    batches = tf.data.Dataset.from_tensors(pack(ROWS, 16)).repeat(3)
    batches = batches.unbatch().batch(4, drop_remainder=True)
    losses, weights = trained(new_model, two_replicas, batches, microbatches=2, jit_compile=True)
    expected, others = trained(new_model, tf.distribute.get_strategy(), batches, jit_compile=False)
    np.testing.assert_allclose(losses, expected, rtol=2e-6)
    for one, other in zip(weights, others, strict=True):
        np.testing.assert_allclose(one, other, atol=2e-6)


@pytest.mark.parametrize(
    ("parts", "shape"), [(1, (4, None)), (2, (None, 16))], ids=["lengths", "rows"]
)
def test_sizes_that_only_the_running_step_knows_are_refused_for_xla(new_model, pack, parts, shape):
    x, y, weight = pack(ROWS, 16)
    spec = tf.nest.map_structure(lambda t: tf.TensorSpec(shape, t.dtype), (x, y, weight))
    batches = tf.data.Dataset.from_generator(lambda: iter([(x, y, weight)]), output_signature=spec)
    with pytest.raises(UserError, match=r"needs batches of one length.*padding=\"max_length\""):
        trained(
            new_model, tf.distribute.get_strategy(), batches, microbatches=parts, jit_compile=True
        )


def test_a_cpu_compiles_clusters_unless_it_is_asked_for_more(two_replicas):
    for strategy in (tf.distribute.get_strategy(), two_replicas):
        assert not is_one_program("auto", strategy)
        assert is_one_program(True, strategy)
