"""The choice of a token against an independent one: the processors of `transformers`, in numpy."""

import numpy as np
import pytest
import tensorflow as tf

from tfllm.decoding import Penalties, Rules, Sampling
from tfllm.decoding import sampling as module
from tfllm.decoding.ngrams import Text

VOCABULARY, DRAWS = 12, 4000
SETTINGS = [
    {},
    {"temperature": 0.5},
    {"temperature": 2.0},
    {"top_k": 1},
    {"top_k": 4},
    {"top_k": 100},
    {"top_p": 0.0},
    {"top_p": 0.6},
    {"top_p": 0.95},
    {"min_p": 0.2},
    {"min_p": 1.0},
    {"repetition_penalty": 1.8},
    {"repetition_penalty": 0.5},
    {"presence_penalty": 1.5},
    {"frequency_penalty": 0.7},
    {"frequency_penalty": -0.5, "presence_penalty": -2.0},
    {"repetition_penalty": 1.4, "frequency_penalty": 0.5, "presence_penalty": 0.4, "top_k": 9},
    {"temperature": 1.5, "top_k": 8, "top_p": 0.8},
    {"temperature": 0.7, "top_p": 0.9, "min_p": 0.1, "repetition_penalty": 1.3},
    {"temperature": 3.0, "top_k": 6, "top_p": 0.9, "min_p": 0.25, "repetition_penalty": 2.0},
]
OFF = {
    "temperature": 1.0, "top_k": 0, "top_p": 1.0, "min_p": 0.0, "repetition_penalty": 1.0,
    "presence_penalty": 0.0, "frequency_penalty": 0.0,
}  # fmt: skip
HISTORY = [0, 3, 5, 3]
WRITTEN = [3, 5, 3]  # behind the prompt


FREE = Rules((0,))


def choose(logits, rows, history, step, rules=FREE, limit=99, written=None):
    nothing = Text(history[:, :0], tf.zeros_like(history[:, 0]))

    def restrict(scores):
        text = Text(history, tf.fill(tf.shape(history)[:1], step))
        return rules.restrict(scores, step, tf.fill(tf.shape(scores)[:1], limit), lambda: text)

    return module.choose(
        logits, rows, history=lambda: history, written=written or nothing, step=step,
        restrict=restrict,
    )  # fmt: skip


def softmax(scores):
    e = np.exp(scores - scores.max())
    return e / e.sum()


def processed(
    logits,
    temperature,
    top_k,
    top_p,
    min_p,
    repetition_penalty,
    presence_penalty,
    frequency_penalty,
):
    """float[v], the probabilities after every processor of `transformers`, in its order.

    Behind the penalty of repetition are those that it has not got.
    """
    scores = logits.astype("float64")
    for token in set(HISTORY):
        s = scores[token]
        scores[token] = s * repetition_penalty if s < 0 else s / repetition_penalty
    for token in WRITTEN:
        scores[token] -= frequency_penalty
    for token in set(WRITTEN):
        scores[token] -= presence_penalty
    scores = scores / temperature
    if top_k:
        kth = np.sort(scores)[-min(top_k, VOCABULARY)]
        scores = np.where(scores < kth, -np.inf, scores)
    if top_p < 1:
        order = np.argsort(scores)  # ascending, as TopPLogitsWarper
        cumulative = np.cumsum(softmax(scores[order]))
        remove = cumulative <= 1 - top_p
        remove[-1] = False  # min_tokens_to_keep
        scores[order[remove]] = -np.inf
    if min_p:
        probability = softmax(scores)
        scores = np.where(probability < min_p * probability.max(), -np.inf, scores)
    return softmax(scores)


def sampling(rows, seeds):
    columns = {name: [({**OFF, **row})[name] for row in rows] for name in OFF}
    return Sampling(
        temperature=tf.constant(columns["temperature"]),
        top_k=tf.constant(columns["top_k"]),
        top_p=tf.constant(columns["top_p"]),
        min_p=tf.constant(columns["min_p"]),
        repetition_penalty=tf.constant(columns["repetition_penalty"]),
        presence_penalty=tf.constant(columns["presence_penalty"]),
        frequency_penalty=tf.constant(columns["frequency_penalty"]),
        seed=tf.constant(seeds, tf.int64),
    )


