"""The client over REST against recorded answers, as TensorFlow Serving's documentation has them."""

import contextlib
import http.client
import http.server
import json
import subprocess
import sys
import threading

import numpy as np
import pytest

from tfllm.contract import Generation
from tfllm.errors import UserError
from tfllm.serving import Client, Code, ServingError
from tfllm.serving.metadata import TensorInfo, VersionStatus

STRING = {"dtype": "DT_STRING", "tensor_shape": {"dim": [{"size": "-1"}], "unknown_rank": False}}
FLOAT = STRING | {"dtype": "DT_FLOAT"}
INT = STRING | {"dtype": "DT_INT32"}
LONG = STRING | {"dtype": "DT_INT64"}
STOPS = STRING | {"tensor_shape": {"dim": [{"size": "-1"}, {"size": "4"}], "unknown_rank": False}}
ONE = {"dim": [{"size": "1", "name": ""}], "unknown_rank": False}
GENERATE = {
    "inputs": {
        "prompt": STRING,
        "max_new_tokens": INT,
        "temperature": FLOAT,
        "seed": LONG,
        "stop": STOPS,
    },
    "outputs": {
        "text": STRING,
        "finish_reason": STRING,
        "num_tokens": INT,
        "logprob": FLOAT,
    },
    "defaults": {
        "max_new_tokens": {"dtype": "DT_INT32", "tensor_shape": ONE, "int_val": [9]},
        "temperature": {
            "dtype": "DT_FLOAT",
            "tensor_shape": ONE,
            "tensor_content": "AADAPw==",  # 1.5
            "float_val": [],
        },
        "seed": {"dtype": "DT_INT64", "tensor_shape": ONE, "int64_val": ["9007199254740993"]},
        "stop": {
            "dtype": "DT_STRING",
            "tensor_shape": {"dim": [{"size": "1"}, {"size": "4"}]},
            "string_val": ["RU5E", ""],
        },
    },
    "method_name": "tensorflow/serving/predict",
}
ONLY = {"inputs": {"x": FLOAT}, "outputs": {"y": FLOAT}, "method_name": ""}
METADATA = {
    "model_spec": {"name": "gpt", "signature_name": "", "version": "3"},
    "metadata": {
        "signature_def": {
            "@type": "type.googleapis.com/tensorflow.serving.SignatureDefMap",
            "signature_def": {
                "generate": GENERATE,
                "only": ONLY,
                "__saved_model_init_op": {"inputs": {}, "outputs": {}},
            },
        }
    },
}
GENERATED = {
    "outputs": {
        "text": ["né\u0000"],
        "finish_reason": ["stop"],
        "num_tokens": [2],
        "logprob": [-0.5],
    }
}
MODEL = "/v1/models/gpt"


class Recorded(http.server.ThreadingHTTPServer):
    """Answers by path; what it was asked is in `asked`, how often it was connected to in `opened`.

    Several answers to one path come in turns, the last one again and again.
    """

    daemon_threads = True

    def __init__(self):
        super().__init__(("127.0.0.1", 0), _Handler)
        self.answers = {f"{MODEL}/metadata": [(200, METADATA)]}
        self.asked = []
        self.opened = 0
        self.end = threading.Event()

    @property
    def address(self):
        return f"http://127.0.0.1:{self.server_port}"

    def process_request(self, *args):
        self.opened += 1
        super().process_request(*args)


