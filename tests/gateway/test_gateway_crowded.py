"""When a server is crowded, so that its calls are longer: more texts wait than slots are free."""

import asyncio

import pytest

from tfllm import contract
from tfllm.gateway import session_steps
from tfllm.gateway.backend import Backend, Decoded, Prefilled
from tfllm.gateway.pace import Pace
from tfllm.gateway.session_steps import SessionSteps
from tfllm.gateway.texts import Asked, Text
from tfllm.gateway.waiting import Waiting
from tfllm.serving import AsyncClient
from tfllm.serving.metadata import SignatureInfo

NUM_SLOTS = 4


class Slots(Backend):
    """Four slots, of which others may have some; reads and writes what it is asked to.

    Attributes:
        num_free: That are not taken by others.
        num_tokens: Of the last call that wrote.
    """

    def __init__(self):
        super().__init__(AsyncClient("nowhere:1", "gpt", version=1))
        self.num_slots = self.num_free = NUM_SLOTS
        self.signatures = {contract.GENERATE: SignatureInfo({}, {})}
        self.num_tokens = 0

    async def prefill(self, texts, most):
        return [self._read(text, tokens) for text, tokens in zip(texts, most, strict=True)]

    def _read(self, text, tokens):
        if text.slot is None and not self.num_free:
            return Prefilled(-1, False, 0, 0, 0, "no slot is free")
        self.num_free -= text.slot is None
        length = len(text.asked.prompt)
        read = min(length, text.num_read + tokens)
        return Prefilled(0, read == length, length, read, 0, "")

    async def decode(self, texts, num_tokens):
        self.num_tokens = num_tokens
        return [Decoded("x" * num_tokens, "", [1] * num_tokens, ()) for _ in texts]


@pytest.fixture
def slots():
    return Slots()


@pytest.fixture
def steps(slots):
    return SessionSteps(slots, Waiting(99))


def step(steps, *prompts):
    steps.waiting.add([Text(Asked(prompt)) for prompt in prompts])
    asyncio.run(steps.step())


def test_texts_that_all_have_slots_are_no_crowd(slots, steps):
    step(steps, *["a"] * NUM_SLOTS)
    assert (steps.num_texts, len(steps.waiting)) == (NUM_SLOTS, 0)
    assert slots.num_tokens == Pace().tokens_to_write(False, 0, NUM_SLOTS)


def test_one_more_is_a_crowd(slots, steps):
    step(steps, *["a"] * (NUM_SLOTS + 1))
    assert (steps.num_texts, len(steps.waiting)) == (NUM_SLOTS, 1)
    assert slots.num_tokens == Pace().tokens_to_write(True, 0, NUM_SLOTS)


def test_texts_that_wait_for_others_to_be_read_and_not_for_a_slot_are_no_crowd(slots, steps):
    step(steps, "a", "a")
    step(steps, "a" * 999, "a" * 999)
    assert (steps.num_texts, len(steps.waiting)) == (3, 1)
    assert slots.num_tokens == Pace().tokens_to_write(False, 1, 2)


def test_slots_that_another_gateway_has_are_not_free(slots, steps, monkeypatch):
    monkeypatch.setattr(session_steps, "_NO_SLOT_PAUSE_S", 60)
    slots.num_free = 2
    step(steps, "a", "a")
    step(steps, "a")
    assert (steps.num_texts, len(steps.waiting)) == (2, 1)
    assert slots.num_tokens == Pace().tokens_to_write(True, 0, 2)
