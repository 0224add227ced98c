"""Texts that stay in the server, as clients ask for them, without a server."""

import random
from typing import Any

import tensorflow as tf

from tfllm import contract
from tfllm.models import build
from tfllm.rows import plain

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
            "presence_penalty": rng.choice([0.0, 0.0, 1.5, -0.5]),
            "frequency_penalty": rng.choice([0.0, 0.0, 0.3, 2.0]),
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


def assert_as_generate(server, texts, *, count, seed):
    """Some texts, in any order, are what `generate` writes in one go."""
    asked = list(requests(texts, count, seed=seed))
    client = Client(server, asked, seed=seed + 1)
    client.run()

    columns = {name: [each[name] for each in asked] for name in ["prompt", *SETTINGS]}
    expected = server.ask("generate", **columns)
    assert client.text == expected["text"]
    assert client.reason == expected["finish_reason"]
    assert [len(ids) for ids in client.token_ids] == expected["num_tokens"]
