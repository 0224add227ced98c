"""The client for asyncio does what the one that blocks does, over one text of the calls."""

import asyncio
import inspect

import grpc
import pytest
from tensorflow_serving.apis import get_model_status_pb2, model_service_pb2_grpc
from test_serving_client import Echo

from tfllm import contract
from tfllm.errors import UserError
from tfllm.serving import AsyncClient, Client, Code, ServedModel, Server, ServingError

SIGNATURES = (contract.GENERATE, contract.SCORE, contract.TOKENIZE, contract.DETOKENIZE)


@pytest.fixture(scope="module")
def server(tmp_path_factory, vec_versions):
    import tensorflow as tf

    base = tmp_path_factory.mktemp("served") / "echo"
    echo = Echo()
    tf.saved_model.save(
        echo, str(base / "1"), signatures={name: getattr(echo, name) for name in SIGNATURES}
    )
    vec = ServedModel(str(vec_versions), latest=3, labels={"stable": 2})
    with Server({"echo": base, "vec": vec}, port=0) as server:
        server.wait_until_available(60)
        yield server


@pytest.fixture
def ask(server):
    """Runs a coroutine of a new client of a model."""

    def ask(use, model="echo", **options):
        async def run():
            async with AsyncClient(f"127.0.0.1:{server.port}", model, **options) as client:
                return await use(client)

        return asyncio.run(run())

    return ask


@pytest.mark.parametrize(
    "call",
    [
        lambda c: c.generate("né", temperature=0.5, stop="END"),
        lambda c: c.generate(["a", "b"], num_return_sequences=2, seed=[1, 7]),
        lambda c: c.score(["a", "b"], ["abc", ""]),
        lambda c: c.tokenize(["abc", "", "中"]),
        lambda c: c.detokenize([[97, 98], []]),
        lambda c: c.status(),
        lambda c: c.describe("chat_template"),
    ],
)
def test_it_answers_what_the_client_that_blocks_answers(server, ask, call):
    with Client(f"127.0.0.1:{server.port}", "echo") as client:
        assert ask(call) == call(client)


def test_both_clients_have_the_same_calls():
    public = {name for name in dir(Client) if not name.startswith("_")}
    assert {name for name in dir(AsyncClient) if not name.startswith("_")} == public
    for name in public:
        if callable(getattr(Client, name)):
            assert inspect.signature(getattr(Client, name)) == inspect.signature(
                getattr(AsyncClient, name)
            )


def test_many_calls_run_at_a_time_in_one_loop(ask):
    async def many(client):
        await client.wait_until_available(120)
        return await asyncio.gather(*(client.generate(f"p{i}") for i in range(50)))

    assert [g.text.split("|")[0] for g in ask(many)] == [f"p{i}" for i in range(50)]


def test_errors_come_with_code_and_with_what_there_is_instead(ask):
    with pytest.raises(ServingError, match=r"There are the versions: 1 \(AVAILABLE\)"):
        ask(lambda c: c.tokenize("a"), version=9)
    with pytest.raises(UserError, match="prompt must hold str"):
        ask(lambda c: c.generate(["a", 3]))
    with pytest.raises(UserError, match="A client has the option timeout_s, not timeout"):
        ask(lambda c: c.generate("a", timeout=3))
    with pytest.raises(UserError, match="echo has no chat template"):
        ask(lambda c: c.chat([{"role": "user", "content": "Hi"}]))


def test_a_closed_client_says_so(ask):
    async def closed(client):
        await client.status()
        await client.close()
        return await client.status()

    with pytest.raises(ServingError, match="the client is closed"):
        ask(closed)


def test_a_call_that_is_cancelled_ends_as_such(ask):
    async def cancelled(client):
        call = asyncio.ensure_future(client.generate("x"))
        await asyncio.sleep(0)
        call.cancel()
        with pytest.raises(asyncio.CancelledError):
            await call
        return await client.generate("y")

    assert ask(cancelled).text.startswith("y|")


@pytest.mark.parametrize("label", ["stable", "unknown"])
def test_a_label_is_the_version_that_the_server_gives_it_to(ask, label):
    async def labelled(client):
        await client.wait_until_available(20 if label == "stable" else 0.2)
        return await client.predict({"x": [[1, 2]], "n": [5]}, output_filter=["y"])

    if label == "stable":
        assert ask(labelled, "vec", version_label=label)["y"].tolist() == [[2, 4]]
    else:
        with pytest.raises(ServingError, match="not available after 0.2 s: Unrecognized") as late:
            ask(labelled, "vec", version_label=label)
        assert late.value.code == Code.DEADLINE_EXCEEDED


class Heard(model_service_pb2_grpc.ModelServiceServicer):
    """Remembers the metadata of a call; answers with as many versions as it is told."""

    def __init__(self, num_versions=0):
        self.num_versions = num_versions
        self.heard = []

    def GetModelStatus(self, request, context):  # noqa: ARG002
        self.heard += [tuple(entry) for entry in context.invocation_metadata()]
        response = get_model_status_pb2.GetModelStatusResponse()
        for version in range(self.num_versions):
            response.model_version_status.add(version=version + 1)
        return response


@pytest.fixture
def listen():
    servers = []

    def listen(service):
        from concurrent import futures

        servers.append(grpc.server(futures.ThreadPoolExecutor(1)))
        model_service_pb2_grpc.add_ModelServiceServicer_to_server(service, servers[-1])
        port = servers[-1].add_insecure_port("127.0.0.1:0")
        servers[-1].start()
        return f"127.0.0.1:{port}"

    yield listen
    for server in servers:
        server.stop(None).wait()


def test_headers_go_with_every_call(listen):
    service = Heard()
    address, headers = listen(service), {"Authorization": "Bearer x"}

    async def waiting():
        async with AsyncClient(address, "gpt", headers=headers) as client:
            await client.status()

    asyncio.run(waiting())
    with Client(address, "gpt", headers=headers, keepalive_s=300) as client:
        client.status()

    assert service.heard.count(("authorization", "Bearer x")) == 2


def test_a_message_above_the_limit_is_refused(listen):
    client = Client(listen(Heard(100)), "gpt", max_message_bytes=100)
    with client, pytest.raises(ServingError) as refused:
        client.status()
    assert refused.value.code == Code.RESOURCE_EXHAUSTED
