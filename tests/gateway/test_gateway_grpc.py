"""The gateway's own gRPC service, asked by our client and by gRPC alone."""

import asyncio
import contextlib
from concurrent import futures

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc
from relays import Gate, until
from test_client_streams import SETTINGS, TALK, joined
from test_gateway_texts import all_slots_come_back, bodies

from tfllm import contract
from tfllm.errors import UserError
from tfllm.gateway.keys import Keys
from tfllm.serving import AsyncClient, Client, Code, ServingError
from tfllm.serving.text_generation import METHOD, SERVICE, GenerateReply, GenerateRequest


@pytest.fixture
def start(endpoint, start_gateway):
    return lambda *endpoints, **options: start_gateway(
        *(endpoints or [endpoint]), grpc_port=0, **options
    )


def address_of(gateway):
    return f"127.0.0.1:{gateway.gateway.grpc_port}"


@pytest.fixture
def asks(start):
    with Client(address_of(start()), "gpt") as asks:
        yield asks


@contextlib.contextmanager
def calling(gateway):
    """The method, as whoever has the .proto calls it."""
    with grpc.insecure_channel(address_of(gateway)) as channel:
        yield channel.unary_stream(
            f"/{SERVICE}/{METHOD}",
            request_serializer=GenerateRequest.SerializeToString,
            response_deserializer=GenerateReply.FromString,
        )


def test_streams_at_a_time_are_the_texts_of_generate(asks, client):
    settings = [{"max_new_tokens": body.pop("max_tokens"), **body} for body in bodies(12, seed=7)]
    with futures.ThreadPoolExecutor(6) as threads:
        told = list(threads.map(lambda one: joined(asks.stream(**one, logprobs=True)), settings))
    for each, one in zip(told, settings, strict=True):
        assert each == tuple(client.generate(**one))


def test_what_is_left_out_is_as_the_model_has_it(asks, client):
    assert joined(asks.stream("one", logprobs=True)) == tuple(client.generate("one"))
    told = joined(asks.stream_chat(TALK, logprobs=True, temperature=0.7, seed=2))
    assert told == tuple(client.chat(TALK, temperature=0.7, seed=2))


def test_a_client_that_waits_streams_alternatives(client, start):
    async def read():
        async with AsyncClient(address_of(start()), "gpt") as asks:
            return [one async for one in asks.stream("one", **SETTINGS, num_alternatives=2)]

    pieces = asyncio.run(read())
    assert joined(pieces) == tuple(client.generate("one", **SETTINGS))
    assert all(len(best) == 2 for piece in pieces for best in piece.alternatives)
    right = [p for p in client.stream("one", **SETTINGS, num_alternatives=2) if p.token_ids]
    assert pieces[0].alternatives[0] == right[0].alternatives[0]


def test_who_leaves_or_comes_to_a_deadline_gives_the_slot_back(asks, client, start, gated):
    for _ in asks.stream("one", max_new_tokens=150):
        break
    assert all_slots_come_back(client)
    gate = Gate(contract.DECODE, 1, number=2)
    gateway = start((gated(gate), "gpt"))
    with Client(address_of(gateway), "gpt") as asks, pytest.raises(ServingError) as told:
        list(asks.stream("one", max_new_tokens=150, timeout_s=0.2))
    gate.open()
    assert told.value.code == Code.DEADLINE_EXCEEDED
    assert all_slots_come_back(client)


def test_refusals_have_the_codes_of_grpc(asks, start, endpoint):
    for model, asked, code, words in (
        ("other", {"prompt": "x"}, Code.NOT_FOUND, "There is no model 'other' here, but gpt"),
        ("gpt", {"prompt": "one " * 900}, Code.INVALID_ARGUMENT, "The model cannot read this"),
        ("gpt", {"prompt": "x", "temperature": -1.0}, Code.INVALID_ARGUMENT, "temperature"),
    ):
        with (
            Client(asks.address, model) as refused,
            pytest.raises(ServingError, match=words) as told,
        ):
            list(refused.stream(**asked))
        assert told.value.code == code
    for bad in ({"top_k": 1.5}, {"stop": ["1", "2", "3", "4", "5"]}, {"num_beams": 2}):
        with pytest.raises(UserError):
            next(asks.stream("x", **bad))
    with pytest.raises(UserError, match="A message must have role and content"):
        next(asks.stream_chat([{"role": "user"}]))
    plain = start((endpoint[0], "plain"))
    with Client(address_of(plain), "plain") as asks_plain:
        assert [piece.text for piece in asks_plain.stream("hi", max_new_tokens=3, seed=8)] == [
            "hi|3|8"
        ]
        with pytest.raises(ServingError, match="without sessions: no logprobs"):
            list(asks_plain.stream("hi", logprobs=True))


