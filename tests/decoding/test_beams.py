"""Beam search on a model that is a table, against one written with lists and floats."""

import math

import numpy as np
import pytest
import tensorflow as tf

from tfllm.decoding import (
    Beams,
    Beginning,
    Penalties,
    Rules,
    Sampling,
    StopStrings,
    beam_search,
    decode,
    wanted,
)
from tfllm.errors import UserError
from tfllm.layers.cache import empty_cache, grow, places, write

VOCABULARY, CONTEXTS = 24, 199
WEIGHTS = (1 + np.arange(512) * 7919 % 191).astype("int64")  # of the positions, for `context`


def context(tokens):
    """int, the line of the table that follows these tokens."""
    tokens = np.asarray(tokens, "int64")
    return int(2 * ((tokens + 1) * WEIGHTS[: len(tokens)]).sum() % CONTEXTS)


class Table:
    """The next logits depend on all tokens so far, of which a memory is kept and written in place.

    With `early` it has read all but the last tokens of the prompts when the search begins, and the
    logits depend on the tokens once by the memory, and once by a sum that each text carries.
    """

    def __init__(self, seed, spread=2.0, early=False):
        table = np.random.default_rng(seed).normal(size=[CONTEXTS, VOCABULARY])
        self.table = (table * spread).astype("float32")
        self.early = early
        self.steps, self.grown = [], []

    def begin(self, prompt, lengths):
        memory = empty_cache(tf.shape(prompt)[0], 1, 1, tf.float32)
        if not self.early:
            return Beginning(prompt, tf.zeros_like(lengths), (memory,))
        # Static shapes are to be those of all steps: of memories that grow, and of three texts.
        prompt = tf.compat.v1.placeholder_with_default(prompt, [None, None])
        values = tf.cast(prompt, tf.float32)[:, None, :, None]
        memory = grow(memory, tf.shape(prompt)[1])
        memory = _written(memory, values, tf.zeros_like(lengths))
        terms = tf.cast(prompt + 1, tf.int64) * tf.constant(WEIGHTS)[: tf.shape(prompt)[1]]
        before = tf.sequence_mask(lengths - 1, tf.shape(prompt)[1])
        total = tf.reduce_sum(tf.where(before, terms, 0), -1, keepdims=True)
        total = tf.compat.v1.placeholder_with_default(total, [None, None])
        last = tf.gather(prompt, lengths[:, None] - 1, batch_dims=1)
        return Beginning(last, lengths - 1, (memory, total))

    def grow(self, state, entries, length):
        if tf.executing_eagerly():
            self.grown.append((int(entries), int(length)))
        # The memory may be there already for what was read.
        entries = tf.maximum(entries, tf.shape(state[0].k)[2])
        return grow(state[0], entries), *state[1:]

    def step(self, new, state):
        if tf.executing_eagerly():
            self.steps.append((new.positions.numpy().tolist(), new.start.numpy().tolist()))
            assert (new.positions < self.grown[-1][1]).numpy().all()
        memory, *total = state
        values = tf.cast(new.token_ids, tf.float32)[:, None, :, None]
        memory = _written(memory, values, new.start)
        tokens = tf.cast(memory.k[:, :1, : tf.shape(new.visible)[2], 0], tf.int64)
        terms = (tokens + 1) * tf.gather(WEIGHTS, new.entry_positions)[:, None]
        seen = tf.reduce_sum(tf.where(new.visible, terms, 0), -1)  # of each token
        if not self.early:
            sums = 2 * seen
        else:
            total = (
                total[0] if new.parent is None else tf.gather(total[0], new.parent, batch_dims=1)
            )
            total += tf.cast(new.token_ids + 1, tf.int64) * tf.gather(WEIGHTS, new.positions)
            sums, total = seen + total, [total]
        logits = tf.gather(tf.constant(self.table), sums % CONTEXTS)
        return wanted(tf.reshape(logits, [-1, VOCABULARY]), new), (memory, *total)


