"""Guesses from the text so far: what they are, when they are made, and that they change nothing."""

import numpy as np
import pytest
import tensorflow as tf

from tfllm.decoding import Beginning, Lookup, Rules, Sampling, StopStrings, Text, decode
from tfllm.decoding.prompt_lookup import Pace, continuations
from tfllm.errors import UserError
from tfllm.models import build
from tfllm.models.generation import GenerationSettings


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ([1, 2, 3, 4, 9, 1, 2], [3, 4, 9]),
        ([1, 2, 3, 1, 2, 4, 1, 2], [4, 1, 2]),  # the latest
        ([5, 1, 2, 3, 9, 1, 2, 4, 5, 1, 2], [3, 9, 1]),  # the longest
        ([7, 1, 2, 1, 2], [1, 2, 1]),  # it goes on repeating itself
        ([8, 8, 8], [8, 8, 8]),
        ([1, 2, 3, 4, 5, 2], [-1, -1, -1]),  # one token is no match
        ([1], [-1, -1, -1]),
        ([0, 0], [-1, -1, -1]),
    ],
)
def test_a_text_may_go_on_as_it_did_before(text, expected):
    # What stands behind a text is not part of it.
    padded = tf.constant([text + [text[-1]] * 3 + [2] * (11 - len(text)), [3] * 14])
    found = continuations(Text(padded, tf.constant([len(text), 1])), 3)
    assert found.numpy().tolist() == [expected, [-1, -1, -1]]


def test_after_guesses_that_do_not_pay_there_is_a_longer_and_longer_pause():
    def after(pace, guesses, kept, active):
        return pace.after(tf.constant(guesses), tf.constant(kept), tf.constant(active))

    one, pace = tf.constant([True]), Pace.begin()
    assert pace.guesses(one)
    waits = []
    for _ in range(6):
        pace = after(pace, 4, [0, 4], [True, False])
        waits.append(int(pace.wait))
        while not pace.guesses(one):
            pace = after(pace, 0, [0, 0], [True, False])
    assert waits[0] > 1
    assert waits == sorted(waits)
    assert waits[-1] == waits[-2] < 100
    assert after(pace, 4, [4, 0], [True, False]).guesses(one)
    # What pays for one row does not for many.
    assert after(pace, 4, [1, 1], [True, False]).guesses(one)
    assert not after(pace, 4, [1] * 4, [True] * 4).guesses(one)
    # And of very many rows nothing is guessed.
    assert not pace.guesses(tf.fill([32], True))
    assert pace.guesses(tf.constant([True] + [False] * 31))


class Cycle:
    """After token i comes `following[i]`, sometimes; counts its steps and the rows of the first."""

    rewinds = True

    def __init__(self, following, spread=0.0):
        size = len(following)
        noise = np.random.default_rng(1).normal(0, spread, [size, size])
        self.table = tf.constant(np.eye(size)[following] * 4 + noise, tf.float32)
        self.read = []

    def begin(self, prompt, lengths):
        return Beginning(prompt, tf.zeros_like(lengths), tf.zeros_like(prompt[:, :0]))

    def grow(self, state, entries, length):  # noqa: ARG002
        return tf.pad(state, [[0, 0], [0, entries - tf.shape(state)[1]]])

    def step(self, new, state):
        """Remembers the tokens, and says what follows what it remembers at their positions."""
        self.read.append(tuple(new.token_ids.shape))
        rows, width = new.token_ids.shape
        place = new.start[:, None] + tf.range(width)
        index = tf.stack([tf.repeat(tf.range(rows)[:, None], width, 1), place], -1)
        state = tf.tensor_scatter_nd_update(state, index, new.token_ids)
        seen = tf.reduce_sum(tf.cast(new.visible, tf.int32), -1) - 1
        newest = tf.gather(tf.gather(state, seen, batch_dims=1), new.wanted, batch_dims=1)
        return tf.gather(self.table, newest), state


def _named(tokens):
    return tf.strings.join(["<", tf.strings.as_string(tokens), ">"])


def run(model, prompts, new, lookup=0, prompt_of=None, stop="", **sampling):
    lengths = tf.constant([len(prompt) for prompt in prompts])
    padded = tf.constant([prompt + [0] * (9 - len(prompt)) for prompt in prompts])
    rows = len(prompt_of or prompts)
    kinds = {
        "temperature": np.float32(0), "top_k": np.int32(0), "top_p": np.float32(1),
        "min_p": np.float32(0), "repetition_penalty": np.float32(1),
        "presence_penalty": np.float32(0), "frequency_penalty": np.float32(0),
    }  # fmt: skip
    settings = Sampling(
        *(
            tf.fill([rows], kind.dtype.type(sampling.get(name, kind)))
            for name, kind in kinds.items()
        ),
        seed=tf.range(rows, dtype=tf.int64),
    )
    of = tf.range(rows) if prompt_of is None else tf.constant(prompt_of)
    known = Text(tf.gather(padded, of), tf.gather(lengths, of))
    decoded = decode(
        model, padded, lengths, limit=tf.constant(new), rules=Rules((1,)), sampling=settings,
        stops=StopStrings(tf.fill([rows, 1], stop), _named, 4),
        prompt_of=None if prompt_of is None else of,
        lookup=Lookup(known, lookup) if lookup else None,
    )  # fmt: skip
    ids = [
        row[:n].tolist()
        for row, n in zip(decoded.token_ids.numpy(), decoded.num_tokens, strict=True)
    ]
    return ids, decoded.logprob.numpy(), decoded.stopped.numpy().tolist()


