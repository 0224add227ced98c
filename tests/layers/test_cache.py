"""Memories that grow and are written in place."""

import numpy as np
import tensorflow as tf

from tfllm.layers import KVCache, MultiHeadAttention, Window, grow, unseen
from tfllm.layers.cache import empty_cache, places, write

HEADS, WIDTH = 2, 3


def random(seed, entries, rows=2):
    return tf.random.stateless_normal([rows, HEADS, entries, WIDTH], [seed, 0])


def test_a_cache_begins_without_entries():
    cache = empty_cache(tf.constant(4), HEADS, WIDTH, "bfloat16")
    assert [x.shape.as_list() for x in cache] == [[4, HEADS, 0, WIDTH]] * 2
    assert {x.dtype for x in cache} == {tf.bfloat16}


def test_a_grown_cache_holds_what_it_held_and_zeros_behind_it():
    k, v = random(1, 3), random(2, 3)
    cache = grow(grow(KVCache(k, v), 3), tf.constant(5))
    for grown, old in zip(cache, (k, v), strict=True):
        np.testing.assert_array_equal(grown[:, :, :3], old)
        np.testing.assert_array_equal(grown[:, :, 3:], np.zeros([2, HEADS, 2, WIDTH]))


def test_new_entries_are_written_where_each_row_s_begin_and_nowhere_else():
    k, v = random(1, 2), random(2, 2)
    cache = grow(empty_cache(2, HEADS, WIDTH, "float32"), 6)
    place = places(tf.constant([4, 1]), 2, HEADS, 6)
    for written, new in zip(write(cache, k, v, place), (k, v), strict=True):
        expected = np.zeros([2, HEADS, 6, WIDTH])
        expected[0, :, 4:], expected[1, :, 1:3] = new[0], new[1]
        np.testing.assert_array_equal(written, expected)


def test_what_is_written_takes_the_dtype_of_the_cache():
    cache = grow(empty_cache(2, HEADS, WIDTH, "bfloat16"), 2)
    place = places(tf.constant([0, 0]), 2, HEADS, 2)
    cache = write(cache, random(1, 2), random(2, 2), place)
    np.testing.assert_array_equal(cache.k, tf.cast(random(1, 2), tf.bfloat16))


def test_caches_grown_in_one_graph_do_not_share_memory():
    attention = MultiHeadAttention(HEADS)
    attention.build((None, None, HEADS * WIDTH))

    @tf.function(autograph=False)
    def write_the_first_of_two(rows, entries):
        first, second = (attention.empty_cache(rows) for _ in range(2))
        first, second = (grow(grow(cache, entries - 1), entries) for cache in (first, second))
        x = tf.random.stateless_normal([rows * entries, HEADS * WIDTH], [1, 2])
        start, visible = tf.zeros([rows], tf.int32), tf.ones([rows, entries, entries], tf.bool)
        _, first = attention.extend(x, Window.of(start, visible, HEADS), first)
        with tf.control_dependencies(first):
            return [tf.identity(t) for t in (*first, *second)]

    keys, values, *second = write_the_first_of_two(tf.constant(3), tf.constant(8))
    assert np.abs(keys - values).max() > 0.1
    assert not np.any(second)


def test_a_loop_that_grows_a_cache_and_writes_to_it_finds_all_that_it_wrote():
    def body(step, cache):
        cache = grow(cache, 2 * step + 2)
        new = tf.fill([3, HEADS, 2, WIDTH], tf.cast(step, tf.float32))
        place = places(tf.fill([3], 2 * step), 2, HEADS, 2 * step + 2)
        return step + 1, write(cache, new, -new, place)

    @tf.function(autograph=False)
    def run(rows):
        cache = empty_cache(rows, HEADS, WIDTH, "float32")
        shapes = tf.TensorShape([]), KVCache(*[tf.TensorShape([None, HEADS, None, WIDTH])] * 2)
        loop = (0, cache)
        return tf.while_loop(lambda step, _: step < 5, body, loop, shape_invariants=shapes)[1]

    k, v = run(tf.constant(3))
    expected = np.broadcast_to(np.arange(10).reshape(-1, 1) // 2, (3, HEADS, 10, WIDTH))
    np.testing.assert_array_equal(k, expected)
    np.testing.assert_array_equal(v, -expected)


def test_what_is_not_visible_has_no_share_in_a_softmax():
    visible = np.array([[[1, 0, 1], [1, 1, 1]], [[0, 1, 0], [1, 0, 0]]], bool)
    shares = tf.nn.softmax(unseen(visible) + 50.0 * random(3, 3)[:, :, :2]).numpy()
    np.testing.assert_array_equal(shares[~np.broadcast_to(visible[:, None], shares.shape)], 0)
    assert unseen(visible).shape == (2, 1, 2, 3)
    biased = Window.of(tf.constant([0, 0]), visible, HEADS, bias=tf.ones([1, HEADS, 2, 3])).scores
    assert biased.shape == (2, HEADS, 2, 3)
    np.testing.assert_array_equal(biased[:, 0] == 1, visible)