@pytest.fixture(scope="module")
def logits():
    return np.random.default_rng(5).normal(0, 1.5, VOCABULARY).astype("float32")


@pytest.fixture(scope="module")
def drawn(logits):
    """int[settings, draws], all in one call, each row with a seed of its own."""
    rows = [settings for settings in SETTINGS for _ in range(DRAWS)]
    tokens = choose(
        tf.tile(logits[None], [len(rows), 1]),
        sampling(rows, range(len(rows))),
        tf.tile([HISTORY], [len(rows), 1]),
        3,
        written=Text(tf.tile([[*WRITTEN, 9]], [len(rows), 1]), tf.fill([len(rows)], 3)),
    )
    return tokens.numpy().reshape(len(SETTINGS), DRAWS)


@pytest.mark.parametrize("which", range(len(SETTINGS)), ids=[str(s) for s in SETTINGS])
def test_what_can_be_drawn_and_how_often_is_as_in_transformers(drawn, logits, which):
    expected = processed(logits, **{**OFF, **SETTINGS[which]})
    found = np.bincount(drawn[which], minlength=VOCABULARY)
    assert not found[expected == 0].any()
    assert found[expected > 0.003].all()  # 0.997 ** 4000 = 6e-6
    tokens = expected > 0
    assert np.abs(found / DRAWS - expected).sum() / 2 < 0.02
    chi_square = ((found - DRAWS * expected) ** 2)[tokens] / (DRAWS * expected[tokens])
    degrees = tokens.sum() - 1
    assert chi_square.sum() < degrees + 4 * np.sqrt(2 * degrees) + 1e-9


def test_temperature_zero_is_the_best_token_after_the_penalty(logits):
    rows = [
        {"temperature": 0.0, "top_k": 3},
        {"temperature": 0.0, "repetition_penalty": 50.0},
        {"temperature": 1.0, "top_k": 1},
    ]
    history = tf.tile([[int(logits.argmax())]], [3, 1])
    tokens = choose(tf.tile(logits[None], [3, 1]), sampling(rows, [1, 2, 3]), history, 0)
    second = np.argsort(logits)[-2]
    assert tokens.numpy().tolist() == [logits.argmax(), second, logits.argmax()]


def test_a_temperature_that_float32_cannot_divide_by_is_the_best_token(logits):
    tokens = choose(
        tf.tile(logits[None] * 1e5, [50, 1]),
        sampling([{"temperature": 1e-38}] * 50, range(50)),
        tf.zeros([50, 1], tf.int32),
        0,
    )
    assert set(tokens.numpy()) == {logits.argmax()}


def test_the_penalty_counts_a_repeated_token_once(logits):
    rows = sampling([{"temperature": 0.0, "repetition_penalty": 1.1}] * 2, [0, 0])
    best, second = np.argsort(logits)[[-1, -2]]
    near = logits.copy()
    near[best], near[second] = 2.0, 1.7  # 2.0 / 1.1 is above 1.7, 2.0 / 1.1 ** 2 is not
    history = tf.constant([[best, best, best], [best, 0, 1]], tf.int32)
    tokens = choose(tf.tile(near[None], [2, 1]), rows, history, 0)
    assert tokens.numpy().tolist() == [best, best]


def test_counts_are_of_each_row_and_leave_rows_without_penalties_to_the_bit():
    rows = sampling(
        [
            {"presence_penalty": 1.25, "frequency_penalty": 0.1},
            {"frequency_penalty": -2.0},
            {},
            {"presence_penalty": 2.0},
        ],
        [0] * 4,
    )
    scores = np.random.default_rng(3).normal(size=(4, VOCABULARY)).astype("float32")
    token_ids = np.int32([[1, 4, 1, 1, 7], [2, 2, 2, 2, 2], [1, 1, 1, 1, 1], [6, 6, 8, 8, 8]])
    count = [4, 5, 5, 0]
    found = rows.penalties.taken_from(
        tf.constant(scores), lambda: None, Text(tf.constant(token_ids), tf.constant(count))
    )
    expected = scores.copy()
    presence, frequency = np.float32([1.25, 0, 0, 2]), np.float32([0.1, -2, 0, 0])
    for row in range(4):
        written = token_ids[row, : count[row]].tolist()
        for token in set(written):
            expected[row, token] -= frequency[row] * np.float32(written.count(token))
            expected[row, token] -= presence[row]
    np.testing.assert_array_equal(found, expected)
    alone = Penalties(*(column[1:2] for column in rows.penalties)).taken_from(
        tf.constant(scores[1:2]), lambda: None, Text(tf.constant(token_ids[1:2]), tf.constant([5]))
    )
    np.testing.assert_array_equal(alone, expected[1:2])


