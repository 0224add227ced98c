"""The loop alone, on a model that is a table: which token follows which."""

import math

import numpy as np
import pytest
import tensorflow as tf

from tfllm.decoding import Beginning, Rules, Sampling, StopStrings, decode

END, PAD = 3, 0


class Table:
    """After token i come the logits `table[i]`; keeps what it was asked.

    With `early` it has read all but the last tokens of the prompts when the loop begins.
    """

    def __init__(self, table, early=False):
        self.table = tf.constant(table, tf.float32)
        self.early = early
        self.steps, self.entries, self.grown = [], [], []

    def begin(self, prompt, lengths):
        if not self.early:
            return Beginning(prompt, tf.zeros_like(lengths), ())
        last = tf.gather(prompt, lengths[:, None] - 1, batch_dims=1)
        return Beginning(last, lengths - 1, ())

    def grow(self, state, entries, length):
        self.grown.append((int(entries), int(length)))
        return state

    def step(self, new, state):
        asked = new.token_ids, new.positions, new.start
        self.steps.append(tuple(x.numpy().tolist() for x in asked))
        entries = self.grown[-1][0]
        self.entries.append(entries)
        assert new.visible.shape == (*new.token_ids.shape, entries)
        # All behind it is its own past.
        number = new.positions - new.start[:, None]
        assert (number == tf.range(number.shape[1])).numpy().all()
        assert (
            (tf.reduce_sum(tf.cast(new.visible, tf.int32), -1) == new.positions + 1).numpy().all()
        )
        assert (
            (new.visible == (new.entry_positions[:, None] <= new.positions[..., None]))
            .numpy()
            .all()
        )
        assert new.entry_positions.numpy().tolist() == [list(range(entries))]
        assert new.parent is None
        newest = tf.gather(new.token_ids, new.wanted, batch_dims=1)
        return tf.gather(self.table, newest), state


def run(model, prompt, lengths, limit, penalty=1.0):
    rows = len(prompt)
    off = (0.0, 0, 1.0, 0.0, penalty, 0.0, 0.0, np.int64(0))
    off = Sampling(*(tf.fill([rows], x) for x in off))
    stops = StopStrings(tf.fill([rows, 1], ""), tf.strings.as_string, 1)
    decoded = decode(
        model, tf.constant(prompt), tf.constant(lengths),
        limit=tf.constant(limit), rules=Rules((END,)), sampling=off, stops=stops,
    )  # fmt: skip
    ids = decoded.token_ids.numpy()
    return [ids[row, :n].tolist() for row, n in enumerate(decoded.num_tokens.numpy())]


def chain_table():
    """4 → 5 → 6 → 7 → end."""
    table = np.zeros([8, 8])
    for token, following in ((4, 5), (5, 6), (6, 7), (7, END), (END, 4), (PAD, 4)):
        table[token, following] = 1
    return table


@pytest.fixture
def chain():
    return Table(chain_table())


@pytest.mark.parametrize("early", [False, True])
def test_each_row_ends_at_its_own_end_or_limit(early):
    chain = Table(chain_table(), early)
    found = run(chain, [[7, 4], [4, PAD], [5, 6], [6, PAD]], [2, 1, 2, 1], [9, 2, 0, 9])
    assert found == [[5, 6, 7, END], [5, 6], [], [7, END]]


def test_the_loop_ends_with_its_last_row(chain):
    run(chain, [[4], [7]], [1, 1], [3, 90])
    assert len(chain.steps) == 3
    chain.steps.clear()
    run(chain, [[4], [5]], [1, 1], [0, 0])
    assert chain.steps == []


def test_a_row_s_tokens_stand_behind_its_own_prompt(chain):
    run(chain, [[4, PAD, PAD], [4, 4, 4]], [1, 3], [3, 3])
    assert chain.steps == [
        ([[4, PAD, PAD], [4, 4, 4]], [[0, 1, 2]] * 2, [0, 0]),
        ([[5], [5]], [[1], [3]], [1, 3]),
        ([[6], [6]], [[2], [4]], [2, 4]),
    ]


def test_a_model_that_has_read_its_prompts_is_asked_for_their_last_tokens(chain):
    early = Table(chain_table(), early=True)
    prompt, lengths = [[4, PAD, PAD], [4, 4, 5]], [1, 3]
    found = run(early, prompt, lengths, [3, 3])
    assert found == run(chain, prompt, lengths, [3, 3]) == [[5, 6, 7], [6, 7, END]]
    assert early.steps[0] == ([[4], [5]], [[0], [2]], [0, 2])
    assert early.steps[1:] == chain.steps[1:]


@pytest.mark.parametrize(("early", "prompt"), [(False, 60), (True, 60), (False, 64), (True, 1)])
def test_memories_grow_when_they_are_full_and_no_further_than_is_needed(early, prompt):
    loop = Table(np.eye(8), early)  # every token follows itself
    run(loop, [[4] * prompt, [5] * prompt], [prompt, 1], [130 - prompt] * 2)
    needed = [prompt + step for step in range(130 - prompt)]
    assert loop.entries == [64 * math.ceil(entries / 64) for entries in needed]
    assert loop.grown == [(entries, entries) for entries in (64, 128, 192)][: len(loop.grown)]
    assert loop.grown[-1] == (64 * math.ceil(needed[-1] / 64),) * 2


def test_a_prompt_that_fills_several_memories_has_room_at_once():
    loop = Table(np.eye(8))
    run(loop, [[4] * 70, [5] * 70], [70, 3], [60, 3])
    assert loop.grown == [(128, 128), (192, 192)]
    assert loop.entries == [128] * 59 + [192]


def test_a_memory_does_not_grow_for_tokens_that_are_never_written(chain):
    run(chain, [[4], [4]], [1, 1], [200, 1])
    assert chain.grown == [(64, 64)]
    # The row that is done stays in its own prompt, so the loop ends at the other one's length.
    chain.grown.clear()
    run(chain, [[7] * 64, [4] * 64], [64, 2], [200, 200])
    assert chain.grown == [(64, 64)]


def test_a_penalty_sees_neither_padding_nor_what_has_not_come_yet():
    logits = np.zeros(8)
    logits[[PAD, 4, 5, 6]] = 4.0, 3.9, 3.8, 3.7
    model = Table(np.tile(logits, [8, 1]))
    # Each token that has come is halved, so the next one is the best of those that have not.
    found = run(model, [[7, PAD, PAD], [7, 4, 7]], [1, 3], [4, 3], penalty=2.0)
    assert found == [[PAD, 4, 5, 6], [PAD, 5, 6]]
