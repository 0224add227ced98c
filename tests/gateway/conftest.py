"""A server of a tiny model with sessions, and gateways before it, in loops of their own."""

import asyncio
import contextlib
import http.client
import json
import threading
from pathlib import Path

import keras
import pytest
import tensorflow as tf
from relays import Relay, until

import tfllm
from tfllm import contract
from tfllm.chat import chatml
from tfllm.export import for_serving
from tfllm.gateway.run import gateway
from tfllm.models import (
    GPTBackbone,
    GPTCausalLM,
    GPTCausalLMPreprocessor,
    LSTMBackbone,
    LSTMCausalLM,
    LSTMCausalLMPreprocessor,
)
from tfllm.serving import Client, Server

NUM_SLOTS = 3
MARIAN = Path(__file__).parents[1] / "huggingface" / "fixtures" / "marian-separate"


def _rows(field):
    return tf.TensorSpec([None, *field.shape], field.dtype, name=field.name)


class Plain(tf.Module):
    """An export without sessions, of an earlier version: texts that say what was asked for, and
    vectors.
    """

    @tf.function(
        input_signature=[
            _rows(field)
            for field in contract.SIGNATURES[contract.GENERATE].inputs
            if field.name not in contract.LATER_SAMPLING
        ]
    )
    def generate(self, prompt, max_new_tokens, temperature, top_k, top_p, min_p, *others):
        del temperature, top_k, top_p, min_p
        told = [tf.strings.as_string(number) for number in (max_new_tokens, others[1])]
        is_empty = prompt == ""
        return {
            "text": tf.strings.join([prompt, *told], separator="|"),
            "finish_reason": tf.where(is_empty, "error: nothing to read", "stop"),
            "num_tokens": max_new_tokens,
            "logprob": tf.zeros_like(max_new_tokens, tf.float32),
        }

    @tf.function(input_signature=[tf.TensorSpec([None], tf.string, name="text")])
    def embed(self, text):
        length = tf.cast(tf.strings.length(text), tf.float32)
        return {
            "embedding": tf.stack([length, -length], 1),
            "error": tf.where(text == "", "nothing to read", ""),
        }

    @tf.function(input_signature=[tf.TensorSpec([None], tf.string, name="text")])
    def tokenize(self, text):
        return {
            "token_ids": tf.zeros([tf.size(text), 1], tf.int32),
            "num_tokens": tf.strings.length(text),
        }


@pytest.fixture(scope="session")
def chat_model(tokenizer):
    """A GPT of random weights, which never comes to an end by itself, with turns of ChatML."""
    keras.utils.set_random_seed(1)
    with_turns = tokenizer.with_added_tokens(chatml().special_tokens)
    with_turns.chat_template = chatml()
    backbone = GPTBackbone(
        vocabulary_size=with_turns.vocabulary_size(),
        num_layers=1,
        num_heads=2,
        hidden_dim=16,
        max_sequence_length=192,
    )
    return GPTCausalLM(backbone, GPTCausalLMPreprocessor(with_turns, sequence_length=192))


@pytest.fixture(scope="session")
def bases(chat_model, tmp_path_factory):
    """Base paths by name: `gpt` with sessions, `plain` without."""
    folder = tmp_path_factory.mktemp("gateway")
    for_serving(chat_model, folder / "gpt", sessions=NUM_SLOTS, warm_up=[])
    module = Plain()
    signatures = {name: getattr(module, name) for name in ("generate", "embed", "tokenize")}
    tf.saved_model.save(module, str(folder / "plain" / "1"), signatures=signatures)
    return {name: folder / name for name in ("gpt", "plain")}


@pytest.fixture(scope="session")
def server(bases):
    with Server(bases, port=0, rest_port=0) as server:
        server.wait_until_available(60)
        yield server


@pytest.fixture(scope="session")
def client(server):
    """Of the model with sessions, without a gateway."""
    with Client(f"127.0.0.1:{server.port}", "gpt") as client:
        yield client


@pytest.fixture(scope="session")
def recurrent_endpoint(tokenizer, tmp_path_factory):
    """Of a server of an LSTM of random weights, with sessions."""
    keras.utils.set_random_seed(2)
    backbone = LSTMBackbone(
        tokenizer.vocabulary_size(), num_layers=1, hidden_dim=16, max_sequence_length=192
    )
    model = LSTMCausalLM(backbone, LSTMCausalLMPreprocessor(tokenizer, sequence_length=192))
    base = tmp_path_factory.mktemp("recurrent") / "gpt"
    for_serving(model, base, sessions=NUM_SLOTS, warm_up=[])
    with Server({"gpt": base}, port=0) as server:
        server.wait_until_available(60)
        yield f"127.0.0.1:{server.port}", "gpt"


