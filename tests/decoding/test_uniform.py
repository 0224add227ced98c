import numpy as np
import tensorflow as tf

from tfllm.decoding.uniform import uniform

MASK = 2**64 - 1
GOLDEN = 0x9E3779B97F4A7C15


def mixed(x):
    x = ((x ^ (x >> 30)) * 0xBF58476D1CE4E5B9) & MASK
    x = ((x ^ (x >> 27)) * 0x94D049BB133111EB) & MASK
    return x ^ (x >> 31)


def split_mix_64(seed, step):
    """The formula in Python's whole numbers, which do not overflow."""
    state = (mixed((seed + GOLDEN) & MASK) + (step + 1) * GOLDEN) & MASK
    return (mixed(state) >> 40) / 2**24


def test_split_mix_64_is_the_published_one():
    # The first outputs of Vigna's splitmix64.c for the seed 1234567.
    state, found = 1234567, []
    for _ in range(3):
        state = (state + GOLDEN) & MASK
        found.append(mixed(state))
    assert found == [6457827717110365317, 3203168211198807973, 9817491932198370423]


def test_the_numbers_are_those_of_the_formula():
    seeds = [0, 1, -1, 7, 2**40, 2**63 - 1, -(2**63)]
    for step in (0, 1, 63, 2**31 - 1):
        expected = [split_mix_64(seed, step) for seed in seeds]
        assert uniform(tf.constant(seeds, tf.int64), step).numpy().tolist() == expected


def test_a_row_s_number_does_not_depend_on_its_place():
    alone = uniform(tf.constant([5], tf.int64), 3)
    among = uniform(tf.constant([1, 2, 5, 4], tf.int64), 3)
    assert among[2] == alone[0]


def test_neighbouring_seeds_and_steps_are_uniform_and_independent():
    steps, seeds = 200, 500
    rows = tf.range(seeds, dtype=tf.int64)
    u = np.stack([uniform(rows, step) for step in range(steps)], 1)  # [seeds, steps]
    assert u.min() >= 0
    assert u.max() < 1
    n = u.size
    assert abs(u.mean() - 1 / 2) < 4 * np.sqrt(1 / 12 / n)
    assert abs(u.var() - 1 / 12) < 4 * np.sqrt(1 / 180 / n)
    counts, _ = np.histogram(u, 16, (0, 1))
    assert ((counts - n / 16) ** 2 / (n / 16)).sum() < 38  # chi-square, 15 degrees, p = 0.001
    for other in (u[:, 1:], u[1:]):
        this = u[:, :-1] if other.shape[1] < steps else u[:-1]
        assert abs(np.corrcoef(this.ravel(), other.ravel())[0, 1]) < 4 / np.sqrt(n)
