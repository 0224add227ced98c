"""Which tokens are masked, and what stands there instead."""

import numpy as np
import pytest
import tensorflow as tf

from tfllm.errors import UserError
from tfllm.tokenizers.masking import Masking, mask
from tfllm.tokenizers.wordpiece import WordPieceTokenizer

_PIECES = str.split(
    """
    [PAD] [UNK] [CLS] [SEP] [MASK] the a cat dog sat on mat log one two three four five not is
    good bad film very who where in paris berlin lives ? . , ' ##s ##ing ##ly 你 好 c ##a ##t ly s
    """
)


@pytest.fixture(scope="module")
def pieces():
    return WordPieceTokenizer(_PIECES)


def masked(pieces, texts, seed=0, **settings):
    reads = pieces.tokenize(texts)
    ids = tf.concat([tf.fill([len(texts), 1], 2), reads, tf.fill([len(texts), 1], 3)], 1)
    present = tf.cast(tf.ones_like(ids).to_tensor(0), tf.int32)
    inputs = {"token_ids": ids.to_tensor(0), "padding_mask": present}

    def uniform(shape, draw):
        return tf.random.stateless_uniform(shape, (seed, draw))

    x, targets, weight = mask(inputs, pieces, Masking(**settings), uniform)
    return inputs["token_ids"].numpy(), x, targets.numpy(), weight.numpy()


def test_the_targets_are_the_tokens_that_were_there_and_no_special_ones(pieces):
    texts = ["the cat sat on the mat " * 3, "one [MASK] two [SEP]", ""]
    before, x, targets, weight = masked(pieces, texts, rate=0.5)
    at = np.take_along_axis(before, x["mask_positions"].numpy(), 1)
    np.testing.assert_array_equal(at, targets)
    assert weight.sum(-1).tolist() == [9, 1, 0]
    assert not np.isin(targets[weight == 1], [0, 2, 3, 4]).any()
    others = np.ones_like(before, bool)
    rows, places = np.nonzero(weight)
    others[rows, x["mask_positions"].numpy()[rows, places]] = False
    np.testing.assert_array_equal(x["token_ids"].numpy()[others], before[others])


def test_most_become_the_mask_some_another_token_and_some_stay(pieces):
    texts = ["the cat sat on the mat " * 20] * 40
    before, x, targets, weight = masked(pieces, texts, rate=0.5)
    now = np.take_along_axis(x["token_ids"].numpy(), x["mask_positions"].numpy(), 1)[weight == 1]
    was = targets[weight == 1]
    assert len(now) == 40 * 60
    np.testing.assert_allclose(np.mean(now == pieces.mask_id), 0.8, atol=0.03)
    stay = 0.1 + 0.1 / 43  # a random token is the same one now and then
    np.testing.assert_allclose(np.mean(now == was), stay, atol=0.03)
    assert len(np.unique(now)) > 30
    assert before.shape == x["token_ids"].shape


def test_a_part_of_the_tokens_is_masked_and_one_at_least(pieces):
    *_, weight = masked(pieces, ["the cat sat on the mat " * 10, "one two"])
    assert weight.sum(-1).tolist() == [9, 1]


def test_rows_and_draws_are_masked_in_other_places_and_can_be_restored(pieces):
    texts = ["the cat sat on the mat " * 5] * 2
    before, first, targets, _ = masked(pieces, texts, 1)
    second = masked(pieces, texts, 2)[1]
    assert (first["token_ids"].numpy() != second["token_ids"].numpy()).any()
    rows = first["mask_positions"].numpy()
    assert (rows[0] != rows[1]).any()
    restored = first["token_ids"].numpy()
    np.put_along_axis(restored, rows, targets, 1)
    np.testing.assert_array_equal(restored, before)


@pytest.mark.parametrize("masking", [{"rate": 0.0}, {"rate": 1.5}, {"mask": 0.8, "random": 0.3}])
def test_senseless_fractions_are_refused(masking):
    with pytest.raises(UserError, match="masking must have a rate above 0 and at most 1, and frac"):
        Masking.of(masking)


def test_words_are_masked_whole_as_far_as_they_fit(pieces):
    texts = ["cats sat lying on the mats singly " * 4, "catsing dogsly", "catsing dog"]
    before, x, _, weight = masked(pieces, texts, rate=0.4, whole_words=True, mask=1.0, random=0.0)
    is_masked = x["token_ids"].numpy() == pieces.mask_id
    goes_on = np.isin(before, [pieces.token_to_id(p) for p in ("##s", "##ing", "##ly")])
    for row in range(3):
        for place in np.nonzero(goes_on[row])[0]:
            assert is_masked[row, place] == is_masked[row, place - 1]
    # 0.4 of 48 tokens, of 6 and of 4: words of three tokens do not fit into two.
    assert weight.sum(-1).tolist() == is_masked.sum(-1).tolist() == [19, 0, 1]


def test_other_words_are_masked_whole_in_another_draw(pieces):
    texts = ["cats sat lying on the mats singly"] * 200
    *_, x, _, weight = masked(pieces, texts, rate=0.3, whole_words=True, mask=1.0, random=0.0)
    share = (x["token_ids"].numpy() == pieces.mask_id).mean(0)
    # Short words are taken more often, as they still fit at the end.
    assert ((share[1:-1] > 0.15) & (share[1:-1] < 0.65)).all()
    assert weight.sum(-1).min() >= 2


def test_the_number_of_masks_is_static_where_the_length_is(pieces):
    def uniform(shape, draw):
        return tf.random.stateless_uniform(shape, (0, draw))

    @tf.function(autograph=False)
    def positions(token_ids):
        inputs = {"token_ids": token_ids, "padding_mask": tf.ones_like(token_ids)}
        return mask(inputs, pieces, Masking(), uniform)[0]["mask_positions"]

    spec = tf.TensorSpec([4, 33], tf.int32)
    assert positions.get_concrete_function(spec).output_shapes == [4, 5]


def test_a_configuration_from_before_whole_words_is_read():
    assert Masking.of({"rate": 0.2, "mask": 0.8, "random": 0.1}) == Masking(0.2, 0.8, 0.1, False)