@pytest.fixture(scope="session")
def translating_endpoint(tmp_path_factory):
    """Of a server of a small Marian, with sessions."""
    base = tmp_path_factory.mktemp("translating") / "gpt"
    for_serving(tfllm.from_huggingface(MARIAN), base, sessions=NUM_SLOTS, warm_up=[])
    with Server({"gpt": base}, port=0) as server:
        server.wait_until_available(60)
        yield f"127.0.0.1:{server.port}", "gpt"


@pytest.fixture(params=["endpoint", "recurrent_endpoint", "translating_endpoint"])
def either_endpoint(request):
    """Of a model with caches of attention, of one with a state, and of one that reads sources."""
    return request.getfixturevalue(request.param)


class Running:
    """A gateway in a thread; a client that speaks plain HTTP."""

    def __init__(self, *endpoints, grpc_port=None, **options):
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)
        self._thread.start()

        async def start():
            self.gateway = gateway(endpoints, **options)
            await self.gateway.start(grpc_port=grpc_port)

        self.has_stopped = False
        self._do(start())

    def _do(self, coroutine):
        return asyncio.run_coroutine_threadsafe(coroutine, self._loop).result(60)

    @property
    def url(self):
        return f"http://127.0.0.1:{self.gateway.port}"

    def wait_until_up(self):
        until(lambda: self.ask("GET", "/healthz")[0] == 200)

    def stop(self, grace_s=0.0):
        self.has_stopped = True
        self._do(self.gateway.stop(grace_s))
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    def send(self, method, path, body=None, headers=None):
        """The connection, of which nothing is read yet."""
        connection = http.client.HTTPConnection("127.0.0.1", self.gateway.port, timeout=60)
        if body is not None and not isinstance(body, bytes):
            body = json.dumps(body).encode()
        connection.request(method, path, body, headers or {})
        return connection

    def open(self, method, path, body=None, headers=None):
        """The connection, and the response, of which the head is read."""
        connection = self.send(method, path, body, headers)
        return connection, connection.getresponse()

    def ask(self, method, path, body=None, headers=None):
        """Status, and the body as JSON or text."""
        connection, response = self.open(method, path, body, headers)
        with contextlib.closing(connection):
            text = response.read().decode()
        is_json = response.headers["Content-Type"].startswith("application/json")
        return response.status, json.loads(text) if is_json else text

    def complete(self, **body):
        status, answer = self.ask("POST", "/v1/completions", {"model": "gpt", **body})
        assert status == 200, answer
        return answer

    def stream(self, path="/v1/completions", **body):
        """The messages of a stream, as they come."""
        connection, response = self.open("POST", path, {"model": "gpt", "stream": True, **body})
        with contextlib.closing(connection):
            assert response.status == 200, response.read()
            yield from events(response)


def events(response):
    for line in response:
        if line.startswith(b"data: {"):
            yield json.loads(line[6:])
        else:
            assert line in (b"\n", b"data: [DONE]\n"), line


@pytest.fixture
def start_gateway():
    """Starts gateways that have found their servers: `start_gateway((address, model), …)`."""
    started = []

    def start(*endpoints, **options):
        started.append(Running(*endpoints, **options))
        started[-1].wait_until_up()
        return started[-1]

    yield start
    for running in started:
        if not running.has_stopped:
            running.stop()


@pytest.fixture(scope="session")
def endpoint(server):
    return f"127.0.0.1:{server.port}", "gpt"


@pytest.fixture
def running(endpoint, start_gateway):
    return start_gateway(endpoint)


@pytest.fixture
def relayed(server):
    """The address of a relay to the server, and the metadata that came with the calls."""
    metadata = []
    relay = Relay(server.port, lambda call, _: metadata.append(call.invocation_metadata))
    with relay:
        yield relay.address, metadata


@pytest.fixture
def gated(server):
    """The address of a relay to the server behind a gate: `gated(gate)`."""
    with contextlib.ExitStack() as stack:

        def start(gate):
            stack.callback(gate.may_go.set)
            return stack.enter_context(Relay(server.port, gate)).address

        yield start
