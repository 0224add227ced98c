"""Sources and targets that stay in the server, a few tokens at a time."""

import keras
import pytest
import tensorflow as tf
from session_clients import Server, assert_as_generate

from tfllm import contract
from tfllm.models import (
    LSTMSeq2SeqBackbone,
    LSTMSeq2SeqLM,
    LSTMSeq2SeqLMPreprocessor,
    MarianBackbone,
    MarianSeq2SeqLM,
    MarianSeq2SeqLMPreprocessor,
    T5Backbone,
    T5Seq2SeqLM,
    T5Seq2SeqLMPreprocessor,
)

NUM_SLOTS = 3
CONTEXT = 48
_TRANSFORMER = {"num_heads": 2, "intermediate_dim": 48, "num_decoder_layers": 1}
KINDS = {
    "t5": (T5Backbone, T5Seq2SeqLMPreprocessor, T5Seq2SeqLM, _TRANSFORMER | {"key_value_dim": 12}),
    # More tokens can be read than written: none of these may be looked up for a source.
    "marian": (
        MarianBackbone,
        MarianSeq2SeqLMPreprocessor,
        MarianSeq2SeqLM,
        _TRANSFORMER | {"source_vocabulary_size": 400, "num_decoder_heads": 4},
    ),
    "lstm": (
        LSTMSeq2SeqBackbone,
        LSTMSeq2SeqLMPreprocessor,
        LSTMSeq2SeqLM,
        {"num_heads": 2, "num_decoder_layers": 2},
    ),
}


@pytest.fixture(scope="module", params=KINDS)
def model(request, tokenizer, texts):
    """One of each kind, which has learned that targets depend on their sources."""
    keras.utils.set_random_seed(1)
    backbone, reads, task, sizes = KINDS[request.param]
    sizes = {
        "vocabulary_size": tokenizer.vocabulary_size() + 3,
        "num_layers": 2,
        "hidden_dim": 32,
        "max_sequence_length": CONTEXT,
    } | sizes
    preprocessor = reads(tokenizer, 24, 24, decoder_start_token_id=tokenizer.eos_id)
    model = task(backbone(**sizes), preprocessor)
    model.compile(keras.optimizers.Adam(1e-2))
    pairs = tf.data.Dataset.from_tensors((tf.constant(texts), tf.constant(texts[::-1])))
    model.fit(pairs.repeat(40), verbose=0)
    return model


@pytest.fixture(scope="module")
def server(model):
    return Server(model, sessions=NUM_SLOTS)


@pytest.fixture(autouse=True)
def _given_back(server):
    """Every test leaves the slots as it found them."""
    yield
    for lease in "abcd":
        server.ask("release", slot=[*range(NUM_SLOTS)], lease=[lease] * NUM_SLOTS)


def test_texts_in_any_order_are_those_of_generate(server, texts):
    assert_as_generate(server, texts, count=40, seed=3)


def ban(tokenizer):
    """A text goes on to its limit."""
    return {"bias_token_ids": [tokenizer.eos_id], "bias": [-1e9]}


def test_a_text_depends_on_its_source(server, texts, tokenizer):
    settings = {"max_new_tokens": 9, **ban(tokenizer)}
    written = {server.write(text[:20], "a", **settings)["text"] for text in texts[:4]}
    assert len(written) == 4


def test_a_source_is_read_whole_or_not_at_all(server, texts):
    held = server.begin(texts[0], "a", max_prefill_tokens=0)
    assert (held["is_ready"], held["num_read"], held["error"]) == (False, 0, "")
    told = server.go_on(held["slot"], "a", 0)
    assert told["finish_reason"] == "error: the prompt is not read whole: call prefill again"
    read = server.begin(texts[0], "a", max_prefill_tokens=1)
    assert read["is_ready"]
    assert read["num_read"] == read["num_prompt_tokens"] > 1


