"""Texts that stay in the server, a few tokens at a time, against `generate` in one go."""

import random
from typing import Any

import keras
import numpy as np
import pytest
import tensorflow as tf

from tfllm import contract
from tfllm.errors import UserError
from tfllm.models import GPTBackbone, GPTCausalLM, GPTCausalLMPreprocessor, build
from tfllm.rows import plain

NUM_SLOTS = 3
SETTINGS = [field.name for field in contract.SAMPLING]


class Server:
    """The signatures of a model with sessions, as a client calls them: lists in, lists out."""

    def __init__(self, model, **options):
        text = model.text(**options)
        self.signatures = text.signatures
        self.functions = build(text)
        self.num_slots = text.sessions.num_slots
        self.num_bytes = text.metadata()["session_bytes"]

    def ask(self, name, **columns) -> dict[str, list]:
        inputs = {
            field.name: tf.constant(columns.get(field.name, [field.default]), field.dtype)
            for field in self.signatures[name].inputs
        }
        outputs = self.functions[name].get_concrete_function()(**inputs)
        return {name: plain(value.numpy().tolist()) for name, value in outputs.items()}

    def begin(self, prompt, lease, **settings) -> dict[str, Any]:
        """One text."""
        columns = {name: [value] for name, value in settings.items()}
        answer = self.ask("prefill", prompt=[prompt], lease=[lease], **columns)
        return {name: value for name, (value,) in answer.items()}

    def go_on(self, slot, lease, position, max_tokens=8) -> dict[str, Any]:
        answer = self.ask(
            "decode", slot=[slot], lease=[lease], position=[position], max_tokens=[max_tokens]
        )
        return {name: value for name, (value,) in answer.items()}

    def write(self, prompt, lease, **settings) -> dict[str, Any]:
        """A text to its end, released; with what `prefill` said."""
        begun = self.begin(prompt, lease, **settings)
        text, position, reason = "", 0, ""
        while not reason:
            some = self.go_on(begun["slot"], lease, position)
            text, position, reason = text + some["text"], some["position"], some["finish_reason"]
        self.ask("release", slot=[begun["slot"]], lease=[lease])
        return begun | {"text": text, "finish_reason": reason, "num_tokens": position}


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


def requests(texts, count, seed):
    """Prompts of many lengths, some of which begin alike, with settings of every kind."""
    rng = random.Random(seed)
    for _ in range(count):
        text = rng.choice(texts)
        yield {
            "prompt": text[: rng.choice([0, 3, 11, 30, 60])] + rng.choice(["", "", " a", "e"]),
            "max_new_tokens": rng.choice([0, 1, 5, 30]),
            "temperature": rng.choice([0.0, 0.0, 0.8, 1.5]),
            "top_k": rng.choice([0, 0, 5]),
            "top_p": rng.choice([1.0, 0.9]),
            "min_p": rng.choice([0.0, 0.05]),
            "repetition_penalty": rng.choice([1.0, 1.0, 1.3]),
            "seed": rng.randrange(10**6),
            "stop": rng.choice([["", "", "", ""], ["at", " dog", "🎉", "xyzzy"]]),
        }


class Client:
    """Texts that come, wait, are written and are taken up again, in any order.

    Args:
        server: That writes them.
        asked: Their requests.
        seed: Of the order.
    """

    def __init__(self, server, asked, seed):
        self.server = server
        self.asked = asked
        self.rng = random.Random(seed)
        self.coming = [*range(len(asked))]
        self.lease = [f"text {i}" for i in self.coming]
        self.token_ids = [[] for _ in asked]
        self.text = [""] * len(asked)
        self.reason = [""] * len(asked)
        self.waiting: set[int] = set()
        self.slot: dict[int, int] = {}

    def run(self):
        while self.coming or self.waiting or self.slot:
            if self.coming and len(self.waiting) + len(self.slot) < self.server.num_slots:
                self.waiting.add(self.coming.pop(0))
            self.read(self.some(self.waiting))
            self.decode(self.some(self.slot))

    def some(self, of):
        return self.rng.sample(sorted(of), self.rng.randint(0, len(of)))

    def read(self, rows):
        if not rows:
            return
        generated = [self.token_ids[i] + [contract.PADDING] * 40 for i in rows]
        answer = self.server.ask(
            "prefill",
            lease=[self.lease[i] for i in rows],
            generated=[ids[:40] for ids in generated],
            max_prefill_tokens=[self.rng.choice([3, 20, 1000])] * len(rows),
            num_alternatives=[self.rng.choice([0, 5])] * len(rows),
            **{name: [self.asked[i][name] for i in rows] for name in ["prompt", *SETTINGS]},
        )
        for i, slot, ready, error in zip(
            rows, answer["slot"], answer["is_ready"], answer["error"], strict=True
        ):
            if error:
                self.reason[i] = contract.ERROR_PREFIX + error
                self.waiting.remove(i)
            elif ready:
                self.slot[i] = slot
                self.waiting.remove(i)

    def decode(self, rows):
        if not rows:
            return
        columns = {
            "slot": [self.slot[i] for i in rows],
            "lease": [self.lease[i] for i in rows],
            "position": [len(self.token_ids[i]) for i in rows],
            "max_tokens": [self.rng.choice([1, 2, 7, 40]) for _ in rows],
        }
        answer = self.server.ask("decode", **columns)
        if self.rng.random() < 0.3:  # the answer was lost
            assert self.server.ask("decode", **columns) == answer
        for row, i in enumerate(rows):
            count = answer["num_tokens"][row]
            self.text[i] += answer["text"][row]
            self.token_ids[i] += answer["token_ids"][row][:count]
            self.reason[i] = answer["finish_reason"][row]
            is_lost = self.rng.random() < 0.1  # the client goes on with it elsewhere
            if self.reason[i] or is_lost:
                slot = self.slot.pop(i)
                self.server.ask("release", slot=[slot], lease=[self.lease[i]])
                if not self.reason[i]:
                    self.lease[i] += "'"
                    self.coming.append(i)


def test_texts_in_any_order_are_those_of_generate(server, texts):
    asked = list(requests(texts, 40, seed=3))
    client = Client(server, asked, seed=4)
    client.run()

    columns = {name: [each[name] for each in asked] for name in ["prompt", *SETTINGS]}
    expected = server.ask("generate", **columns)
    assert client.text == expected["text"]
    assert client.reason == expected["finish_reason"]
    assert [len(ids) for ids in client.token_ids] == expected["num_tokens"]


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
        prompt=["one", "one", "one " * 99, "one", "one", "one"],
        lease=["", "a", "b", "c", "a", "d"],
        temperature=[0.0, 0.0, 0.0, -1.0, 0.0, 0.0],
        generated=[[-1]] * 5 + [[10**6]],
    )
    errors = answer["error"]
    assert errors[0].startswith("lease must be a word")
    assert errors[1] == ""
    assert "too long" in errors[2]
    assert "temperature" in errors[3]
    assert errors[4] == "another row has this lease"
    assert errors[5] == "generated has numbers that are no tokens"
    assert [slot >= 0 for slot in answer["slot"]] == [False, True] + [False] * 4


def test_numbers_that_no_sessions_can_have_are_refused(gpt):
    with pytest.raises(UserError, match="sessions must be at least 1, got -1"):
        gpt.text(sessions=-1)
    with pytest.raises(UserError, match="session_timeout_s must be finite and above 0"):
        gpt.text(sessions=1, session_timeout_s=0)