def _written(memory, values, start):
    place = places(start, tf.shape(values)[2], 1, tf.shape(memory.k)[2])
    return write(memory, values, values, place)


def log_softmax(x):
    x = np.asarray(x, "float64")
    return x - np.logaddexp.reduce(x)


def next_scores(table, prompt, new, limit, rules, penalty):
    repetition, presence, frequency = penalty
    scores = log_softmax(table[context(prompt + new)])
    for token in set(prompt + new):
        scores[token] *= repetition if scores[token] < 0 else 1 / repetition
    for token in set(new):
        scores[token] -= presence + frequency * new.count(token)
    scores[list(rules.suppressed_token_ids)] = -math.inf
    text, size = prompt + new, rules.no_repeat_ngram_size
    if size:
        ngrams = {tuple(text[i : i + size]) for i in range(len(text) - size + 1)}
        end = text[len(text) - size + 1 :] if len(text) >= size - 1 else [None]
        again = [token for token in range(VOCABULARY) if (*end, token) in ngrams]
        scores[again] = -math.inf
    if len(new) < rules.min_new_tokens:
        scores[list(rules.end_token_ids)] = -math.inf
    for forced, here in (
        (rules.forced_first_token_id, not new),
        (rules.forced_last_token_id, len(new) == limit - 1),
    ):
        if here and forced >= 0:
            scores[:] = -math.inf
            scores[forced] = 0
    return scores


NO_PENALTY = (1.0, 0.0, 0.0)  # of repetition, presence and frequency


def search(
    table, prompt, *, limit, num_beams, length_penalty, early_stopping, rules, penalty=NO_PENALTY
):  # fmt: skip
    """[(score, logprob, tokens)], best first: fewer than k where there are no more."""
    running, finished = [(0.0, [])], []
    for length in range(1, limit + 1):
        found = [
            (logprob + score, [*new, token])
            for logprob, new in running
            for token, score in enumerate(next_scores(table, prompt, new, limit, rules, penalty))
            if score > -math.inf
        ]
        found.sort(reverse=True, key=lambda text: text[0])
        found = found[: num_beams * max(2, 1 + len(rules.end_token_ids))]
        over = [length == limit or new[-1] in rules.end_token_ids for _, new in found]
        running = [text for text, ends in zip(found, over, strict=True) if not ends][:num_beams]
        finished += [
            (logprob / length**length_penalty, logprob, new)
            for (logprob, new), ends in list(zip(found, over, strict=True))[:num_beams]
            if ends
        ]
        finished = sorted(finished, reverse=True, key=lambda text: text[0])[:num_beams]
        if not running or (len(finished) == num_beams and early_stopping is True):
            break
        hoped = limit if early_stopping == "never" and length_penalty > 0 else length
        if len(finished) == num_beams and running[0][0] / hoped**length_penalty <= finished[-1][0]:
            break
    return finished


def penalties_of(penalty):
    """Of float32[b, 3]."""
    return Penalties(*tf.unstack(penalty, axis=1))


def run(model, prompts, *, limit, length_penalty, penalty=None, **settings):
    """`beam_search` of lists, as a list of arrays."""
    lengths = [len(prompt) for prompt in prompts]
    padded = [prompt + [5] * (max(lengths) + 1 - len(prompt)) for prompt in prompts]
    found = beam_search(
        model,
        tf.constant(padded),
        tf.constant(lengths),
        limit=tf.constant(limit),
        length_penalty=tf.constant(length_penalty, tf.float32),
        penalties=None if penalty is None else penalties_of(tf.constant(penalty, tf.float32)),
        **settings,
    )
    return Beams(*(x.numpy() for x in found))


