"""Masked tokens of two pieces, and whether the pieces belong together."""

import numpy as np
import pytest
import tensorflow as tf

from tfllm.data.objectives import MaskedLM
from tfllm.errors import UserError
from tfllm.tokenizers import train_sentencepiece
from tfllm.tokenizers.wordpiece import WordPieceTokenizer

PAD, UNK, CLS, SEP, MASK = range(5)
LETTERS = [chr(97 + i) for i in range(26)]
STEP = tf.constant([7, 3], tf.int64)


@pytest.fixture(scope="module")
def letters():
    special = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    return WordPieceTokenizer([*special, *LETTERS, *(f"##{letter}" for letter in LETTERS)])


def columns(first, second, size):
    def padded(rows):
        return tf.constant([row + [-1] * (size - len(row)) for row in rows], tf.int64)

    return {"first": padded(first), "second": padded(second)}


def many(rows=600, size=20):
    """Pieces that tell their row: that of the first is its number, that of the second too."""
    numbers = 5 + np.arange(rows) % 50
    full = np.repeat(numbers[:, None], size, 1)
    return {"first": tf.constant(full), "second": tf.constant(full)}


def test_a_row_is_begin_first_piece_separator_second_piece_separator(letters):
    data = columns([[5, 6], [5, 6, 7], [8]], [[9], [], [10, 11, 12]], 3)
    x, y, weight = MaskedLM(letters, mask=0.0, random=0.0)(data, STEP)
    np.testing.assert_array_equal(
        x["token_ids"],
        [
            [CLS, 5, 6, SEP, 9, SEP, PAD, PAD, PAD],
            [CLS, 5, 6, 7, SEP, PAD, PAD, PAD, PAD],
            [CLS, 8, SEP, 10, 11, 12, SEP, PAD, PAD],
        ],
    )
    np.testing.assert_array_equal(
        x["segment_ids"],
        [[0, 0, 0, 0, 1, 1, 0, 0, 0], [0] * 9, [0, 0, 0, 1, 1, 1, 1, 0, 0]],
    )
    np.testing.assert_array_equal(tf.reduce_sum(x["padding_mask"], -1), [6, 5, 7])
    guessed = tf.gather(x["token_ids"], x["mask_positions"], batch_dims=1)
    np.testing.assert_array_equal(guessed, y)
    np.testing.assert_array_equal(weight, [[1, 0], [1, 0], [1, 0]])


def test_a_part_of_many_tokens_is_masked_most_of_it_by_the_mask(letters):
    x, y, weight = MaskedLM(letters)(many(), STEP)
    assert x["token_ids"].shape == (600, 43)
    assert x["mask_positions"].shape == y.shape == weight.shape == (600, 7)
    np.testing.assert_array_equal(tf.reduce_sum(weight, -1), [6] * 600)  # 0.15 of 40
    now = tf.gather(x["token_ids"], x["mask_positions"], batch_dims=1).numpy()[weight == 1]
    np.testing.assert_allclose(np.mean(now == MASK), 0.8, atol=0.02)
    stay = 0.1 + 0.1 / 57  # a random token is the same one now and then
    np.testing.assert_allclose(np.mean(now == y.numpy()[weight == 1]), stay, atol=0.015)
    places = np.bincount(x["mask_positions"].numpy()[weight == 1], minlength=43) / 600
    assert places[[0, 21, 42]].sum() == 0  # the special tokens
    assert ((places[1:21] > 0.09) & (places[1:21] < 0.21)).all()


def test_whole_words_are_masked_whole(letters):
    word = [5, 31, 32]  # a ##a ##b
    data = columns([word * 6] * 50, [word * 6] * 50, 18)
    x, _, weight = MaskedLM(letters, whole_words=True, mask=1.0, random=0.0)(data, STEP)
    is_masked = (x["token_ids"] == MASK).numpy()
    pieces = np.concatenate([is_masked[:, 1:19], is_masked[:, 20:38]], 1).reshape(50, 12, 3)
    np.testing.assert_array_equal(pieces.any(-1), pieces.all(-1))
    np.testing.assert_array_equal(tf.reduce_sum(weight, -1), [3] * 50)  # 5 are wanted
    assert (pieces.any(-1).sum(0) > 0).all()


