"""Which examples share a batch: each in its turn, within the budget, by the step alone."""

import itertools

import numpy as np
import pytest

from tfllm.data.buckets import Bucket, BucketOrder, choose_buckets, efficiency_of_any
from tfllm.errors import UserError

BUDGET = 400


@pytest.fixture(scope="module")
def lengths():
    draw = np.random.default_rng(0)
    source = np.minimum(draw.geometric(0.1, 1000) + 1, 40)
    return np.stack([source, np.clip(source + draw.integers(-3, 4, 1000), 1, 40)], 1)


@pytest.fixture(scope="module")
def order(lengths):
    return BucketOrder(lengths, choose_buckets(lengths, BUDGET, 6, multiple=4), seed=3)


def test_no_batch_exceeds_the_budget_and_each_could_not_hold_one_more_group_of_rows(order):
    assert 1 < len(order.buckets) <= 6
    for bucket in order.buckets:
        assert bucket.rows % 4 == 0
        assert bucket.positions() <= BUDGET < bucket.positions() + 4 * sum(bucket.shape)


def test_every_example_fits_its_bucket_and_none_that_is_narrower(order, lengths):
    for i, members in enumerate(order.members):
        assert (lengths[members] <= order.buckets[i].shape).all()
        for narrower in order.buckets[:i]:
            assert not (lengths[members] <= narrower.shape).all(1).any()
    assert sorted(np.concatenate(order.members)) == list(range(len(lengths)))


def test_after_each_epoch_every_example_came_as_often_but_for_less_than_a_batch_per_bucket(order):
    counts = np.zeros(len(order.lengths), int)
    for epoch in range(1, 5):
        for step in range(order.first_step(epoch - 1), order.first_step(epoch)):
            np.add.at(counts, order[step].examples, 1)
        for members, bucket in zip(order.members, order.buckets, strict=True):
            missing = epoch - counts[members]
            assert missing.min() >= 0
            assert missing.sum() == epoch * len(members) % bucket.rows


def test_without_a_rest_an_epoch_has_every_example_exactly_once():
    lengths = np.repeat([[5], [10]], 40, axis=0)
    order = BucketOrder(lengths, [Bucket((5,), 8), Bucket((10,), 4)], seed=1)
    for epoch in range(3):
        steps = range(order.first_step(epoch), order.first_step(epoch + 1))
        assert len(steps) == order.steps_per_epoch() == 15
        seen = np.concatenate([order[step].examples for step in steps])
        assert sorted(seen) == list(range(80))


def test_a_step_has_the_same_examples_whatever_was_asked_for_before(order, lengths):
    fresh = BucketOrder(lengths, order.buckets, seed=3)
    for step in (700, 0, 5, 333, 6):
        np.testing.assert_array_equal(fresh[step].examples, order[step].examples)
        assert fresh[step].bucket == order[step].bucket


def test_the_seed_and_the_epoch_decide_the_order_of_the_batches_and_what_is_in_them(order, lengths):
    other = BucketOrder(lengths, order.buckets, seed=4)

    def buckets(order, epoch):
        return [order[s].bucket for s in range(*map(order.first_step, (epoch, epoch + 1)))]

    assert buckets(order, 0) != buckets(other, 0)
    assert buckets(order, 0) != buckets(order, 1)[: len(buckets(order, 0))]
    changes = sum(a != b for a, b in itertools.pairwise(buckets(order, 0)))
    assert changes > 4 * len(order.buckets)  # mixed, not one bucket after the other
    widest = len(order.buckets) - 1
    first, second = (
        next(o[s].examples for s in range(99) if o[s].bucket == widest) for o in (order, other)
    )
    assert list(first) != list(second)


def test_one_pass_has_every_example_once_and_marks_what_fills_up(order):
    batches = order.one_pass()
    seen = np.concatenate([batch.examples[~batch.is_filling] for batch in batches])
    assert sorted(seen) == list(range(len(order.lengths)))
    assert any(batch.is_filling.any() for batch in batches)
    assert all(len(b.examples) == order.buckets[b.bucket].rows for b in batches)


def test_the_numbers_of_a_corpus_made_by_hand():
    lengths = np.array([[2]] * 16 + [[3]] * 8 + [[10]] * 8)
    buckets = choose_buckets(lengths, 80, most=2, multiple=4)
    assert buckets == [Bucket((3,), 24), Bucket((10,), 8)]
    order = BucketOrder(lengths, buckets)
    tokens = 16 * 2 + 8 * 3 + 8 * 10
    assert order.efficiency() == tokens / (24 * 3 + 8 * 10)
    assert order.steps_per_epoch() == 2
    sizes = {(order.tokens(order[step]), order.positions(order[step])) for step in range(2)}
    assert sizes == {(16 * 2 + 8 * 3, 72), (80, 80)}
    assert efficiency_of_any(lengths, len(lengths)) == tokens / (32 * 10)
    assert choose_buckets(lengths, 80, most=1) == [Bucket((10,), 8)]
    assert len(choose_buckets(lengths, 80, most=9, multiple=4)) == 2  # of 2 there is no batch


def test_a_split_is_at_the_side_that_saves_the_most():
    many = np.array([[4, 4]] * 64 + [[5, 40]] * 64)
    assert choose_buckets(many, 400, 2) == [Bucket((4, 4), 48), Bucket((5, 40), 8)]


def test_a_budget_that_holds_no_row_of_the_longest_example_is_refused():
    with pytest.raises(UserError, match=r"at least 400, 8 rows of the longest .*20 \+ 30 tokens\)"):
        choose_buckets(np.array([[20, 2], [1, 30]]), 399, 4)