def assert_row(found, row, expected, rules):
    """A row's texts are `expected`; what is behind them are no texts."""
    count = len(expected)
    assert (found.score[row, count:] < -1e7).all()
    for i, (score, logprob, tokens) in enumerate(expected):
        assert found.token_ids[row, i, : found.num_tokens[row, i]].tolist() == tokens
        assert found.score[row, i] == pytest.approx(score, abs=1e-4, rel=1e-5)
        assert found.logprob[row, i] == pytest.approx(logprob, abs=1e-4)
        assert found.stopped[row, i] == (tokens[-1] in rules.end_token_ids)


def drawn(rng, rows):
    """Settings of all rows, and lists of those that each row has."""

    def maybe(make, off):
        return make() if rng.random() < 0.3 else off

    tokens = rng.permutation(VOCABULARY).tolist()
    rules = Rules(
        end_token_ids=tuple(tokens[: rng.integers(1, 5)]),
        suppressed_token_ids=maybe(lambda: tuple(tokens[5:9]), ()),
        forced_first_token_id=maybe(lambda: tokens[10], -1),
        forced_last_token_id=maybe(lambda: tokens[0], -1),
        min_new_tokens=maybe(lambda: int(rng.integers(1, 5)), 0),
        no_repeat_ngram_size=maybe(lambda: int(rng.integers(1, 4)), 0),
    )
    settings = {
        "num_beams": int(rng.integers(2, 6)),
        "early_stopping": [True, False, "never"][rng.integers(3)],
        "rules": rules,
    }
    penalty = maybe(lambda: rng.choice([0.5, 1.0, 1.3, 3.0], rows).tolist(), None)
    if penalty:
        counted = np.random.default_rng(rng.integers(1 << 30)).choice([0.0, -0.7, 1.5], [rows, 2])
        penalty = [(one, *others) for one, others in zip(penalty, counted.tolist(), strict=True)]
    return settings, {
        "prompts": [
            rng.integers(0, VOCABULARY, n).tolist() for n in rng.choice([1, 2, 3, 5, 61, 63], rows)
        ],
        "limit": rng.integers(0, 9, rows).tolist(),
        "length_penalty": rng.choice([0.0, 0.5, 1.0, 1.5, 2.0, -0.5, -1.0], rows).tolist(),
        "penalty": penalty,
    }


@pytest.mark.parametrize("seed", range(80))
def test_texts_and_scores_equal_a_search_with_lists(seed):
    rng = np.random.default_rng(seed)
    model = Table(seed, spread=rng.choice([0.3, 1.0, 3.0]), early=seed % 4 < 2)
    settings, rows = drawn(rng, 5)
    # Half of them want to end at once, with any of the ways to.
    model.table[:, list(settings["rules"].end_token_ids)] += 2 * model.table.std() * (seed % 2)
    found = run(model, **rows, **settings)
    penalties = rows["penalty"] or [NO_PENALTY] * 5
    for row in range(5):
        limit = rows["limit"][row]
        if limit == 0:
            assert not found.num_tokens[row].any()
            assert not found.score[row].any()
            continue
        expected = search(
            model.table, rows["prompts"][row], limit=limit, penalty=penalties[row],
            length_penalty=rows["length_penalty"][row], **settings,
        )  # fmt: skip
        assert_row(found, row, expected, settings["rules"])


def test_the_three_ways_to_stop_early_give_three_results():
    rng = np.random.default_rng(0)
    model, rules, penalties = Table(2, spread=4.0), Rules((0, 11)), [2.0, 1.0, -0.5, -1.0]
    model.table[:, [0, 11]] += 6.0
    rows = {
        "prompts": rng.integers(0, VOCABULARY, [200, 3]).tolist(),
        "limit": [8] * 200,
        "length_penalty": penalties * 50,
    }
    results = []
    for early_stopping in (True, False, "never"):
        settings = {"num_beams": 2, "early_stopping": early_stopping, "rules": rules}
        found = run(model, **rows, **settings)
        for row, prompt in enumerate(rows["prompts"]):
            penalty = rows["length_penalty"][row]
            expected = search(model.table, prompt, limit=8, length_penalty=penalty, **settings)
            assert_row(found, row, expected, rules)
        results.append(found.score)
    at_once, soon, late = results
    assert (at_once != soon).any()
    assert (soon != late).any()