def test_a_request_names_a_prompt_or_messages(start):
    with calling(start()) as call:
        for request in (
            GenerateRequest(model="gpt"),
            GenerateRequest(model="gpt", prompt="x", messages=TALK),
            GenerateRequest(model="gpt", prompt="x", num_alternatives=1),
            GenerateRequest(model="gpt", prompt="x", num_alternatives=6, wants_logprobs=True),
        ):
            with pytest.raises(grpc.RpcError) as told:
                list(call(request))
            assert told.value.code() == grpc.StatusCode.INVALID_ARGUMENT
        *_, last = call(GenerateRequest(model="gpt", prompt="one two", max_new_tokens=3))
        assert (last.finish_reason, last.usage.completion_tokens) == ("length", 3)
        assert last.usage.prompt_tokens > 0


def test_keys_and_their_limits_are_those_of_http(start):
    gateway = start(keys=Keys(["sk-a per_minute=1"]))
    request = GenerateRequest(model="gpt", prompt="x", max_new_tokens=1)
    key = (("authorization", "Bearer sk-a"),)
    with calling(gateway) as call:
        with pytest.raises(grpc.RpcError) as told:
            list(call(request))
        assert told.value.code() == grpc.StatusCode.UNAUTHENTICATED
        assert list(call(request, metadata=key))
        with pytest.raises(grpc.RpcError) as told:
            list(call(request, metadata=key))
    assert told.value.code() == grpc.StatusCode.RESOURCE_EXHAUSTED
    assert 1 <= int(dict(told.value.trailing_metadata())["retry-after"]) <= 60
    _, page = gateway.ask("GET", "/metrics")
    assert f'requests{{path="/{SERVICE}/{METHOD}",code="RESOURCE_EXHAUSTED"}}' in page


def test_a_gateway_that_is_stopped_ends_its_streams_and_takes_no_others(start, client):
    gateway = start()
    held = [client.stream(f"held {number}", max_new_tokens=50) for number in range(3)]
    for pieces in held:
        next(pieces)
    with grpc.insecure_channel(address_of(gateway)) as channel, calling(gateway) as call:
        health = health_pb2_grpc.HealthStub(channel)
        watch = health.Watch(health_pb2.HealthCheckRequest(service=SERVICE))
        assert next(watch).status == health_pb2.HealthCheckResponse.SERVING
        request = GenerateRequest(model="gpt", prompt="x", max_new_tokens=3)
        running = call(request)
        until(lambda: gateway.gateway.load)
        with futures.ThreadPoolExecutor(1) as threads:
            stopped = threads.submit(gateway.stop, 60)
            assert next(watch).status == health_pb2.HealthCheckResponse.NOT_SERVING
            with pytest.raises(grpc.RpcError) as told:
                list(call(request))
            assert told.value.code() == grpc.StatusCode.UNAVAILABLE
            for pieces in held:
                pieces.close()
            assert [*running][-1].finish_reason == "length"
            stopped.result()


def test_health_and_reflection_answer(start):
    with grpc.insecure_channel(address_of(start())) as channel:
        check = health_pb2_grpc.HealthStub(channel).Check
        assert check(health_pb2.HealthCheckRequest()).status == 1
        with pytest.raises(grpc.RpcError, match="there is no service x"):
            check(health_pb2.HealthCheckRequest(service="x"))
        ask = reflection_pb2.ServerReflectionRequest
        (told, file) = reflection_pb2_grpc.ServerReflectionStub(channel).ServerReflectionInfo(
            iter([ask(list_services=""), ask(file_containing_symbol=SERVICE)])
        )
    assert SERVICE in {one.name for one in told.list_services_response.service}
    assert b"GenerateReply" in file.file_descriptor_response.file_descriptor_proto[0]
