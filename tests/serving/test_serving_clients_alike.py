"""Over gRPC and over REST, blocking and waiting, one server gives the same answers."""

import asyncio

import numpy as np
import pytest
import tensorflow as tf
from test_serving_client import Echo

from tfllm import contract
from tfllm.serving import AsyncClient, Client, Server, ServingError

SIGNATURES = (contract.GENERATE, contract.SCORE, contract.TOKENIZE, contract.DETOKENIZE)


@pytest.fixture(scope="module")
def addresses(tmp_path_factory, vec_versions):
    base = tmp_path_factory.mktemp("served") / "echo"
    echo = Echo()
    signatures = {name: getattr(echo, name) for name in SIGNATURES}
    tf.saved_model.save(echo, str(base / "1"), signatures=signatures)
    with Server({"echo": base, "vec": vec_versions}, port=0, rest_port=0) as server:
        server.wait_until_available(60)
        yield f"127.0.0.1:{server.port}", f"http://127.0.0.1:{server.rest_port}"


@pytest.mark.parametrize(
    "call",
    [
        lambda c: c.generate(["né\0", 'q"\\'], temperature=0.1, seed=[-(2**63), 2**63 - 1]),
        lambda c: c.generate("a", num_return_sequences=3, stop=["\n", "END"]),
        lambda c: c.generate(["", "a"]),
        lambda c: c.score(["a", "b"], ["abc", ""]),
        lambda c: c.tokenize(["abc", "", "中"]),
        lambda c: c.detokenize([[97, 98], [], [20013]]),
        lambda c: c.status(),
        lambda c: c.wait_until_available(5),
    ],
)
def test_one_call_has_one_answer(addresses, call):
    async def awaited(address):
        async with AsyncClient(address, "echo") as client:
            return await call(client)

    answers = [asyncio.run(awaited(address)) for address in addresses]
    for address in addresses:
        with Client(address, "echo") as client:
            answers.append(call(client))
    assert answers == answers[:1] * 4


def test_metadata_and_outputs_have_the_same_dtypes_and_shapes(addresses):
    told, answers = [], []
    for address in addresses:
        with Client(address, "vec") as client:
            told.append(client.metadata())
            answers.append(client.predict({"x": [[1, 2], [3, 4]], "n": [5, -6]}))
    one, other = told
    assert one.version == other.version
    for name, signature in one.signatures.items():
        assert other.signatures[name].outputs == signature.outputs
        for alias, info in signature.inputs.items():
            there = other.signatures[name].inputs[alias]
            assert there[:2] == info[:2]
            np.testing.assert_array_equal(there.default, info.default)
    for alias, array in answers[0].items():
        assert answers[1][alias].dtype == array.dtype
        np.testing.assert_array_equal(answers[1][alias], array)


@pytest.mark.parametrize(
    ("options", "signature", "words"),
    [
        ({"version": 9}, "opt", r"There are the versions: 3 \(AVAILABLE\)"),
        ({}, "zzz", r"zzz.* not found.* vec has: opt, serving_default"),
    ],
)
def test_refusals_say_what_there_is_instead(addresses, options, signature, words):
    for address in addresses:
        with (
            Client(address, "vec", **options) as client,
            pytest.raises(ServingError, match=words),
        ):
            client.predict({"text": np.array(["a"])}, signature)


def test_many_calls_run_at_a_time(addresses):
    async def many(address):
        async with AsyncClient(address, "echo") as client:
            return await asyncio.gather(*(client.generate(f"p{i}") for i in range(40)))

    for address in addresses:
        told = asyncio.run(many(address))
        assert [g.text.split("|")[0] for g in told] == [f"p{i}" for i in range(40)]
