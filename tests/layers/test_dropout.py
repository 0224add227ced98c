import numpy as np
import pytest
import tensorflow as tf

from tfllm.layers import Dropout, step_scope


def draw(shape, step=0, seed=0, rate=0.5, draws=1):
    """The last of several draws of one step."""
    dropout = Dropout(rate)
    with step_scope(tf.constant(step), seed):
        for _ in range(draws):
            y = dropout(tf.ones(shape), training=True)
    return y.numpy()


def test_the_same_step_draws_the_same_mask():
    np.testing.assert_array_equal(draw([4, 50], step=3), draw([4, 50], step=3))


@pytest.mark.parametrize("other", [{"step": 4}, {"seed": 1}, {"draws": 2}])
def test_another_step_seed_or_draw_has_another_mask(other):
    assert np.mean(draw([4, 500], **{"step": 3} | other) != draw([4, 500], step=3)) > 0.4


def test_rows_of_a_batch_have_different_masks():
    mask = draw([4, 500])
    for row in range(3):
        assert np.mean(mask[row] != mask[row + 1]) > 0.4


def test_the_kept_fraction_is_one_minus_the_rate_and_what_is_kept_is_scaled():
    y = draw([100, 10, 100], rate=0.3)
    assert np.unique(y).tolist() == [0, np.float32(1 / 0.7)]
    assert abs(np.mean(y > 0) - 0.7) < 4 * np.sqrt(0.3 * 0.7 / y.size)


def test_a_shape_unknown_in_the_graph_gives_the_same_mask():
    dropout = Dropout(0.5)

    @tf.function(input_signature=[tf.TensorSpec([None, None, None])])
    def drop(x):
        with step_scope(tf.constant(5)):
            return dropout(x, training=True)

    np.testing.assert_array_equal(drop(tf.ones([3, 5, 7])), draw([3, 5, 7], step=5))


@pytest.mark.parametrize("width", [1, 2, 3, 4, 5, 6, 7, 8])
def test_two_replicas_draw_the_rows_of_the_global_batch(width):
    strategy = tf.distribute.MirroredStrategy(["CPU:0", "CPU:1"])
    dropout = Dropout(0.5)

    @tf.function
    def on_replicas():
        def replica():
            with step_scope(tf.constant(7)):
                dropout(tf.ones([3, width]), training=True)
                return dropout(tf.ones([3, width]), training=True)

        return strategy.experimental_local_results(strategy.run(replica))

    np.testing.assert_array_equal(tf.concat(on_replicas(), 0), draw([6, width], step=7, draws=2))


def test_outside_of_a_step_every_call_differs():
    dropout = Dropout(0.5)
    first, second = (dropout(tf.ones([2, 500]), training=True).numpy() for _ in range(2))
    assert np.mean(first != second) > 0.4
    assert abs(first.mean() - 1) < 0.2


def test_an_inner_scope_leaves_the_outer_one_as_it_was():
    dropout = Dropout(0.5)
    with step_scope(tf.constant(1)):
        with step_scope(tf.constant(2)):
            inner = dropout(tf.ones([2, 50]), training=True)
        outer = dropout(tf.ones([2, 50]), training=True)
    np.testing.assert_array_equal(inner, draw([2, 50], step=2))
    np.testing.assert_array_equal(outer, draw([2, 50], step=1))


def test_nothing_is_dropped_at_rate_zero_or_outside_of_training():
    x = tf.random.normal([2, 5])
    with step_scope(tf.constant(0)):
        np.testing.assert_array_equal(Dropout(0.0)(x, training=True), x)
        np.testing.assert_array_equal(Dropout(0.5)(x, training=False), x)
        np.testing.assert_array_equal(Dropout(0.5)(x), x)


@pytest.mark.parametrize("rate", [-0.1, 1.0])
def test_a_rate_outside_of_0_to_1_is_refused(rate):
    with pytest.raises(ValueError, match=f"at least 0 and below 1. Received: rate={rate}"):
        Dropout(rate)
