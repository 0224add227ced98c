"""Texts that stay in the server, a few tokens at a time, against `generate` in one go."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from session_clients import Server, assert_as_generate

from tfllm import contract
from tfllm.errors import UserError
from tfllm.models import GPTBackbone, GPTCausalLM, GPTCausalLMPreprocessor

NUM_SLOTS = 3


@pytest.fixture(scope="module")
def server(model):
    return Server(model, sessions=NUM_SLOTS)


@pytest.fixture(autouse=True)
def _given_back(request):
    """Every test leaves the slots as it found them."""
    yield
    if "server" in request.fixturenames:
        server = request.getfixturevalue("server")
        for lease in LEASES:
            columns = [*range(NUM_SLOTS)], [lease] * NUM_SLOTS
            server.ask("release", slot=columns[0], lease=columns[1])


LEASES = ["a", "b", "c", "d"]


def test_texts_in_any_order_are_those_of_generate(server, texts):
    assert_as_generate(server, texts, count=40, seed=3)


def test_the_penalty_of_repetition_knows_only_the_tokens_of_the_text(tokenizer):
    keras.utils.set_random_seed(0)
    backbone = GPTBackbone(tokenizer.vocabulary_size(), 1, 1, 8, max_sequence_length=48)
    model = GPTCausalLM(backbone, GPTCausalLMPreprocessor(tokenizer, sequence_length=48))
    server = Server(model, sessions=1)
    for seed in range(4):  # each in the slot of the one before
        settings = {
            "max_new_tokens": 20,
            "temperature": 1.0,
            "repetition_penalty": 1000.0,
            "seed": seed,
        }
        expected = server.ask("generate", prompt=["one"], **{k: [v] for k, v in settings.items()})
        assert server.write("one", "a", **settings)["text"] == expected["text"][0]


@pytest.mark.parametrize("model", ["gpt"], indirect=True)  # which knows the text whole
def test_only_whole_characters_are_shown_and_nothing_that_may_become_a_stop_string(server):
    begun = server.begin("smile", "a", stop=["🎉 dome", "", "", ""])
    shown, reason, position = [], "", 0
    while not reason:
        some = server.go_on(begun["slot"], "a", position, max_tokens=1)
        shown.append(some["text"])
        position, reason = some["position"], some["finish_reason"]

    assert "".join(shown) == " 🙂 wave 👋 party 🎉 done"
    # Each byte of the last one is a token: none is shown alone, nor what "dome" begins with.
    assert any(piece.startswith("🎉 do") for piece in shown)


def test_a_wrong_row_is_told_so_and_its_neighbours_get_their_text(server):
    first, second = server.begin("one two", "a"), server.begin("the cat", "b")
    slots = [first["slot"], second["slot"], first["slot"], NUM_SLOTS, -1, first["slot"]]
    leases = ["x", "b", "a", "a", "a", "a"]
    answer = server.ask("decode", slot=slots, lease=leases, position=[0] * 6, max_tokens=[3])
    alone = server.ask("generate", prompt=["the cat", "one two"], max_new_tokens=[3])

    assert [bool(reason) for reason in answer["finish_reason"]] == [True, False, False] + [True] * 3
    assert all("not of this lease" in answer["finish_reason"][i] for i in (0, 3, 4, 5))
    assert [answer["text"][1], answer["text"][2]] == alone["text"]
    late = server.go_on(first["slot"], "a", 2)
    assert late["finish_reason"] == "error: position must be 3, got 2"
    assert server.ask("release", slot=[0, 9], lease=["y", "a"])["error"] == [
        late_error(),
        late_error(),
    ]


def late_error():
    return "the slot is not of this lease: it was released, or another text has it after a pause"


def test_what_is_not_read_whole_is_not_continued(server, texts):
    begun = server.begin(texts[1], "a", max_prefill_tokens=5)
    assert not begun["is_ready"]
    assert begun["num_read"] == 5
    told = server.go_on(begun["slot"], "a", 0)
    assert told["finish_reason"] == "error: the prompt is not read whole: call prefill again"
    assert server.begin(texts[0], "a")["error"] == "the lease has another text"
    assert server.begin(texts[1], "a")["is_ready"]


def test_a_text_that_fills_the_context_does_not_disturb_those_that_go_on(server, model):
    ban = {"bias_token_ids": [model.preprocessor.tokenizer.eos_id], "bias": [-1e9]}
    full = server.begin("one two", "a", max_new_tokens=10**6, **ban)
    other = server.begin("the cat", "b", max_new_tokens=40, **ban)
    position = full["max_new_tokens"] - 1
    at = 0
    while at < position:
        at = server.go_on(full["slot"], "a", at, min(30, position - at))["position"]
    answer = server.ask(
        "decode", slot=[full["slot"], other["slot"]], lease=["a", "b"], position=[at, 0],
        max_tokens=[8],
    )  # fmt: skip
    assert answer["finish_reason"] == ["length", ""]
    assert answer["num_tokens"] == [1, 8]


def test_slots_run_out_and_come_back(server):
    slots = {lease: server.begin("one", lease)["slot"] for lease in LEASES[:NUM_SLOTS]}
    assert sorted(slots.values()) == [*range(NUM_SLOTS)]
    refused = server.begin("one", LEASES[-1])
    assert (refused["slot"], refused["error"]) == (-1, "no slot is free")
    assert server.ask("slots", slot=[0, 3])["error"] == ["", "slot must be from 0 to 2, got 3"]
    assert server.ask("slots", slot=[*range(NUM_SLOTS)])["is_free"] == [False] * NUM_SLOTS
    server.ask("release", slot=[slots["b"]], lease=["b"])
    assert server.begin("one", LEASES[-1])["slot"] == slots["b"]


def test_a_slot_that_nobody_asks_for_is_given_to_another(gpt):
    server = Server(gpt, sessions=1, session_timeout_s=1e-9)
    begun = server.begin("one two", "crashed")
    # As long as no other text needs it, it stays.
    assert server.go_on(begun["slot"], "crashed", 0, 1)["finish_reason"] == ""
    assert server.write("the cat", "new")["text"] == gpt.generate("the cat").text
    assert "not of this lease" in server.go_on(begun["slot"], "crashed", 1)["finish_reason"]


def test_what_a_text_shares_with_another_is_not_read_again(server, texts, model):
    shared = texts[1][:45]
    first = server.write(shared, "a", max_new_tokens=6)
    turn = shared + first["text"] + "!"
    second = server.write(turn, "b", max_new_tokens=6)
    assert second["num_reused"] >= first["num_read"]
    assert second["slot"] == first["slot"]  # a continuation takes over the slot
    assert second["text"] == model.generate(turn, max_new_tokens=6).text

    live = server.begin(shared, "a")
    copied = server.write(shared + " 🙂", "b", max_new_tokens=9)
    assert copied["slot"] != live["slot"]
    assert copied["num_reused"] >= first["num_read"] - 1
    assert copied["text"] == model.generate(shared + " 🙂", max_new_tokens=9).text
    # What it was copied from goes on.
    assert server.go_on(live["slot"], "a", 0, 6)["text"] == first["text"]


def test_the_logprob_of_a_token_is_to_the_bit_that_which_it_has_in_a_call_of_its_own(server):
    begun = server.begin("xq", "a", temperature=3.0, seed=5)
    at_once = server.go_on(begun["slot"], "a", 0, 8)
    server.ask("release", slot=[begun["slot"]], lease=["a"])
    begun = server.begin("xq", "b", temperature=3.0, seed=5)
    one_by_one = [server.go_on(begun["slot"], "b", position, 1) for position in range(8)]
    assert at_once["logprobs"] == [logprob for each in one_by_one for logprob in each["logprobs"]]


def test_the_memory_of_the_slots_is_known(server, model, gpt):
    # Of two layers in float32: keys and values of 64 positions and 32 numbers each; or two states
    # of an output and a cell of 64 numbers each, and after how many tokens they are.
    of_a_slot = 2 * 2 * 64 * 32 * 4 if model is gpt else 2 * (2 * 2 * 64 + 1) * 4
    assert server.num_bytes == (NUM_SLOTS + 1) * of_a_slot  # with the one to spare


def test_alternatives_are_the_best_tokens_of_the_model(server, model):
    begun = server.begin("the cat", "a", num_alternatives=5, temperature=1.0, seed=5)
    answer = server.go_on(begun["slot"], "a", 0, 4)

    tokenizer = model.preprocessor.tokenizer
    prompt = [tokenizer.bos_id, *tokenizer.encode("the cat")]
    ids = prompt + answer["token_ids"]
    hidden = model.hidden_states(tf.constant([ids]))
    logprobs = tf.nn.log_softmax(model.logits(hidden))[0].numpy()[len(prompt) - 1 : -1]
    best = np.argsort(-logprobs, kind="stable")[:, : contract.MAX_ALTERNATIVES]
    assert answer["alternative_ids"] == best.tolist()
    np.testing.assert_allclose(
        answer["alternative_logprobs"], np.take_along_axis(logprobs, best, 1), atol=1e-4
    )
    chosen = np.take_along_axis(logprobs, np.array(answer["token_ids"])[:, None], 1)[:, 0]
    np.testing.assert_allclose(answer["logprobs"], chosen, atol=1e-4)
    assert "".join(answer["token_bytes"]) == answer["text"]


def test_biases_forbid_and_force_tokens_of_their_row(server, model):
    plainly = server.write("the cat", "a", max_new_tokens=3)
    first = server.go_on(server.begin("the cat", "a")["slot"], "a", 0, 1)["token_ids"][0]
    server.ask("release", slot=[*range(NUM_SLOTS)], lease=["a"] * NUM_SLOTS)
    banned = server.write("the cat", "b", max_new_tokens=3, bias_token_ids=[first], bias=[-1e9])
    forced = server.write("the cat", "c", max_new_tokens=3, bias_token_ids=[9], bias=[1e9])
    assert banned["text"] != plainly["text"]
    assert forced["text"] == model.preprocessor.tokenizer.decode([9, 9, 9])
    size = model.backbone.vocabulary_size
    told = [
        server.begin("x", "d", bias_token_ids=[size], bias=[1.0])["error"],
        server.begin("x", "d", bias_token_ids=[1] * 65, bias=[1.0])["error"],
        server.begin("x", "d", bias_token_ids=[1], bias=[float("nan")])["error"],
    ]
    assert told == [
        "bias_token_ids has numbers that are no tokens",
        "at most 64 tokens have a bias, got 65",
        "bias must be finite",
    ]


def test_what_cannot_begin_is_told_in_its_row(server):
    answer = server.ask(
        "prefill",
        prompt=["one", "one", "one " * 99, "one", "one", "one", "one"],
        lease=["", "a", "b", "c", "a", "d", "e"],
        temperature=[0.0, 0.0, 0.0, -1.0, 0.0, 0.0, 0.0],
        presence_penalty=[0.0] * 6 + [3.0],
        generated=[[-1]] * 5 + [[10**6], [-1]],
    )
    errors = answer["error"]
    assert errors[0].startswith("lease must be a word")
    assert errors[1] == ""
    assert "too long" in errors[2]
    assert "temperature" in errors[3]
    assert errors[4] == "another row has this lease"
    assert errors[5] == "generated has numbers that are no tokens"
    assert errors[6] == "presence_penalty must be from -2 to 2, got 3.000000"
    assert [slot >= 0 for slot in answer["slot"]] == [False, True] + [False] * 5


def test_numbers_that_no_sessions_can_have_are_refused(gpt):
    with pytest.raises(UserError, match="sessions must be at least 1, got -1"):
        gpt.text(sessions=-1)
    with pytest.raises(UserError, match="session_timeout_s must be finite and above 0"):
        gpt.text(sessions=1, session_timeout_s=0)