def test_a_row_is_drawn_alike_wherever_it_stands_and_whatever_stands_beside_it():
    rows, seeds = [*SETTINGS[1:5], SETTINGS[16]], [11, 12, 13, 14, 15]
    table = np.random.default_rng(1).normal(size=(5, VOCABULARY)).astype("float32")
    history = np.random.default_rng(2).integers(0, VOCABULARY, (5, 3), "int32")

    def chosen(order):
        return (
            choose(
                tf.constant(table[order]),
                sampling([rows[i] for i in order], [seeds[i] for i in order]),
                tf.constant(history[order]),
                2,
                written=Text(tf.constant(history[order]), tf.fill([len(order)], 2)),
            )
            .numpy()
            .tolist()
        )

    together = chosen([0, 1, 2, 3, 4])
    assert chosen([4, 2, 0]) == [together[i] for i in (4, 2, 0)]
    assert [chosen([i])[0] for i in range(5)] == together


@pytest.mark.parametrize(
    "row",
    [
        {},
        {"top_k": 20},
        {"top_k": 700},
        {"top_p": 0.8},
        {"top_p": 0.999},
        {"min_p": 0.2},
        {"min_p": 0.001},
        {"top_k": 600, "top_p": 0.9, "temperature": 1.5},
        {"top_k": 60, "top_p": 0.9, "min_p": 0.01, "temperature": 0.7},
    ],
    ids=str,
)
@pytest.mark.parametrize("spread", [0.5, 4.0])
def test_of_a_large_vocabulary_as_much_is_looked_at_as_the_draw_needs(row, spread, monkeypatch):
    logits = np.random.default_rng(3).normal(0, spread, [200, 1000]).astype("float32")
    rows, history = (
        sampling([{"temperature": 1.0, **row}] * 200, range(200)),
        tf.zeros([200, 1], tf.int32),
    )
    few = choose(tf.constant(logits), rows, history, 0)
    monkeypatch.setattr(module, "_FEW", 1000)
    everything = choose(tf.constant(logits), rows, history, 0)
    np.testing.assert_array_equal(few, everything)
    assert len(set(few.numpy().tolist())) > 20


def test_the_rules_say_what_may_be_said_and_when():
    logits = tf.constant([[0.0, 3.0, 2.0, 1.0, 0.5]] * 2)
    greedy, warm = {"temperature": 0.0}, {"temperature": 0.01}
    rows, history = sampling([greedy, warm], [1, 2]), tf.zeros([2, 1], tf.int32)

    def said(step, **rules):
        chosen = choose(logits, rows, history, step, Rules((1, 2), **rules), limit=6)
        one, other = chosen.numpy()
        assert one == other
        return one

    assert said(0) == 1
    assert said(0, suppressed_token_ids=(1, 3)) == 2
    assert [said(step, no_repeat_ngram_size=1) for step in (0, 1)] == [1, 1]
    assert [said(step, min_new_tokens=2) for step in (0, 1, 2)] == [3, 3, 1]
    assert [said(step, forced_first_token_id=4) for step in (0, 1)] == [4, 1]
    assert [said(step, forced_last_token_id=4) for step in (4, 5, 6)] == [1, 4, 1]
    # A forced token is said even where it is suppressed.
    assert said(0, forced_first_token_id=4, suppressed_token_ids=(4,)) == 4


def test_any_of_several_tokens_ends_a_text():
    ends = Rules((3, 5)).ends(tf.constant([[3, 4], [5, 0]]))
    assert ends.numpy().tolist() == [[True, False], [True, False]]
