"""Which slot a text gets."""

import tensorflow as tf

from tfllm.decoding.slot_choice import choose_slots, common_prefix


def chosen(common, free, used_at, lengths, wanted=None):
    common = tf.constant(common)
    choice = choose_slots(
        tf.constant([True] * len(common) if wanted is None else wanted),
        tf.constant(free),
        tf.constant(used_at, tf.float64),
        common,
        tf.constant(lengths),
    )
    return [x.numpy().tolist() for x in choice]


def test_without_anything_in_common_the_slot_that_rested_longest_is_taken():
    slot, source, reused = chosen([[0, 3, 0]] * 3, [True, False, True], [5, 1, 2], [40, 40, 40])
    assert slot == [2, 0, -1]
    assert source[:2] == [2, 0]
    assert reused == [0, 0, 0]


def test_a_continuation_takes_over_its_slot_and_a_shared_beginning_is_copied():
    slot, source, reused = chosen([[50, 0, 0], [20, 0, 0]], [True] * 3, [9, 5, 1], [60, 0, 90])
    assert (slot[0], source[0], reused[0]) == (0, 0, 50)
    assert (slot[1], source[1], reused[1]) == (2, 2, 0)  # the first text overwrites its source
    slot, source, reused = chosen([[20, 0, 0]], [True] * 3, [9, 5, 1], [60, 0, 90])
    assert (slot, source, reused) == ([2], [0], [20])  # most of the text in slot 0 is kept
    slot, source, reused = chosen([[50, 0, 0]], [False, True, True], [9, 5, 1], [60, 0, 90])
    assert (slot, source, reused) == ([2], [0], [50])


def test_rows_that_want_none_get_none():
    assert chosen([[50, 0]] * 2, [True] * 2, [1, 2], [60, 60], [False, True])[0] == [-1, 0]


def test_texts_share_tokens_up_to_the_first_that_differs_and_no_further_than_both_go():
    common = common_prefix(
        tf.constant([[1, 2, 3, 4], [1, 9, 3, 4]]),
        tf.constant([4, 3]),
        tf.constant([[1, 2, 3, 9], [1, 2, 3, 4], [0, 2, 3, 4]]),
        tf.constant([4, 2, 4]),
    )
    assert common.numpy().tolist() == [[3, 2, 0], [1, 1, 0]]
