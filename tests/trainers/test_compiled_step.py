"""What a TPU needs of a step: one program of static shapes, without strings and the host."""

import numpy as np
import pytest
import tensorflow as tf

from tfllm.data import Records
from tfllm.trainers import Optimizer, Recipe
from tfllm.trainers.compiled import whole_steps

TRANSFORMER = {
    "num_layers": 1, "num_heads": 2, "hidden_dim": 16, "intermediate_dim": 24, "dropout": 0.0
}  # fmt: skip
LSTM = {"num_layers": 1, "hidden_dim": 16}
# Every kind of recipe: task, family, sizes, what the data were prepared for.
STEPS = [
    ("causal_lm", "gpt", {"num_layers": 1, "num_heads": 2, "hidden_dim": 16}, "causal_lm"),
    ("causal_lm", "lstm", LSTM, "causal_lm"),
    ("masked_lm", "bert", TRANSFORMER, "masked_lm"),
    ("seq2seq_lm", "t5", TRANSFORMER, "denoising"),
    ("seq2seq_lm", "marian", TRANSFORMER, "seq2seq_lm"),
    ("text_classifier", "bert", TRANSFORMER, "text_classifier"),
]
# Sizes that depend on values, and calls that leave the device.
BANNED = {
    "Where", "Unique", "UniqueV2", "NonZero", "DynamicPartition", "ListDiff", "PyFunc",
    "EagerPyFunc", "PyFuncStateless", "StringFormat", "AsString", "Assert", "PrintV2",
    "LookupTableFindV2", "NonMaxSuppressionV5", "XlaHostCompute",
}  # fmt: skip


def operations(function):
    """Every operation of a graph and of the functions that it calls."""
    definition = function.graph.as_graph_def()
    nodes = [*definition.node, *(n for f in definition.library.function for n in f.node_def)]
    return {node.op for node in nodes}, {
        node.name for node in nodes if tf.string.as_datatype_enum in attributes(node)
    }


def attributes(node):
    return {value.type for value in node.attr.values() if value.HasField("type")}


@pytest.mark.parametrize(("task", "family", "sizes", "kind"), STEPS)
def test_a_step_is_one_program_of_static_shapes(data, task, family, sizes, kind):
    recipe = Recipe(
        name="step",
        task=task,
        family=family,
        model=sizes,
        data=str(data[kind]),
        global_batch=4,
        steps=2,
        precision="bfloat16",
        microbatches=2,
        optimizer=Optimizer(clip_norm=1.0),
    )
    ((_, step, tensors),) = whole_steps(recipe, Records(data[kind]))
    used, with_strings = operations(step.get_concrete_function(*tensors))
    assert not used & BANNED
    assert not with_strings
    program = step.experimental_get_compiler_ir(*tensors)(stage="hlo")
    assert "<=" not in program  # how XLA writes a size that is bounded and not known
    assert "custom-call" not in program


# Each compilation takes seconds: one of them is for every day.
@pytest.mark.parametrize(
    ("task", "family", "sizes", "kind"),
    [STEPS[0], *(pytest.param(*step, marks=pytest.mark.slow) for step in STEPS[1:])],
)
def test_steps_that_xla_compiled_are_the_steps_that_it_did_not(
    data, train, task, family, sizes, kind
):
    recipe = Recipe(
        name="step",
        task=task,
        family=family,
        model=sizes,
        data=str(data[kind]),
        global_batch=4,
        steps=3,
        precision="bfloat16",
        microbatches=2,
        ema=0.5,
        optimizer=Optimizer(peak_learning_rate=1e-2, warmup_steps=0, clip_norm=0.1),
        validation_steps=1,
    )
    plain, expected = train(recipe, "plain", strategy="one", jit_compile=False)
    whole, losses = train(recipe, "whole", strategy="one", jit_compile=True)
    np.testing.assert_allclose(losses, expected, rtol=2e-3)  # bfloat16 keeps 8 bits
    assert whole.validation_loss == pytest.approx(plain.validation_loss, rel=2e-3)
