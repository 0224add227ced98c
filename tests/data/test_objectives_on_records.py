"""Objectives on prepared data: from texts to batches that are a function of the step."""

import numpy as np
import pytest
import tensorflow as tf

from tfllm import data
from tfllm.data.objectives import make_objective

TASKS = {
    "masked_lm": ("masked_lm", {"pair": "next_sentence", "whole_words": True}),
    "denoising": ("span_corruption", {}),
}


@pytest.fixture(scope="module", params=TASKS)
def made(request, corpus, tmp_path_factory):
    """Prepared data of a task, and its objective."""
    out = tmp_path_factory.mktemp("made") / "out"
    data.prepare(
        corpus, out, task=request.param, vocabulary_size=400, sequence_length=32,
        document_bytes=500, validation_fraction=0.2,
    )  # fmt: skip
    records = data.Records(out)
    name, settings = TASKS[request.param]
    return records, make_objective(name, settings, records.tokenizer)


def test_a_run_that_goes_on_at_a_step_gets_what_it_would_have_got(made):
    records, objective = made
    whole = list(records.batches("train", 4, objective, seed=5, num_steps=4))
    later = list(records.batches("train", 4, objective, seed=5, start_step=2, num_steps=2))
    for batch, again in zip(whole[2:], later, strict=True):
        tf.nest.map_structure(np.testing.assert_array_equal, batch, again)
    masks = [np.concatenate([np.ravel(t) for t in tf.nest.flatten(batch)]) for batch in whole]
    assert (masks[0] != masks[1]).any()


def test_all_shapes_are_static(made):
    records, objective = made
    spec = records.batches("train", 4, objective, num_steps=1).element_spec
    assert all(tensor.shape.is_fully_defined() for tensor in tf.nest.flatten(spec))
