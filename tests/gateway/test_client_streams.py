"""A client's stream of an export with sessions, without a gateway."""

import asyncio
import contextlib
import itertools
import json
import shutil
from concurrent import futures

import pytest
from test_gateway_texts import all_slots_come_back

from tfllm import cli, contract, rows
from tfllm.chat import chatml
from tfllm.errors import UserError
from tfllm.serving import AsyncClient, Client, Code, Server, ServingError
from tfllm.serving.session_stream import SessionStream, Wanted

SETTINGS = {"max_new_tokens": 20, "temperature": 1.0, "seed": 4, "stop": ["e"]}
DEFAULTS = {
    "top_k": 0, "top_p": 1.0, "min_p": 0.0, "repetition_penalty": 1.0, "presence_penalty": 0.0,
    "frequency_penalty": 0.0, "stop": (),
}  # fmt: skip
TALK = [{"role": "user", "content": "one two"}]


def joined(pieces):
    pieces = list(pieces)
    assert not any(piece.finish_reason for piece in pieces[:-1])
    text = "".join(piece.text for piece in pieces)
    token_ids = [one for piece in pieces for one in piece.token_ids]
    logprob = sum(one for piece in pieces for one in piece.logprobs)
    return text, pieces[-1].finish_reason, len(token_ids), pytest.approx(logprob, abs=1e-3)


def stream_by(predict, prompt, settings=SETTINGS, **wanted):
    """A stream whose calls have no deadline and whose pauses take no time."""

    async def asked(inputs, signature, outputs, _timeout_s):
        return predict(inputs, signature, output_filter=outputs)

    async def pause(seconds):
        pass

    columns = rows.setting_columns(contract.GENERATE, 1, DEFAULTS | settings)
    return SessionStream(asked, pause, prompt, columns, Wanted(**wanted))


async def read(stream):
    return [piece async for piece in stream.pieces()]


@pytest.mark.parametrize("tokens_per_piece", [1, 7])
def test_the_pieces_are_the_text_of_generate(either_endpoint, tokens_per_piece):
    with Client(*either_endpoint) as client:
        for seed, prompt in enumerate(["one", "世界 🙂 party", "one two three " * 8]):
            settings = SETTINGS | {"seed": seed, "stop": ["e"] * (seed % 2)}
            pieces = list(
                client.stream(prompt, **settings, logprobs=True, tokens_per_piece=tokens_per_piece)
            )
            assert joined(pieces) == tuple(client.generate(prompt, **settings))
            assert max(len(piece.token_ids) for piece in pieces) <= tokens_per_piece
        assert joined(client.stream("one", logprobs=True)) == tuple(
            client.generate("one")
        )  # the model's settings
        assert all_slots_come_back(client)


def test_over_rest_the_pieces_are_the_same(client, server):
    with Client(f"http://127.0.0.1:{server.rest_port}", "gpt") as over_rest:
        pieces = list(over_rest.stream("one 🙂", **SETTINGS, num_alternatives=2))
    assert joined(pieces) == tuple(client.generate("one 🙂", **SETTINGS))
    assert len(pieces[0].alternatives[0]) == 2


def test_a_client_that_waits_streams_many_texts_in_few_slots(client, endpoint):
    async def read(asks, prompt):
        return [piece async for piece in asks.stream(prompt, max_new_tokens=8, logprobs=True)]

    async def read_all(prompts):
        async with AsyncClient(*endpoint) as asks:
            return await asyncio.gather(*(read(asks, prompt) for prompt in prompts))

    prompts = [f"one two {number}" for number in range(7)]
    told = asyncio.run(read_all(prompts))
    right = client.generate(prompts, max_new_tokens=8)
    assert [joined(pieces) for pieces in told] == [tuple(one) for one in right]
    assert all_slots_come_back(client)


def test_a_conversation_is_streamed_by_the_models_template(client):
    right = client.chat(TALK, max_new_tokens=9)
    assert joined(client.stream_chat(TALK, max_new_tokens=9, logprobs=True)) == tuple(right)
    assert right == client.generate(
        chatml().render(TALK), max_new_tokens=9, stop=list(chatml().stop)
    )


def test_alternatives_are_told_with_each_token(client):
    pieces = list(client.stream("one", max_new_tokens=5, num_alternatives=2, tokens_per_piece=3))
    assert [len(piece.alternatives) for piece in pieces] == [3, 2]
    for piece in pieces:
        for logprob, best in zip(piece.logprobs, piece.alternatives, strict=True):
            assert len(best) == 2
            assert isinstance(best[0][0], bytes)
            assert best[0][1] == pytest.approx(logprob)


