"""What a text begins with of the sources that slots have read."""

from types import SimpleNamespace

import numpy as np
import pytest
import tensorflow as tf

from tfllm.models.session_slot_finding import place_texts
from tfllm.models.session_slots import Slots

SOURCE = [*range(10, 30)]


def reused(source):
    """How many tokens of a source need not be read, where a slot has read `SOURCE`."""
    tokens = np.zeros((2, 60), "int32")  # a slot and the one to spare
    tokens[0, :20], tokens[0, 20:22] = SOURCE, 1
    slots = Slots(
        **{name: tf.zeros(2, tf.int32) for name in Slots._fields}
        | {
            "lease": tf.constant(["", ""]),
            "used_at": tf.zeros(2, tf.float64),
            "tokens": tf.constant(tokens),
            "num_prompt_tokens": tf.constant([21, 0]),
            "num_source_tokens": tf.constant([20, 0]),
            "num_read": tf.constant([22, 0]),
            "count": tf.constant([1, 0]),
        }
    )
    asked = SimpleNamespace(
        error=tf.constant([""]),
        tokens=tf.constant([[*source, 1, *[0] * (59 - len(source))]]),
        num_prompt_tokens=tf.constant([len(source) + 1]),
        num_source_tokens=tf.constant([len(source)]),
        count=tf.constant([0]),
    )
    memory = SimpleNamespace(  # a state: all or nothing
        reusable=lambda common, num_read: tf.where(common == num_read, common, 0)
    )
    return place_texts(
        slots, memory, tf.constant(["a"]), asked, tf.constant(9.0, tf.float64), 60.0
    ).reused.numpy()[0]


def test_the_same_source_is_known():
    assert reused(SOURCE) == 20


@pytest.mark.parametrize(
    "source", [SOURCE[:18], [*SOURCE, 30], [9, *SOURCE[1:]], [*SOURCE[:19], 9]]
)
def test_a_source_that_is_not_all_the_same_is_another(source):
    # Whatever was read of one was read with what stands behind it.
    assert reused(source) == 0