class _Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True

    def do_GET(self):
        size = int(self.headers.get("Content-Length", 0))
        body = json.loads(self.rfile.read(size)) if size else None
        self.server.asked.append((self.command, self.path, body, dict(self.headers)))
        answers = self.server.answers.get(self.path, [(404, {"error": "Malformed request"})])
        answer = answers.pop(0) if len(answers) > 1 else answers[0]
        if answer is None:  # it hangs in the middle of an answer
            self.wfile.write(b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\n{")
            self.server.end.wait(120)
            self.close_connection = True
            return
        status, content = answer
        content = content if isinstance(content, bytes) else json.dumps(content).encode()
        self.send_response(status)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)
        # As a server that thinks nobody comes back, without saying so.
        self.close_connection = status == 200 and content.endswith(b" ")

    do_POST = do_GET

    def log_message(self, *_):
        pass


@pytest.fixture
def server():
    with Recorded() as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        yield server
        server.end.set()
        server.shutdown()
        thread.join()


@pytest.fixture
def connect(server):
    with contextlib.ExitStack() as clients:
        yield lambda **options: clients.enter_context(
            Client(server.address, "gpt", **{"timeout_s": 20, **options})
        )


def test_a_generation_sends_every_input_by_columns_and_is_typed(server, connect):
    server.answers[f"{MODEL}:predict"] = [(200, GENERATED)]
    client = connect()

    assert client.generate("né", temperature=0.25) == Generation("né\0", "stop", 2, -0.5)
    assert client.generate(["a"])[0].num_tokens == 2

    (_, _, first, headers), (_, _, second, _) = [a for a in server.asked if a[0] == "POST"]
    assert first == {
        "signature_name": "generate",
        "inputs": {
            "prompt": ["né"],
            "max_new_tokens": [9],
            "temperature": [0.25],
            "top_k": [0],
            "top_p": [1.0],
            "min_p": [0.0],
            "repetition_penalty": [1.0],
            "seed": [9007199254740993],
            "stop": [["", "", "", ""]],
        },
    }
    assert second["inputs"]["temperature"] == [1.5]
    assert headers["Content-Type"] == "application/json"


def test_an_only_output_has_no_name_and_takes_it_from_the_signature(server, connect):
    server.answers[f"{MODEL}:predict"] = [(200, b'{"outputs": [NaN, -Infinity, 1]}')]

    answer = connect().predict({"x": [1.0]}, "only")

    assert answer["y"].dtype == np.float32
    assert [str(value) for value in answer["y"]] == ["nan", "-inf", "1.0"]


def test_bytes_that_are_no_text_go_and_come_in_base64(server, connect):
    server.answers[f"{MODEL}:predict"] = [(200, {"outputs": {"text": [{"b64": "/w=="}, "é"]}})]

    answer = connect().predict({"prompt": np.array([b"\xff", "é".encode()], object)}, "generate")

    assert server.asked[-1][2]["inputs"] == {"prompt": [{"b64": "/w=="}, "é"]}
    assert answer["text"].tolist() == [b"\xff", "é".encode()]


def test_metadata_tell_inputs_outputs_and_defaults(connect):
    metadata = connect().metadata()

    assert (metadata.name, metadata.version, list(metadata.signatures)) == (
        "gpt",
        3,
        ["generate", "only"],
    )
    inputs = metadata.signatures["generate"].inputs
    assert inputs["prompt"] == TensorInfo("string", (None,), None)
    assert inputs["stop"].shape == (None, 4)
    assert inputs["stop"].default.tolist() == [[b"END", b"", b"", b""]]
    assert inputs["temperature"].default.tolist() == [1.5]
    assert inputs["seed"].default.tolist() == [9007199254740993]


def test_status_lists_versions_and_waiting_ends_with_the_first_that_is_available(server, connect):
    def told(state):
        ended = {"error_code": "INTERNAL", "error_message": "no"}
        newest = {"version": "3", "state": state, "status": {"error_code": "OK"}}
        return 200, {
            "model_version_status": [newest, {"version": "2", "state": "END", "status": ended}]
        }

    server.answers[MODEL] = [(404, {"error": "not yet"}), told("LOADING"), told("AVAILABLE")]
    client = connect()

    client.wait_until_available(120)

    assert len(server.asked) == 3
    assert client.status() == [
        VersionStatus(3, "AVAILABLE", Code.OK, ""),
        VersionStatus(2, "END", Code.INTERNAL, "no"),
    ]


@pytest.mark.parametrize(
    ("options", "path"),
    [
        ({"version": 2}, f"{MODEL}/versions/2/metadata"),
        ({"version_label": "stable one"}, f"{MODEL}/labels/stable%20one/metadata"),
    ],
)
def test_a_client_may_ask_for_one_version_or_label(server, connect, options, path):
    server.answers[path] = [(200, METADATA)]

    assert connect(**options).metadata().version == 3


def test_what_cannot_answer_is_asked_again_and_what_refuses_is_not(server, connect):
    busy = (503, {"error": "the queue is full"})
    server.answers[f"{MODEL}:predict"] = [busy, busy, (200, {"outputs": [1.0]})]
    client = connect()
    assert client.predict({"x": [1.0]}, "only")["y"].tolist() == [1.0]
    assert [a[0] for a in server.asked].count("POST") == 3

    server.answers[f"{MODEL}:predict"] = [busy]
    with pytest.raises(ServingError, match="cannot answer: the queue is full") as refused:
        connect(retries=1).predict({"x": np.ones(1)}, "only")
    assert refused.value.code == Code.UNAVAILABLE
    assert [a[0] for a in server.asked].count("POST") == 5

    for status, content, code, words in [
        (400, {"error": "bad"}, Code.INVALID_ARGUMENT, "bad"),
        (429, {"error": "enough"}, Code.RESOURCE_EXHAUSTED, "enough"),
        (401, b"<html>who?</html>", Code.UNAUTHENTICATED, "<html>who"),
        (418, b"", Code.UNKNOWN, "HTTP 418"),
        (200, b"[]", Code.UNKNOWN, r"\[\]"),
    ]:
        server.asked.clear()
        server.answers[f"{MODEL}:predict"] = [(status, content)]
        with pytest.raises(ServingError, match=words) as refused:
            client.predict({"x": np.ones(1)}, "only")
        assert refused.value.code == code
        assert len(server.asked) == 1


def test_a_connection_is_used_again_and_opened_again_when_the_server_closed_it(server, connect):
    client = connect(retries=0)
    for _ in range(3):
        client.metadata()
    assert server.opened == 1

    server.answers[f"{MODEL}/metadata"] = [(200, json.dumps(METADATA).encode() + b" ")]
    for _ in range(3):
        client.metadata()
    assert server.opened == 3


def test_a_deadline_holds_in_the_middle_of_an_answer(server, connect):
    server.answers[f"{MODEL}/metadata"] = [None]

    with pytest.raises(ServingError, match=r"within 0\.2 s\. Raise timeout_s") as late:
        connect().metadata(timeout_s=0.2)
    assert late.value.code == Code.DEADLINE_EXCEEDED


def test_closing_a_client_ends_what_it_waits_for(server):
    server.answers[MODEL] = [None]
    client, said = Client(server.address, "gpt", timeout_s=120), []

    def ask():
        with pytest.raises(ServingError) as ended:
            client.status()
        said.append(ended.value.code)

    thread = threading.Thread(target=ask)
    thread.start()
    while not server.asked:
        pass
    client.close()
    thread.join(120)

    assert said == [Code.CANCELLED]
    with pytest.raises(ServingError, match="the client is closed"):
        client.status()


@pytest.mark.parametrize(
    ("kind", "moment"),
    [
        (http.client.HTTPConnection, "connect"),
        (http.client.HTTPConnection, "request"),
        (http.client.HTTPConnection, "getresponse"),
        (http.client.HTTPResponse, "close"),
    ],
)
def test_a_client_may_be_closed_at_any_moment_of_a_call(server, monkeypatch, kind, moment):
    client = Client(server.address, "gpt", timeout_s=120)
    step = getattr(kind, moment)

    def closed_before(self, *arguments):
        client.close()
        return step(self, *arguments)

    monkeypatch.setattr(kind, moment, closed_before)
    with pytest.raises(ServingError) as ended:
        client.status()

    assert ended.value.code == Code.CANCELLED


def test_headers_and_limits_are_kept(server, connect):
    client = connect(headers={"authorization": "Bearer x"}, max_message_bytes=300)

    with pytest.raises(ServingError, match="an answer of more than 300 bytes"):
        client.metadata()
    assert server.asked[-1][3]["authorization"] == "Bearer x"
    client._transport._signatures = {"only": None}
    with pytest.raises(ServingError, match="bytes, 300 at most"):
        client.predict({"prompt": np.array(["x" * 300])}, "only")


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"headers": {"a b": "c"}}, "A header is a name with a str"),
        ({"headers": {"a": "b\r\nc: d"}}, "must be printable ASCII"),
        ({"keepalive_s": 0}, "keepalive_s must be above 0"),
        ({"max_message_bytes": 0}, "max_message_bytes must be at least 1"),
        ({"version": 1, "version_label": "a"}, "not for both"),
    ],
)
def test_options_that_cannot_be_are_refused(connect, options, words):
    with pytest.raises(UserError, match=words):
        connect(**options)