def test_who_leaves_early_gives_the_slot_back(client, endpoint):
    for piece in client.stream("one", max_new_tokens=100):
        assert not piece.finish_reason
        break
    assert all_slots_come_back(client)

    async def leave():
        async with AsyncClient(*endpoint) as asks:
            async with contextlib.aclosing(asks.stream("one", max_new_tokens=100)) as pieces:
                await anext(pieces)
            asking = asyncio.create_task(anext(asks.stream("one " * 100, max_new_tokens=100)))
            await asyncio.sleep(0)
            asking.cancel()
            with pytest.raises(asyncio.CancelledError):
                await asking

    asyncio.run(leave())
    assert all_slots_come_back(client)


def test_who_finds_no_slot_waits_for_one(client):
    held = [client.stream(f"one {number}", max_new_tokens=50) for number in range(3)]
    for pieces in held:
        next(pieces)
    with pytest.raises(ServingError, match="no slot is free") as told:
        asyncio.run(read(stream_by(client.predict, "two", timeout_s=0.2)))
    assert told.value.code == Code.RESOURCE_EXHAUSTED
    with futures.ThreadPoolExecutor(1) as threads:
        waiting = threads.submit(
            lambda: joined(client.stream("two", max_new_tokens=4, logprobs=True))
        )
        for pieces in held:
            pieces.close()
        assert waiting.result() == tuple(client.generate("two", max_new_tokens=4))


def test_a_text_that_the_server_forgets_goes_on_where_it_was(client):
    num_calls = itertools.count()

    def forgetful(inputs, signature, output_filter):
        if signature == contract.DECODE and next(num_calls) % 3 == 2:
            client.predict({name: inputs[name] for name in ("slot", "lease")}, contract.RELEASE)
        return client.predict(inputs, signature, output_filter=output_filter)

    settings = {"max_new_tokens": 20, "temperature": 1.0, "seed": 4}
    stream = stream_by(forgetful, "one", settings, logprobs=True)
    assert joined(asyncio.run(read(stream))) == tuple(client.generate("one", **settings))
    assert next(num_calls) > 10


@pytest.mark.slow
def test_a_text_goes_on_at_a_new_version(bases, tmp_path):
    base = tmp_path / "gpt"
    shutil.copytree(bases["gpt"] / "1", base / "1")
    with (
        Server({"gpt": base}, port=0, poll_s=0.05) as server,
        Client(f"127.0.0.1:{server.port}", "gpt") as client,
    ):
        client.wait_until_available(60)
        right = client.generate("one two", **SETTINGS | {"stop": []})
        pieces = client.stream("one two", **SETTINGS | {"stop": []}, logprobs=True)
        first = list(itertools.islice(pieces, 5))
        shutil.copytree(bases["gpt"] / "1", tmp_path / "2")
        (tmp_path / "2").rename(base / "2")
        client.wait_until_available(60, version=2)
        assert joined([*first, *pieces]) == tuple(right)


def test_what_cannot_be_streamed_is_said(client, server):
    with pytest.raises(ServingError, match="The model cannot read this: the prompt") as told:
        next(client.stream("one two " * 400))
    assert told.value.code == Code.INVALID_ARGUMENT
    for bad, words in (
        ({"prompt": ["one"]}, "one prompt, a str"),
        ({"prompt": "one", "num_alternatives": 6}, "num_alternatives must be .* from 0 to 5"),
        ({"prompt": "one", "tokens_per_piece": 0}, "tokens_per_piece must be .* from 1 to 32"),
        ({"prompt": "one", "num_return_sequences": 2}, "No setting 'num_return_sequences'"),
    ):
        with pytest.raises(UserError, match=words):
            next(client.stream(**bad))
    with (
        Client(f"127.0.0.1:{server.port}", "plain") as plain,
        pytest.raises(UserError, match="plain was exported without sessions"),
    ):
        next(plain.stream("one"))
    with pytest.raises(ServingError) as told:
        list(client.stream("one", max_new_tokens=150, timeout_s=0.001))
    assert told.value.code == Code.DEADLINE_EXCEEDED


def test_the_command_line_shows_texts_while_they_are_written(endpoint, capsys):
    asked = ["call", "/".join(endpoint), "--prompt", "one", "--prompt", "two", "--seed", "3"]
    asked += ["--max-new-tokens", "6", "--temperature", "1"]
    assert cli.main(asked) == 0
    (right,) = capsys.readouterr().out.splitlines()
    assert cli.main([*asked, "--stream"]) == 0
    told = capsys.readouterr()
    texts = [one["text"] for one in json.loads(right)["generations"]]
    assert [one["text"] for one in json.loads(told.out)["generations"]] == texts
    assert told.err == "".join(f"{text}\n" for text in texts)