def test_no_word_reaches_over_a_separator(letters):
    data = columns([[5]], [[31]], 1)  # the second piece begins in the middle of a word
    *_, weight = MaskedLM(letters, rate=0.5, whole_words=True)(data, STEP)
    assert tf.reduce_sum(weight) == 1  # as one word, the two tokens would not fit into one


def test_half_of_the_second_pieces_are_those_of_another_row_and_none_its_own(letters):
    rows = 50
    data = many(rows)
    others = []
    for step in range(40):
        objective = MaskedLM(letters, pair="next_sentence", mask=0.0, random=0.0)
        x, y, weight = objective(data, tf.constant([0, step], tf.int64))
        first, second = x["token_ids"].numpy()[:, [1, 22]].T
        np.testing.assert_array_equal(first, data["first"][:, 0])
        np.testing.assert_array_equal(first != second, y["pair"] == 1)
        np.testing.assert_array_equal(weight["pair"], [1] * rows)
        others += [*((second - first) % rows)[y["pair"] == 1]]
    np.testing.assert_allclose(len(others) / (40 * rows), 0.5, atol=0.04)
    assert sorted(set(others)) == list(range(1, rows))  # any other row


def test_half_of_the_pieces_change_places(letters):
    data = many(400, 2)
    data["second"] = 60 - data["first"]
    objective = MaskedLM(letters, pair="sentence_order", mask=0.0, random=0.0)
    x, y, _ = objective(data, STEP)
    first, second = x["token_ids"].numpy()[:, [1, 4]].T
    label = y["pair"].numpy()
    np.testing.assert_array_equal(first, np.where(label, data["second"][:, 0], data["first"][:, 0]))
    np.testing.assert_array_equal(
        second, np.where(label, data["first"][:, 0], data["second"][:, 0])
    )
    np.testing.assert_allclose(label.mean(), 0.5, atol=0.08)


@pytest.mark.parametrize("pair", ["next_sentence", "sentence_order"])
def test_what_is_no_pair_is_not_judged(letters, pair):
    data = columns([[5]] * 4, [[6], [], [7], []], 2)
    objective = MaskedLM(letters, pair=pair)
    for step in range(8):
        x, _, weight = objective(data, tf.constant([0, step], tf.int64))
        has_two = tf.reduce_sum(tf.cast(x["token_ids"] == SEP, tf.float32), -1) == 2
        kept = weight["pair"] > 0
        assert not kept.numpy()[[1, 3]].any()
        assert has_two.numpy()[kept].all()
        assert (kept.numpy() == has_two.numpy())[[0, 2]].all()


def test_the_step_decides_all_of_it_in_a_graph_of_static_shapes(letters):
    objective = MaskedLM(letters, whole_words=True, pair="next_sentence")
    data = many(8, 6)
    graph = tf.function(lambda seed: objective(data, seed), autograph=False)
    shapes = tf.nest.map_structure(lambda t: t.shape, graph.get_concrete_function(STEP).outputs)
    assert all(shape.is_fully_defined() for shape in shapes)

    def flat(outputs):
        return np.concatenate([np.ravel(t) for t in tf.nest.flatten(outputs)])

    np.testing.assert_array_equal(flat(graph(STEP)), flat(objective(data, STEP)))
    for other in ([7, 4], [8, 3]):
        assert (flat(graph(tf.constant(other, tf.int64))) != flat(graph(STEP))).any()


def test_what_cannot_be_is_refused(letters):
    with pytest.raises(UserError, match="pair must be one of none, .*; got 'next'"):
        MaskedLM(letters, pair="next")
    with pytest.raises(UserError, match="masking must have a rate above 0"):
        MaskedLM(letters, rate=0.0)
    for other in (train_sentencepiece(["a b"] * 9), WordPieceTokenizer(["[UNK]", "[CLS]", "a"])):
        with pytest.raises(UserError, match="masked_lm needs a WordPieceTokenizer with a begin"):
            MaskedLM(other)
    with pytest.raises(UserError, match="needs batches of at least 2 rows"):
        MaskedLM(letters, pair="next_sentence")(columns([[5]], [[6]], 1), STEP)


def test_the_second_piece_of_an_equal_row_is_the_one_that_follows(letters):
    data = columns([[5, 6]] * 8, [[7, 8]] * 8, 2)
    _, y, _ = MaskedLM(letters, pair="next_sentence")(data, STEP)
    np.testing.assert_array_equal(y["pair"], np.zeros(8))