ROUND = [1, 1, 3, 4, 5, 6, 7, 8, 2, 9, 10, 11]  # 2 → 3 → … → 8 → 2


@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"temperature": 0.7},
        {"temperature": 1.0, "top_k": 5},
        {"repetition_penalty": 1.3},
        {"presence_penalty": 1.0, "frequency_penalty": 0.3},
        {"stop": "<8><2>"},
    ],
    ids=str,
)
@pytest.mark.parametrize("spread", [0.0, 1.0])
def test_what_is_said_is_what_is_said_without_guesses(settings, spread):
    prompts, new = [[2, 3], [5], [2, 3, 4, 2, 3], [8]], [70, 3, 40, 0]
    model = Cycle(ROUND, spread)
    plain, guessed = run(model, prompts, new, **settings), run(model, prompts, new, 4, **settings)
    assert guessed[0] == plain[0]
    assert guessed[2] == plain[2]
    np.testing.assert_allclose(guessed[1], plain[1], atol=1e-4)


def test_a_text_that_repeats_itself_takes_fewer_steps():
    model = Cycle(ROUND)
    run(model, [[2, 3]], [70])
    assert len(model.read) == 70
    model.read.clear()
    run(model, [[2, 3]], [70], 6)
    assert 70 // 7 <= len(model.read) <= 20
    assert {shape[1] for shape in model.read} == {9, 1, 7}


def test_rows_of_one_prompt_read_it_once():
    model = Cycle(ROUND, 1.0)
    prompts, of, new = [[2, 3], [5], [2, 3, 4]], [0, 0, 1, 2, 1], [70, 5, 9, 0, 3]
    shared = run(model, prompts, new, prompt_of=of, temperature=1.0)
    assert model.read[0] == (3, 9)
    assert {shape[0] for shape in model.read[1:]} == {5}
    apart = run(model, [prompts[i] for i in of], new, temperature=1.0)
    assert shared[0] == apart[0]
    assert shared[0][0][:5] != shared[0][1]
    np.testing.assert_array_equal(shared[1], apart[1])
    guessed = run(model, prompts, new, 4, prompt_of=of, temperature=1.0)
    assert guessed[0] == apart[0]


def test_no_row_at_all_is_fine():
    sampling = Sampling(*(tf.constant(np.zeros(0, kind)) for kind in "fifffffq"))
    empty = tf.zeros([0], tf.int32)
    decoded = decode(
        Cycle(ROUND), tf.zeros([0, 4], tf.int32), empty, limit=empty, rules=Rules((1,)),
        sampling=sampling, stops=StopStrings(tf.fill([0, 1], ""), _named, 4),
        prompt_of=empty, lookup=Lookup(Text(tf.zeros([0, 4], tf.int32), empty), 4),
    )  # fmt: skip
    assert decoded.num_tokens.shape == (0,)


def generated(model, prompts, stop="", **options):
    """What `generate` answers, with each row's own settings, and with samples of one prompt."""
    rows = len(prompts)
    generate = build(model.text(**options))["generate"]
    return generate(
        prompt=tf.constant(prompts),
        max_new_tokens=tf.constant([40, 60, 5, 60, 60, 60][:rows]),
        temperature=tf.constant([0.0, 0.0, 0.0, 1.2, 1.2, 0.0][:rows]),
        repetition_penalty=tf.constant([1.0, 1.0, 1.0, 1.0, 1.0, 1.1][:rows]),
        seed=tf.range(rows, dtype=tf.int64),
        stop=tf.constant([["", "", "", stop]] * rows),
    )


def assert_same(guessed, plain):
    for name, expected in plain.items():
        if name == "logprob":
            np.testing.assert_allclose(guessed[name], expected, atol=1e-3)
        else:
            np.testing.assert_array_equal(guessed[name], expected)


@pytest.fixture(scope="module")
def wild(new_model):
    """A model that never ends, and repeats itself now and then."""
    model = new_model("gpt")
    for variable in model.trainable_variables:
        variable.assign_add(0.3 * tf.random.normal(variable.shape, seed=3))
    model.generation = GenerationSettings(
        suppressed_token_ids=(model.preprocessor.tokenizer.eos_id,)
    )
    return model


@pytest.mark.slow
def test_texts_of_a_transformer_are_those_without_guesses_to_the_end_of_its_context(wild, texts):
    again = (texts[0] + " ") * 3 + texts[0][:4]
    prompts = [again, texts[1][:3] * 8, "", texts[2], texts[2], "a b a b a b"]
    plain = generated(wild, prompts)
    assert len(set(plain["text"].numpy())) == 6
    assert_same(generated(wild, prompts, prompt_lookup=4), plain)
    for alone in prompts:
        assert_same(generated(wild, [alone], prompt_lookup=9), generated(wild, [alone]))
    stop = plain["text"].numpy()[1].decode()[2:4]
    assert_same(generated(wild, prompts, stop, prompt_lookup=4), generated(wild, prompts, stop))


def test_a_prompt_that_is_refused_is_so_in_each_of_its_samples(gpt, texts):
    refused = generated(gpt, ["x" * 999, texts[0][:5], "x" * 999], prompt_lookup=4)
    reasons = refused["finish_reason"].numpy()
    assert [reason[:5] == b"error" for reason in reasons] == [True, False, True]


@pytest.mark.parametrize("value", [2, -1])
def test_what_cannot_be_guessed_is_refused(lstm, gpt, value):
    with pytest.raises(UserError, match="cannot forget" if value > 0 else "at least 0, got -1"):
        (lstm if value > 0 else gpt).text(prompt_lookup=value)
