"""The loop alone, on a model that is a table: which token follows which."""

import numpy as np
import pytest
import tensorflow as tf

from tfllm.decoding import Rules, Sampling, StopStrings, decode

END, PAD = 3, 0


class Table:
    """After token i come the logits `table[i]`; keeps what it was asked."""

    def __init__(self, table):
        self.table = tf.constant(table, tf.float32)
        self.steps = []

    def prefill(self, token_ids, lengths, capacity):
        self.capacity = int(capacity)
        return tf.gather(self.table, tf.gather(token_ids, lengths - 1, batch_dims=1)), ()

    def step(self, token_ids, positions, visible, state):
        self.steps.append((token_ids.numpy().tolist(), positions.numpy().tolist(), int(visible)))
        return tf.gather(self.table, token_ids), state


def run(model, prompt, lengths, limit, penalty=1.0):
    rows = len(prompt)
    off = Sampling(*(tf.fill([rows], x) for x in (0.0, 0, 1.0, 0.0, penalty, np.int64(0))))
    stops = StopStrings(tf.fill([rows, 1], ""), tf.fill([model.table.shape[0]], "x"))
    decoded = decode(
        model, tf.constant(prompt), tf.constant(lengths),
        limit=tf.constant(limit), rules=Rules((END,)), sampling=off, stops=stops,
    )  # fmt: skip
    ids = decoded.token_ids.numpy()
    return [ids[row, :n].tolist() for row, n in enumerate(decoded.num_tokens.numpy())]


@pytest.fixture
def chain():
    """4 → 5 → 6 → 7 → end."""
    table = np.zeros([8, 8])
    for token, following in ((4, 5), (5, 6), (6, 7), (7, END), (END, 4), (PAD, 4)):
        table[token, following] = 1
    return Table(table)


def test_each_row_ends_at_its_own_end_or_limit(chain):
    found = run(chain, [[7, 4], [4, PAD], [5, 6], [6, PAD]], [2, 1, 2, 1], [9, 2, 0, 9])
    assert found == [[5, 6, 7, END], [5, 6], [], [7, END]]


def test_the_loop_ends_with_its_last_row(chain):
    run(chain, [[4], [7]], [1, 1], [3, 90])
    assert len(chain.steps) == 2  # the first of three tokens comes from the prompt
    chain.steps.clear()
    run(chain, [[4], [5]], [1, 1], [0, 0])
    assert chain.steps == []


def test_a_row_s_tokens_stand_behind_its_own_prompt(chain):
    run(chain, [[4, PAD, PAD], [4, 4, 4]], [1, 3], [3, 3])
    assert chain.steps == [([5, 5], [1, 3], 64), ([6, 6], [2, 4], 64)]


def test_the_cache_has_room_for_the_longest_row_and_is_read_as_far_as_needed(chain):
    loop = Table(np.eye(8))  # every token follows itself
    run(loop, [[4] * 60], [60], [70])
    assert loop.capacity == 192  # 60 + 70, rounded up
    assert [visible for *_, visible in loop.steps] == [64] * 4 + [128] * 64 + [192]
    run(chain, [[4], [4]], [1, 1], [200, 1])
    assert chain.capacity == 256


def test_a_penalty_sees_neither_padding_nor_what_has_not_come_yet():
    logits = np.zeros(8)
    logits[[PAD, 4, 5, 6]] = 4.0, 3.9, 3.8, 3.7
    model = Table(np.tile(logits, [8, 1]))
    # Each token that has come is halved, so the next one is the best of those that have not.
    found = run(model, [[7, PAD, PAD], [7, 4, 7]], [1, 3], [4, 3], penalty=2.0)
    assert found == [[PAD, 4, 5, 6], [PAD, 5, 6]]
