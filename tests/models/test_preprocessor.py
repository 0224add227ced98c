import numpy as np
import pytest
import tensorflow as tf

from tfllm.models import CausalLMPreprocessor


@pytest.fixture(scope="module")
def reads(tokenizer):
    return CausalLMPreprocessor(tokenizer, sequence_length=12)


def test_a_document_is_begin_tokens_end_then_padding(reads, tokenizer):
    ids = [tokenizer.bos_id, *tokenizer.encode("a cat"), tokenizer.eos_id]
    none = 12 - len(ids)
    x, y, weight = reads(["a cat"])
    assert x["token_ids"].numpy().tolist() == [ids + [tokenizer.pad_id] * none]
    assert x["segment_ids"].numpy().tolist() == [[1] * len(ids) + [0] * none]
    assert x["positions"].numpy().tolist() == [list(range(12))]
    assert y.numpy().tolist() == [ids[1:] + [tokenizer.pad_id] * (none + 1)]
    assert weight.numpy().tolist() == [[1] * (len(ids) - 1) + [0] * (none + 1)]


def test_a_long_document_is_cut_and_every_position_has_a_target(reads, tokenizer):
    text = "one two three four five"
    ids = [tokenizer.bos_id, *tokenizer.encode(text)]
    x, y, weight = reads([text, ""])
    assert x["token_ids"][0].numpy().tolist() == ids[:12]
    assert y[0].numpy().tolist() == ids[1:13]
    assert weight[0].numpy().tolist() == [1] * 12
    # Of an empty document the end is learned.
    assert y[1, 0] == tokenizer.eos_id
    assert weight[1].numpy().tolist() == [1] + [0] * 11


def test_a_weight_per_document_weighs_its_tokens(reads):
    *_, plain = reads(["a cat", "one two"])
    *_, weighed = reads(["a cat", "one two"], sample_weight=[2.0, 0.5])
    np.testing.assert_array_equal(weighed, plain * [[2.0], [0.5]])


def test_one_string_is_a_row_without_a_batch(reads):
    single, batch = reads("a cat"), reads(["a cat"])
    for one, row in zip(tf.nest.flatten(single), tf.nest.flatten(batch), strict=True):
        np.testing.assert_array_equal(one, row[0])


def test_another_length_can_be_asked_for_and_is_in_the_config(reads):
    x, y, weight = reads(["a cat"], sequence_length=5)
    assert {t.shape for t in (*x.values(), y, weight)} == {(1, 5)}
    assert reads.get_config()["sequence_length"] == 12


def test_a_dataset_of_strings_has_rows_of_one_known_length(reads):
    dataset = tf.data.Dataset.from_tensor_slices(["a cat", "one two three four"]).batch(2)
    x, y, _ = dataset.map(reads).element_spec
    assert x["token_ids"].shape.as_list() == y.shape.as_list() == [None, 12]
