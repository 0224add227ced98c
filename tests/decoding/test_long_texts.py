"""Texts that outgrow several memories, of models with weights far from where they begin."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from tfllm.decoding import (
    Beams,
    Decoded,
    Lookup,
    Rules,
    Sampling,
    StopStrings,
    Text,
    beam_search,
    decode,
)
from tfllm.models import (
    GPTBackbone,
    GPTCausalLM,
    LSTMBackbone,
    LSTMCausalLM,
    MarianBackbone,
    MarianSeq2SeqLM,
    T5Backbone,
    T5Seq2SeqLM,
)

VOCABULARY, END, BEAMS = 50, 3, 3
SIZES = {
    "vocabulary_size": VOCABULARY,
    "num_layers": 2,
    "hidden_dim": 16,
    "max_sequence_length": 256,
}
ATTENTION = {"num_heads": 2, "intermediate_dim": 24}
MODELS = {
    "gpt": lambda: GPTCausalLM(GPTBackbone(**SIZES, **ATTENTION)),
    "lstm": lambda: LSTMCausalLM(LSTMBackbone(**SIZES)),
    "t5": lambda: T5Seq2SeqLM(T5Backbone(**SIZES, **ATTENTION)),
    "marian": lambda: MarianSeq2SeqLM(MarianBackbone(**SIZES, **ATTENTION)),
}
ROWS = {
    # Prompts that are shorter, as long and longer than a first memory; and several steps of growth.
    "long": {"lengths": [70, 3, 64], "limit": [65, 70, 20]},
    "short": {"lengths": [1, 5, 2], "limit": [75, 30, 66]},
}
INPUTS = {
    "prompt": tf.TensorSpec([None, None], tf.int32),
    "lengths": tf.TensorSpec([None], tf.int32),
    "limit": tf.TensorSpec([None], tf.int32),
    "source": tf.TensorSpec([None, 6], tf.int32),
}


class Writer:
    """A model with both loops as graphs; `model(source)` is what they step through."""

    def __init__(self, kind):
        keras.utils.set_random_seed(1)
        self.task = MODELS[kind]()
        for variable in self.task.trainable_variables:
            variable.assign_add(0.4 * tf.random.normal(variable.shape))
        signature = list(INPUTS.values())
        self.greedy = tf.function(self._greedy, input_signature=signature, autograph=False)
        self.beams = tf.function(self.search, input_signature=signature, autograph=False)

    def model(self, source):
        if isinstance(self.task, (GPTCausalLM, LSTMCausalLM)):
            return self.task
        return self.task.reading(source, tf.fill(tf.shape(source)[:1], 6))

    def _greedy(self, prompt, lengths, limit, source, **options):
        rows = tf.shape(limit)[0]
        off = Sampling(
            *(tf.fill([rows], x) for x in (0.0, 0, 1.0, 0.0, 1.0, 0.0, 0.0, np.int64(0)))
        )
        return decode(
            self.model(source), prompt, lengths, limit=limit, rules=Rules(()), sampling=off,
            stops=StopStrings(tf.fill([rows, 1], ""), tf.strings.as_string, 1), **options,
        )  # fmt: skip

    def shared(self, guessed):
        """As `greedy`, with several rows of a prompt, and with guesses."""

        def run(prompt, lengths, limit, source, prompt_of):
            known = Text(tf.gather(prompt, prompt_of), tf.gather(lengths, prompt_of))
            lookup = Lookup(known, guessed) if guessed else None
            return self._greedy(prompt, lengths, limit, source, prompt_of=prompt_of, lookup=lookup)

        signature = [*INPUTS.values(), tf.TensorSpec([None], tf.int32)]
        return tf.function(run, input_signature=signature, autograph=False)

    def search(self, prompt, lengths, limit, source, wrapped=lambda model: model):
        return beam_search(
            wrapped(self.model(source)), prompt, lengths, limit=limit, num_beams=BEAMS,
            length_penalty=tf.ones_like(lengths, tf.float32), early_stopping=False,
            rules=Rules((END,), min_new_tokens=25),
        )  # fmt: skip


@pytest.fixture(scope="module", params=MODELS)
def writer(request):
    return Writer(request.param)


def inputs(rows, only=slice(None)):
    """Of the loops: some of the rows, in as much room as they need."""
    random = np.random.default_rng(0)
    lengths, limit = (np.array(ROWS[rows][name], "int32") for name in ("lengths", "limit"))
    prompt = random.integers(4, VOCABULARY, (3, lengths.max())).astype("int32")
    source = random.integers(4, VOCABULARY, (3, 6)).astype("int32")
    return {
        "prompt": prompt[only, : lengths[only].max()],
        "lengths": lengths[only],
        "limit": limit[only],
        "source": source[only],
    }


@pytest.mark.parametrize("rows", ROWS)
def test_each_token_is_the_best_and_as_probable_as_in_one_full_pass(writer, rows):
    given = inputs(rows)
    found = Decoded(*(x.numpy() for x in writer.greedy(**given)))
    np.testing.assert_array_equal(found.num_tokens, given["limit"])
    texts = [
        [*prompt[:length], *new[:limit]]
        for prompt, length, new, limit in zip(
            given["prompt"], given["lengths"], found.token_ids, given["limit"], strict=True
        )
    ]
    model = writer.model(given["source"])
    whole = tf.ragged.constant(texts, dtype=tf.int32).to_tensor()
    logits = tf.nn.log_softmax(model.logits(model.hidden_states(whole))).numpy()
    for row, (length, limit) in enumerate(zip(given["lengths"], given["limit"], strict=True)):
        new = found.token_ids[row, :limit]
        expected = logits[row, length - 1 : length - 1 + limit]
        chosen = expected[range(limit), new]
        np.testing.assert_allclose(chosen, expected.max(-1), atol=1e-3)
        assert found.logprob[row] == pytest.approx(chosen.sum(), abs=1e-4 * limit)


@pytest.mark.parametrize("guessed", [0, 3])
@pytest.mark.parametrize("rows", ROWS)
def test_rows_that_share_a_prompt_say_what_each_says_alone(writer, rows, guessed):
    if guessed and isinstance(writer.task, LSTMCausalLM):
        return  # it cannot go back
    given = inputs(rows)
    alone = writer.greedy(**given)
    of, limit = [0, 1, 0, 2, 1], given["limit"][[0, 1, 0, 2, 1]] - np.int32([0, 0, 9, 0, 1])
    shared = writer.shared(guessed)
    found = shared(**given | {"limit": limit}, prompt_of=tf.constant(of))
    np.testing.assert_array_equal(found.num_tokens, limit)
    for row, (prompt, count) in enumerate(zip(of, limit, strict=True)):
        expected = alone.token_ids[prompt, :count]
        np.testing.assert_array_equal(found.token_ids[row, :count], expected)


def assert_same(found, expected):
    """Of `Beams`, but for what stands behind the texts."""
    np.testing.assert_array_equal(found.num_tokens, expected.num_tokens)
    width = found.token_ids.shape[-1]
    seen = np.arange(width) < found.num_tokens[..., None]
    wanted = expected.token_ids[..., :width]
    np.testing.assert_array_equal(np.where(seen, found.token_ids, 0), np.where(seen, wanted, 0))
    np.testing.assert_allclose(found.score, expected.score, rtol=1e-4, atol=1e-4)


@pytest.fixture(scope="module")
def together(writer):
    """What beam search writes in batches."""
    return {rows: Beams(*(x.numpy() for x in writer.beams(**inputs(rows)))) for rows in ROWS}


@pytest.mark.parametrize("rows", ROWS)
def test_beams_equal_those_of_a_model_that_reads_all_again_at_each_step(
    writer, together, rereading, rows
):
    given = {name: tf.constant(x) for name, x in inputs(rows).items()}
    expected = Beams(*(x.numpy() for x in writer.search(**given, wrapped=rereading)))
    assert_same(together[rows], expected)
    assert expected.num_tokens.max() > 64


@pytest.mark.parametrize("rows", ROWS)
def test_beams_of_a_row_are_the_same_alone(writer, together, rows):
    for row in range(3):
        here = slice(row, row + 1)
        alone = Beams(*(x.numpy() for x in writer.beams(**inputs(rows, here))))
        assert_same(alone, Beams(*(x[here] for x in together[rows])))