def test_a_search_that_can_say_one_text_only_ends_at_its_limit():
    model, rules = Table(0), Rules((0,), forced_first_token_id=7, forced_last_token_id=0)
    settings = {"num_beams": 3, "early_stopping": False, "rules": rules}
    found = run(model, [[4, 5]], limit=[2], length_penalty=[1.0], **settings)
    assert_row(found, 0, [(0.0, 0.0, [7, 0])], rules)
    assert len(model.steps) == 2


@pytest.mark.parametrize("seed", range(12))
def test_one_beam_is_greedy_search(seed):
    rng = np.random.default_rng(seed)
    model = Table(seed, early=bool(seed % 2))
    settings, rows = drawn(rng, 6)
    penalty = [
        (1.0, 0.0, 0.0), (0.5, 0.0, 0.0), (3.0, 0.0, 1.0), (1.3, 1.5, 0.2), (1.0, -1.0, 0.5),
        (2.0, 0.0, 0.0),
    ]  # fmt: skip
    found = run(model, **rows | {"penalty": penalty}, **settings | {"num_beams": 1})
    lengths = [len(prompt) for prompt in rows["prompts"]]
    off = Sampling(*(tf.fill([6], x) for x in (0.0, 0, 1.0, 0.0, 1.0, 0.0, 0.0, np.int64(0))))
    greedy = decode(
        model,
        tf.constant([prompt + [5] * (64 - len(prompt)) for prompt in rows["prompts"]]),
        tf.constant(lengths),
        limit=tf.constant(rows["limit"]),
        rules=settings["rules"],
        sampling=off._replace(
            **{
                f"{name}_penalty": column
                for name, column in penalties_of(tf.constant(penalty))._asdict().items()
            }
        ),
        stops=StopStrings(tf.fill([6, 1], ""), tf.strings.as_string, 1),
    )
    for row, n in enumerate(greedy.num_tokens.numpy()):
        assert found.num_tokens[row, 0] == n
        tokens = greedy.token_ids[row, :n].numpy().tolist()
        assert found.token_ids[row, 0, :n].tolist() == tokens
        assert found.stopped[row, 0] == greedy.stopped[row]


ROWS = {
    "prompts": [[1, 2, 3], [4], [9, 9], [7, 6, 5, 4, 3, 2], [1, 2, 3]],
    "limit": [8, 3, 0, 6, 5],
    "length_penalty": [1.0, 0.0, 1.0, 2.0, -1.0],
    "penalty": [
        (1.0, 0.0, 0.0),
        (1.5, 0.0, 0.0),
        (1.0, 0.0, 0.0),
        (1.0, 2.0, 0.5),
        (2.0, 0.0, -1.0),
    ],  # fmt: skip
}
RULES = Rules(end_token_ids=(0, 11), suppressed_token_ids=(2,))
SETTINGS = {"num_beams": 3, "early_stopping": False, "rules": RULES}


def assert_same(found, expected):
    """Of `Beams`, but for what stands behind the texts."""
    seen = np.arange(found.token_ids.shape[-1]) < found.num_tokens[..., None]
    assert (found.num_tokens == expected.num_tokens).all()
    wanted = expected.token_ids[..., : found.token_ids.shape[-1]]
    assert (np.where(seen, found.token_ids, 0) == np.where(seen, wanted, 0)).all()
    assert (found.stopped == expected.stopped).all()
    assert (found.score == expected.score).all()
    assert (found.logprob == expected.logprob).all()


@pytest.mark.parametrize("early", [False, True])
@pytest.mark.parametrize("early_stopping", [True, False, "never"])
def test_a_row_gives_the_same_alone_and_in_any_batch(early_stopping, early):
    model, settings = Table(1, early=early), SETTINGS | {"early_stopping": early_stopping}
    together = run(model, **ROWS, **settings)
    backwards = run(model, **{name: values[::-1] for name, values in ROWS.items()}, **settings)
    assert_same(Beams(*(x[::-1] for x in backwards)), together)
    for row in range(5):
        alone = {name: values[row : row + 1] for name, values in ROWS.items()}
        assert_same(run(model, **alone, **settings), Beams(*(x[row : row + 1] for x in together)))