def test_an_output_that_is_not_there_is_refused_as_over_grpc(server, connect):
    server.answers[f"{MODEL}:predict"] = [(200, GENERATED)]
    client = connect()

    answer = client.predict({"prompt": ["a"]}, "generate", output_filter=["logprob"])
    assert list(answer) == ["logprob"]
    with pytest.raises(ServingError, match="output tensor alias not found in signature: zz"):
        client.predict({"prompt": ["a"]}, "generate", output_filter=["zz"])


ALONE = """
import sys
for name in ("tensorflow", "tensorflow_serving", "grpc", "google", "ml_dtypes", "keras", "tqdm"):
    sys.modules[name] = None
from tfllm.serving import AsyncClient, Client
print(Client(sys.argv[1], "gpt").generate("a"))
try:
    Client("127.0.0.1:8500", "gpt")
except ValueError as error:
    print(error)
"""


def test_a_client_of_rest_needs_neither_tensorflow_nor_its_api(server):
    server.answers[f"{MODEL}:predict"] = [(200, GENERATED)]

    done = subprocess.run(
        [sys.executable, "-c", ALONE, server.address], capture_output=True, text=True, check=True
    )

    generated, refusal = done.stdout.splitlines()
    assert generated.startswith("Generation(text='né")
    assert refusal.startswith("gRPC needs tensorflow-serving-api")
