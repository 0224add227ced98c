"""Tokens that would say again what a text says: against a search with tuples."""

import numpy as np
import pytest
import tensorflow as tf

from tfllm.decoding.ngrams import Text, joined, repeating


def test_new_tokens_come_directly_behind_each_prompt():
    text = joined(
        tf.constant([[1, 2, 3], [4, 0, 0]]), tf.constant([3, 1]), tf.constant([[5, 6], [7, 8]]), 1
    )
    assert text.count.numpy().tolist() == [4, 2]
    assert text.token_ids[0, :4].numpy().tolist() == [1, 2, 3, 5]
    assert text.token_ids[1, :2].numpy().tolist() == [4, 7]


@pytest.mark.parametrize("size", [1, 2, 3, 5])
def test_what_would_complete_an_n_gram_of_the_text_is_found_in_each_row_alone(size):
    rng = np.random.default_rng(size)
    token_ids = rng.integers(0, 3, [40, 12]).astype("int32")
    count = rng.integers(0, 13, 40).astype("int32")
    found = repeating(Text(tf.constant(token_ids), tf.constant(count)), size, 4).numpy()
    for row, n in enumerate(count):
        text = tuple(token_ids[row, :n])
        ngrams = {text[i : i + size] for i in range(n - size + 1)}
        expected = [n >= size and (*text[n - size + 1 :], token) in ngrams for token in range(4)]
        assert found[row].tolist() == expected
    assert found.any()
    assert not found.all()