def test_the_search_ends_with_its_last_row_and_those_that_are_done_stay_where_they_are():
    model = Table(1)
    one = {name: values[:1] for name, values in ROWS.items()}
    run(model, **one | {"limit": [4]}, **SETTINGS)
    # Three of them are there for each step, behind the prompt.
    assert model.steps == [
        ([[0, 1, 2, 3]], [0]),
        ([[3] * 3], [4]),
        ([[4] * 3], [7]),
        ([[5] * 3], [10]),
    ]
    model.steps.clear()
    two = {name: values[:2] for name, values in ROWS.items()}
    run(model, **two | {"limit": [4, 2]}, **SETTINGS)
    assert model.steps == [
        ([[0, 1, 2, 3]] * 2, [0, 0]),
        ([[3] * 3, [1] * 3], [4, 4]),
        ([[4] * 3, [0] * 3], [7, 7]),
        ([[5] * 3, [0] * 3], [10, 10]),
    ]
    model.steps.clear()
    run(model, **two | {"limit": [0, 0]}, **SETTINGS)
    assert model.steps == []
    run(model, **two | {"limit": [0, 1]}, **SETTINGS)
    assert len(model.steps) == 1


@pytest.mark.parametrize("early", [False, True])
def test_memories_grow_when_they_are_full_and_no_further_than_is_needed(early):
    model, settings = Table(1, early=early), SETTINGS | {"rules": Rules(())}
    run(model, [[1] * 9, [2] * 60], limit=[30, 28], length_penalty=[1.0] * 2, **settings)
    # 61 of the prompts, where one is padding; then three at each of 29 steps.
    ends = [61 + 3 * step for step in range(30)]
    assert [start[0] for _, start in model.steps][1:] == ends[:-1]
    assert [entries for entries, _ in model.grown] == [64, 128, 192]
    assert ends[-1] == 148
    # Positions are fewer than entries: 60, and those of the steps for which there is room.
    assert [length for _, length in model.grown] == [64, 128, 128]


def test_a_search_that_ends_early_does_not_grow_for_its_limit():
    model = Table(1)
    model.table[:, 0] += 50.0
    run(model, [[1, 2]], limit=[300], length_penalty=[1.0], **SETTINGS | {"early_stopping": True})
    assert model.grown == [(64, 64)]


@pytest.mark.parametrize("early", [False, True])
def test_texts_that_outgrow_several_memories_equal_a_search_with_lists(early):
    model, rules = Table(3, spread=3.0, early=early), Rules((0,), min_new_tokens=25)
    settings = {"num_beams": 3, "early_stopping": False, "rules": rules}
    prompts, limits = [[4, 5, 6], list(range(20)) * 4], [45, 30]
    found = run(model, prompts, limit=limits, length_penalty=[1.0] * 2, **settings)
    assert model.grown[-1][0] == 256
    for row, prompt in enumerate(prompts):
        expected = search(model.table, prompt, limit=limits[row], length_penalty=1.0, **settings)
        assert_row(found, row, expected, rules)


def test_a_row_of_nan_ends_at_its_limit_and_leaves_the_others_alone():
    model = Table(1)
    model.table[context([4])] = np.nan
    both = {"prompts": [[4], [1, 2, 3]], "limit": [6, 3], "length_penalty": [1.0, 1.0]}
    found = run(model, **both, **SETTINGS)
    assert len(model.steps) == 6
    alone = run(model, **{name: values[1:] for name, values in both.items()}, **SETTINGS)
    assert_same(alone, Beams(*(x[1:] for x in found)))