def test_the_same_source_is_not_read_again_and_another_one_is(server, texts, tokenizer):
    source, settings = texts[1], {"max_new_tokens": 8, **ban(tokenizer)}
    first = server.begin(source, "a", **settings)
    some = server.go_on(first["slot"], "a", 0, 3)
    copied = server.begin(source, "b", **settings)
    assert copied["slot"] != first["slot"]
    assert copied["num_reused"] == first["num_prompt_tokens"] >= 16
    # The tokens that the longer source begins with were read without what is behind them.
    longer = server.begin(source + " and", "c", **settings)
    assert longer["num_reused"] == 0
    # Each goes on by itself.
    whole = server.go_on(copied["slot"], "b", 0)["text"]
    assert some["text"] + server.go_on(first["slot"], "a", 3)["text"] == whole
    for lease in "abc":
        server.ask("release", slot=[*range(NUM_SLOTS)], lease=[lease] * NUM_SLOTS)

    again = server.write(source, "d", **settings)
    assert again["num_reused"] >= first["num_prompt_tokens"]
    assert again["text"] == whole


def test_a_target_goes_on_elsewhere(server, texts, tokenizer):
    settings = {"max_new_tokens": 9, **ban(tokenizer)}
    begun = server.begin(texts[2], "a", **settings)
    some = server.go_on(begun["slot"], "a", 0, 4)
    rest = server.go_on(begun["slot"], "a", 4)
    server.ask("release", slot=[begun["slot"]], lease=["a"])
    for source in texts[3:6]:  # its slot is lost
        server.write(source, "b")
    begun = server.begin(
        texts[2], "c", generated=some["token_ids"], max_prefill_tokens=1, **settings
    )
    assert not begun["is_ready"]  # the source alone
    begun = server.begin(texts[2], "c", generated=some["token_ids"], **settings)
    assert begun["is_ready"]
    gone_on = server.go_on(begun["slot"], "c", 4)
    assert (gone_on["token_ids"], gone_on["text"]) == (rest["token_ids"], rest["text"])


def test_the_logprob_of_a_token_is_to_the_bit_that_which_it_has_in_a_call_of_its_own(
    server, texts, tokenizer
):
    settings = {"temperature": 2.0, "seed": 5, "max_new_tokens": 6, **ban(tokenizer)}
    begun = server.begin(texts[0], "a", **settings)
    at_once = server.go_on(begun["slot"], "a", 0, 6)
    server.ask("release", slot=[begun["slot"]], lease=["a"])
    begun = server.begin(texts[0], "b", **settings)
    one_by_one = [server.go_on(begun["slot"], "b", position, 1) for position in range(6)]
    assert at_once["logprobs"] == [logprob for each in one_by_one for logprob in each["logprobs"]]


def test_a_source_or_target_too_long_is_told_in_its_row(server):
    answer = server.ask(
        "prefill",
        prompt=["one " * 99, "one", "one"],
        lease=["a", "b", "c"],
        generated=[[-1] * 60, [9] * 48 + [-1] * 12, [9] * 60],
    )
    assert "the prompt is too long" in answer["error"][0]
    assert answer["error"][1] == ""
    assert "what was generated, with its begin, is too long" in answer["error"][2]
    assert answer["max_new_tokens"][1] <= CONTEXT


def test_no_rows_are_no_texts(server):
    for name, rows in (("prefill", ["prompt", "lease"]), ("decode", ["slot", "lease", "position"])):
        answer = server.ask(name, **dict.fromkeys(rows, []))
        assert set(answer) == {field.name for field in contract.SIGNATURES[name].outputs}
        assert all(value == [] for value in answer.values())


def test_the_memory_of_the_slots_is_known(server, model):
    # In float32, of 64 positions: keys and values of 32 numbers in the one layer that looks at a
    # source, and in the one that looks at the target.
    of_source = of_target = 2 * 64 * 32 * 4
    if isinstance(model, T5Seq2SeqLM):  # of two heads of 12
        of_source = of_target = 2 * 64 * 2 * 12 * 4
    if isinstance(model, LSTMSeq2SeqLM):
        # Or two states of an output and a cell in two layers, and after how many tokens they are.
        of_target = 2 * (2 * 2 * 32 + 1) * 4
    assert server.num_bytes == (NUM_SLOTS + 1) * (of_source + of_target)
