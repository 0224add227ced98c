"""Who waits for whom, and which server gets what; without servers."""

import asyncio
import contextlib

import pytest

from tfllm.gateway.backend import Backend
from tfllm.gateway.balancing import Replicas
from tfllm.gateway.scheduler import Scheduler
from tfllm.gateway.texts import Asked, Refused, Text
from tfllm.gateway.waiting import Waiting
from tfllm.serving import AsyncClient


def text(client, leader=None):
    return Text(Asked("x", client=client), leader)


def turns(waiting):
    names = []
    while (one := waiting.first()) is not None:
        waiting.take(one)
        names.append(one.asked.client)
    return "".join(names)


def test_clients_take_turns():
    waiting = Waiting(9)
    for client in "aaaabbc":
        waiting.add([text(client)])
    assert turns(waiting) == "abcabaa"


def test_a_text_that_was_running_is_the_next_of_its_client():
    waiting = Waiting(9)
    first, second = text("a"), text("a")
    waiting.add([second])
    waiting.put_back([first])
    assert waiting.first() is first


def test_texts_of_one_prompt_wait_for_the_first_to_read_it_and_hold_up_no_other_client():
    waiting = Waiting(9)
    leader = text("a")
    waiting.add([leader, text("a", leader)])
    waiting.add([text("b")])
    waiting.take(leader)
    assert turns(waiting) == "b"
    leader.be_ready()
    assert turns(waiting) == "a"


def test_a_request_waits_whole_or_not_at_all():
    waiting = Waiting(3)
    waiting.add([text("a")] * 2)
    with pytest.raises(Refused) as told:
        waiting.add([text("b")] * 2, retry_after_s=7)
    assert (told.value.status, told.value.retry_after_s, len(waiting)) == (429, 7, 2)
    waiting.add([text("b")] * 2, num_free=1)
    assert len(waiting) == 4


class Endpoint:
    """A server that has four slots and is never asked for anything."""

    model, address = "gpt", "nowhere:1"

    async def open(self):
        client = AsyncClient(self.address, self.model, version=1)
        backend = Backend(client)
        backend.num_slots = 4
        return backend


@pytest.fixture
def replicas():
    async def make():
        schedulers = [Scheduler(Endpoint()) for _ in range(2)]
        for scheduler in schedulers:
            await scheduler._versions.step()
            scheduler.is_up = True
        return Replicas("gpt", schedulers)

    return asyncio.run(make())


def add(replicas, prompt):
    """Which server gets it."""
    before = [scheduler.load for scheduler in replicas.schedulers]
    replicas.add([Text(Asked(prompt))])
    after = [scheduler.load for scheduler in replicas.schedulers]
    return [new > old for new, old in zip(after, before, strict=True)].index(True)


def test_texts_go_to_the_server_with_the_least_to_do(replicas):
    assert [add(replicas, "short") for _ in range(4)] == [0, 1, 0, 1]


def test_a_conversation_stays_where_it_was_unless_that_is_too_busy(replicas):
    talk = "a conversation of more than sixty-four characters, which was read by one server"
    assert add(replicas, talk) == 0
    assert add(replicas, talk + " and goes on") == 0
    assert add(replicas, talk + " and goes on and on") == 0
    assert add(replicas, talk + " and on") == 1


def test_a_server_that_is_down_gets_nothing(replicas):
    replicas.schedulers[0].is_up = False
    assert [add(replicas, "x") for _ in range(2)] == [1, 1]
    replicas.schedulers[1].is_up = False
    with pytest.raises(Refused, match="No server of gpt answers"):
        replicas.add([Text(Asked("x"))])


def test_requests_without_slots_wait_in_line_and_no_more_than_a_bound(replicas):
    async def ask(line, done):
        async with replicas.asking() as backend:
            line.append(backend)
            await done.wait()

    async def check():
        line, done = [], asyncio.Event()
        first, second = replicas.schedulers
        most = 2 * (64 + first.max_waiting)
        asking = [asyncio.create_task(ask(line, done)) for _ in range(most)]
        await asyncio.sleep(0)
        assert line.count(first.backend) == line.count(second.backend) == 64
        with pytest.raises(Refused, match="256 requests are waiting") as told:
            async with replicas.asking():
                pass
        assert told.value.status == 429
        gone = asking.pop()  # the client of one that waits
        gone.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await gone
        asking.append(asyncio.create_task(ask(line, done)))
        done.set()
        await asyncio.gather(*asking)
        assert len(line) == most

    asyncio.run(asyncio.wait_for(check(), 30))