@pytest.mark.parametrize("early", [False, True])
def test_a_graph_for_a_fixed_number_of_rows_gives_the_same(early):
    model = Table(1, early=early)

    @tf.function(autograph=False)
    def search():
        prompts = tf.ragged.constant(ROWS["prompts"]).to_tensor(shape=[5, 6])
        return beam_search(
            model, tf.cast(prompts, tf.int32), tf.constant([3, 1, 2, 6, 3]),
            limit=tf.constant(ROWS["limit"]), length_penalty=tf.constant(ROWS["length_penalty"]),
            penalties=penalties_of(tf.constant(ROWS["penalty"])), **SETTINGS,
        )  # fmt: skip

    assert_same(Beams(*(x.numpy() for x in search())), run(model, **ROWS, **SETTINGS))


@pytest.mark.parametrize("early", [False, True])
def test_an_exported_search_gives_the_same_through_a_session(tmp_path, early):
    model = Table(1, early=early)

    class Module(tf.Module):
        @tf.function(
            autograph=False,
            input_signature=[
                tf.TensorSpec([None, None], tf.int32, "prompt"),
                tf.TensorSpec([None], tf.int32, "lengths"),
                tf.TensorSpec([None], tf.int32, "limit"),
                tf.TensorSpec([None], tf.float32, "length_penalty"),
                tf.TensorSpec([None, 3], tf.float32, "penalty"),
            ],
        )
        def search(self, prompt, lengths, limit, length_penalty, penalty):
            return beam_search(
                model, prompt, lengths, limit=limit, length_penalty=length_penalty,
                penalties=penalties_of(penalty), **SETTINGS,
            )._asdict()  # fmt: skip

    module = Module()
    tf.saved_model.save(module, str(tmp_path), signatures=module.search)
    expected = run(model, **ROWS, **SETTINGS)
    with tf.Graph().as_default(), tf.compat.v1.Session() as session:
        loaded = tf.compat.v1.saved_model.load(session, ["serve"], str(tmp_path))
        signature = loaded.signature_def["serving_default"]

        def ask(rows):
            lengths = [len(prompt) for prompt in rows["prompts"]]
            feed = rows | {
                "lengths": np.array(lengths, "int32"),
                "penalty": np.reshape(rows["penalty"], [-1, 3]),
                "prompt": np.array(
                    [prompt + [5] * (7 - len(prompt)) for prompt in rows["prompts"]], "int32"
                ).reshape(-1, 7),
            }
            fetched = session.run(
                {name: info.name for name, info in signature.outputs.items()},
                {info.name: feed[name] for name, info in signature.inputs.items()},
            )
            return Beams(**fetched)

        assert_same(ask(ROWS), expected)
        none = ask({name: [] for name in ROWS})
        assert none.token_ids.shape == (0, 3, 1)


@pytest.mark.parametrize("kind", ["gpt", "lstm"])
def test_real_caches_follow_their_beams(new_model, rereading, kind):
    model = new_model(kind, hidden_dim=16)
    settings = {"num_beams": 3, "early_stopping": "never", "rules": Rules((2,))}
    rows = {
        "prompts": [[1, 30, 7, 8], [1, 100], [1]],
        "limit": [9, 6, 7],
        "length_penalty": [1.0, 0.0, 2.0],
    }
    found = run(model, **rows, **settings)
    expected = run(rereading(model), **rows, **settings)
    assert (found.num_tokens == expected.num_tokens).all()
    assert (found.token_ids == expected.token_ids).all()
    np.testing.assert_allclose(found.score, expected.score, rtol=1e-4)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"num_beams": 0}, "num_beams must be at least 1; got 0"),
        ({"early_stopping": "always"}, "True, False or \"never\"; got 'always'"),
        ({"early_stopping": None}, 'True, False or "never"; got None'),
    ],
)
def test_wrong_settings_are_refused(settings, message):
    with pytest.raises(UserError, match=message):
        run(Table(1), **ROWS, **SETTINGS | settings)
