"""The interface of OpenAI: shapes, errors, keys and limits."""

import base64
import contextlib
import struct
from concurrent import futures

import numpy as np
import pytest
from relays import until

from tfllm import contract
from tfllm.chat import chatml
from tfllm.errors import UserError
from tfllm.gateway.keys import Keys

TALK = [{"role": "user", "content": "one two"}]


def chat(gateway, **body):
    status, answer = gateway.ask(
        "POST", "/v1/chat/completions", {"model": "gpt", "messages": TALK, **body}
    )
    assert status == 200, answer
    return answer


def test_a_chat_is_answered_by_the_models_template(running, client):
    answer = chat(running, max_completion_tokens=12, temperature=0, seed=1)
    right = client.generate(
        chatml().render(TALK), max_new_tokens=12, seed=1, stop=list(chatml().stop)
    )
    (choice,) = answer["choices"]
    assert choice["message"] == {"role": "assistant", "content": right.text, "refusal": None}
    assert choice["finish_reason"] == right.finish_reason
    assert answer["object"] == "chat.completion"

    messages = list(
        running.stream("/v1/chat/completions", messages=TALK, max_tokens=12, temperature=0)
    )
    deltas = [message["choices"][0]["delta"] for message in messages]
    assert deltas[0] == {"role": "assistant", "content": ""}
    assert "".join(delta.get("content", "") for delta in deltas) == right.text
    assert messages[-1]["choices"][0]["finish_reason"] == right.finish_reason
    assert {message["object"] for message in messages} == {"chat.completion.chunk"}


def test_tokens_are_told_with_their_alternatives(running):
    answer = chat(running, max_tokens=5, temperature=0, logprobs=True, top_logprobs=2)
    (choice,) = answer["choices"]
    tokens = choice["logprobs"]["content"]
    assert len(tokens) == 5
    for token in tokens:
        best = token["top_logprobs"]
        assert (best[0]["token"], best[0]["bytes"]) == (token["token"], token["bytes"])
        assert best[0]["logprob"] == pytest.approx(token["logprob"])
        assert best[0]["logprob"] >= best[1]["logprob"]
    raw = b"".join(bytes(token["bytes"]) for token in tokens)
    assert raw.decode(errors="replace") == choice["message"]["content"]

    told = running.complete(prompt="one", max_tokens=3, logprobs=2)["choices"][0]["logprobs"]
    assert {len(told[name]) for name in ("tokens", "token_logprobs", "text_offset")} == {3}
    assert [len(best) for best in told["top_logprobs"]] == [2, 2, 2]
    assert told["text_offset"][0] == 0


def test_biases_force_tokens(running, client):
    answer = running.complete(prompt="one", max_tokens=3, logit_bias={"20": 100})
    assert answer["choices"][0]["text"] == client.detokenize([20, 20, 20])


def test_a_seed_repeats_a_text_and_none_gives_another(running):
    def text(**body):
        return running.complete(prompt="one", max_tokens=30, temperature=1, **body)["choices"][0]

    assert text(seed=3) == text(seed=3)
    assert text() != text()


def test_models_are_listed(running):
    status, listed = running.ask("GET", "/v1/models")
    assert (status, [card["id"] for card in listed["data"]]) == (200, ["gpt"])
    assert running.ask("GET", "/v1/models/gpt")[1] == listed["data"][0]
    assert running.ask("GET", "/v1/models/other")[0] == 404


@pytest.mark.parametrize(
    ("body", "param"),
    [
        ({"prompt": 3}, "prompt"),
        ({"prompt": ["\ud800"]}, "prompt"),
        ({"prompt": [[1, 2]]}, "prompt"),
        ({"prompt": "x", "echo": True}, "echo"),
        ({"prompt": "x", "suffix": "y"}, "suffix"),
        ({"prompt": "x", "n": 0}, "n"),
        ({"prompt": ["x"] * 65, "n": 2}, "n"),
        ({"prompt": "x", "best_of": 2}, "best_of"),
        ({"prompt": "x", "stop": ["1", "2", "3", "4", "5"]}, "stop"),
        ({"prompt": "x", "stop": [3]}, "stop"),
        ({"prompt": "x", "logprobs": 6}, "logprobs"),
        ({"prompt": "x", "logprobs": True}, "logprobs"),
        ({"prompt": "x", "logit_bias": {"x": 1}}, "logit_bias"),
        ({"prompt": "x", "logit_bias": {"1": 101}}, "logit_bias"),
        ({"prompt": "x", "presence_penalty": "much"}, "presence_penalty"),
        ({"prompt": "x", "temperature": "warm"}, "temperature"),
        ({"prompt": "x", "top_k": 1.5}, "top_k"),
        ({"prompt": "x", "seed": 2**80}, "seed"),
        ({"prompt": "x", "max_tokens": -1}, "max_tokens"),
        ({"prompt": "x", "stream": 1}, "stream"),
        ({"prompt": "x", "stream_options": {}}, "stream_options"),
        ({"prompt": "x", "wat": 1}, "wat"),
    ],
)
def test_what_is_wrong_is_named(running, body, param):
    status, answer = running.ask("POST", "/v1/completions", {"model": "gpt", **body})
    assert (status, answer["error"]["param"]) == (400, param)
    assert answer["error"]["type"] == "invalid_request_error"


def test_what_the_model_refuses_is_a_request_that_is_wrong(running):
    for body in ({"prompt": "one two " * 400}, {"prompt": "x", "temperature": -1.0}):
        for stream in (False, True):
            status, answer = running.ask(
                "POST", "/v1/completions", {"model": "gpt", "stream": stream, **body}
            )
            assert status == 400
            assert answer["error"]["message"].startswith("The model cannot read this: ")
    assert running.complete(prompt="x", max_tokens=0)["choices"][0]["finish_reason"] == "length"


def test_requests_of_no_known_form_are_refused(running):
    ask = running.ask
    assert ask("POST", "/v1/completions", {"model": "other", "prompt": "x"})[0] == 404
    assert ask("POST", "/v1/completions", b"{")[0] == 400
    assert ask("POST", "/v1/completions", b"[]")[0] == 400
    assert ask("POST", "/v1/chat/completions", {"model": "gpt", "messages": []})[0] == 400
    assert ask("POST", "/v1/embeddings", {"model": "gpt", "input": "x"})[0] == 400
    assert ask("GET", "/v1/completions")[0] == 405
    assert ask("GET", "/other")[1]["error"]["type"] == "invalid_request_error"


def test_a_model_without_sessions_answers_in_one_piece(start_gateway, server):
    gateway = start_gateway((f"127.0.0.1:{server.port}", "plain"))
    answer = gateway.complete(model="plain", prompt="hi", max_tokens=3, n=2, seed=8)
    assert [choice["text"] for choice in answer["choices"]] == ["hi|3|8", "hi|3|9"]
    assert answer["usage"]["total_tokens"] == 2 + 2 * 3
    (message,) = gateway.stream(model="plain", prompt="hi", max_tokens=3, seed=8)
    assert message["choices"][0]["text"] == "hi|3|8"
    for body in ({"prompt": ""}, {"prompt": "x", "logprobs": 1}):
        assert gateway.ask("POST", "/v1/completions", {"model": "plain", **body})[0] == 400


def test_embeddings_come_as_numbers_or_as_base64(start_gateway, server):
    gateway = start_gateway((f"127.0.0.1:{server.port}", "plain"))

    def embed(**body):
        return gateway.ask("POST", "/v1/embeddings", {"model": "plain", **body})

    status, answer = embed(input=["abc", "x"])
    assert status == 200
    assert [one["embedding"] for one in answer["data"]] == [[3.0, -3.0], [1.0, -1.0]]
    assert answer["usage"] == {"prompt_tokens": 4, "total_tokens": 4}
    _, answer = embed(input="abc", encoding_format="base64")
    packed = base64.b64decode(answer["data"][0]["embedding"])
    assert struct.unpack("<2f", packed) == (3.0, -3.0)
    assert embed(input="")[1]["error"]["param"] == "input"
    assert embed(input="x", encoding_format="int8")[1]["error"]["param"] == "encoding_format"


def test_embeddings_that_would_wait_too_long_are_refused(start_gateway, server):
    gateway = start_gateway((f"127.0.0.1:{server.port}", "plain"), max_waiting=1)
    replicas = gateway.gateway._served.named("plain")
    (scheduler,) = replicas.schedulers
    for num_others, right in ((64, 200), (65, 429)):
        replicas._num_asking[scheduler] = num_others
        body = {"model": "plain", "input": "x"}
        connection, response = gateway.open("POST", "/v1/embeddings", body)
        with contextlib.closing(connection):
            assert response.status == right
            assert ("Retry-After" in response.headers) == (right == 429)


def test_models_say_whether_they_can_chat(start_gateway, server):
    address = f"127.0.0.1:{server.port}"
    gateway = start_gateway((address, "gpt"), (address, "plain"))
    told = gateway.ask("GET", "/v1/models")[1]["data"]
    assert {each["id"]: each["can_chat"] for each in told} == {"gpt": True, "plain": False}


def forget(running):
    """The gateway takes the export for one of an earlier version."""
    (scheduler,) = running.gateway._served.named("gpt").schedulers
    for signature in scheduler.backend.signatures.values():
        for name in contract.LATER_SAMPLING:
            signature.inputs.pop(name, None)


@pytest.mark.parametrize("model", ["gpt", "plain"])
def test_an_export_of_an_earlier_version_is_asked_for_no_penalties(start_gateway, server, model):
    running = start_gateway((f"127.0.0.1:{server.port}", model))
    if model == "gpt":
        forget(running)
    body = {"model": model, "prompt": "x", "max_tokens": 1}
    for stream in (False, True):
        asked = body | {"stream": stream, "frequency_penalty": 0.1}
        status, answer = running.ask("POST", "/v1/completions", asked)
        assert (status, answer["error"]["param"]) == (400, "frequency_penalty")
        assert "export it again, or leave frequency_penalty at 0." in answer["error"]["message"]
    running.complete(**body, frequency_penalty=0.0, presence_penalty=0)


def test_a_penalty_out_of_range_is_told_in_the_model_s_words(running):
    body = {"model": "gpt", "prompt": "x", "presence_penalty": 2.1}
    status, answer = running.ask("POST", "/v1/completions", body)
    assert status == 400
    assert "presence_penalty must be from -2 to 2, got 2.1" in answer["error"]["message"]


@pytest.fixture
def full(client):
    """A server whose slots are another's; gives what frees them."""
    leases = np.array([b"a", b"b", b"c"], object)
    told = client.predict({"prompt": ["x"] * 3, "lease": leases}, contract.PREFILL)
    assert (told["slot"] >= 0).all()
    release = {"slot": told["slot"], "lease": leases}
    yield lambda: client.predict(release, contract.RELEASE)
    client.predict(release, contract.RELEASE)


def test_more_texts_than_may_wait_are_refused(start_gateway, endpoint, full):
    gateway = start_gateway(endpoint, max_waiting=1)

    def ask():
        connection, response = gateway.open(
            "POST", "/v1/completions", {"model": "gpt", "prompt": "x", "max_tokens": 1}
        )
        response.read()
        connection.close()
        return response.status, response.headers["Retry-After"]

    with futures.ThreadPoolExecutor(5) as threads:  # the gateway takes three slots for free
        asking = {threads.submit(ask) for _ in range(5)}
        (refused, *_), waiting = futures.wait(asking, return_when=futures.FIRST_COMPLETED)
        status, retry_after_s = refused.result()
        assert (status, int(retry_after_s) >= 1) == (429, True)
        full()
        assert {one.result() for one in waiting} == {(200, None)}


def test_a_gateway_that_is_stopped_ends_its_texts_and_takes_no_others(
    start_gateway, endpoint, full
):
    gateway = start_gateway(endpoint)
    body = {"model": "gpt", "prompt": "x", "max_tokens": 30}
    with futures.ThreadPoolExecutor(2) as threads:
        waiting = threads.submit(gateway.ask, "POST", "/v1/completions", body)
        until(lambda: gateway.gateway.load)
        stopped = threads.submit(gateway.stop, 60)
        until(lambda: gateway.ask("GET", "/healthz")[1]["status"] == "draining")
        refused, answer = gateway.ask("POST", "/v1/completions", body)
        assert (refused, answer["error"]["type"]) == (503, "server_error")
        full()
        assert waiting.result()[0] == 200
        stopped.result()


def test_who_has_no_key_is_refused_and_keys_have_limits(start_gateway, endpoint, full):
    keys = Keys(["# ours", "sk-a concurrent=1 name=search", "", "sk-b per_minute=2"])
    gateway = start_gateway(endpoint, keys=keys)

    def ask(key, path="/v1/models"):
        return gateway.ask("GET", path, headers={"Authorization": f"Bearer {key}"})

    assert gateway.ask("GET", "/v1/models")[0] == 401
    assert ask("sk-c")[1]["error"]["code"] == "invalid_api_key"
    assert [ask("sk-b")[0] for _ in range(3)] == [200, 200, 429]
    body = {"model": "gpt", "prompt": "x", "max_tokens": 1}
    key = {"Authorization": "Bearer sk-a"}
    with futures.ThreadPoolExecutor(1) as threads:
        waiting = threads.submit(gateway.ask, "POST", "/v1/completions", body, key)
        until(lambda: gateway.gateway.load)
        assert ask("sk-a")[0] == 429
        full()
        assert waiting.result()[0] == 200
    assert ask("sk-a")[0] == 200


@pytest.mark.parametrize("line", ["sk-a fast", "sk-a concurrent=0", "sk-a per_minute=x"])
def test_a_line_that_is_no_key_is_named_without_it(line):
    with pytest.raises(UserError, match="Line 2 of the keys") as told:
        Keys(["sk-b", line])
    assert "sk-a" not in str(told.value)


def test_metrics_count_what_was_written(running):
    running.complete(prompt="one two", max_tokens=5)
    _, page = running.ask("GET", "/metrics")
    for name in (
        "time_to_first_token_count", "time_between_pieces_count", "queue_time_count",
        "decode_step_count", "batch_rows_count", "generated_tokens", "prompt_tokens",
    ):  # fmt: skip
        assert f':tfllm:gateway:{name}{{model_name="gpt"}}' in page
    assert ':tfllm:gateway:requests{path="/v1/completions",code="200"}' in page
    assert ":tfllm:gateway:slots{" in page


def test_alternatives_that_are_no_characters_are_told_apart(running):
    answer = running.complete(prompt="the cat", max_tokens=40, temperature=2, seed=5, logprobs=5)
    logprobs = answer["choices"][0]["logprobs"]
    assert any(name.startswith("bytes:\\x") for name in logprobs["tokens"])
    assert {len(best) for best in logprobs["top_logprobs"]} == {5}


def test_a_version_is_opened_once_however_often_it_is_looked_for(caplog, start_gateway, endpoint):
    running = start_gateway(endpoint, look_s=0.001)
    with caplog.at_level("INFO", "tfllm.gateway"):
        for _ in range(3):
            running.complete(prompt="the cat", max_tokens=2)
    assert not [record for record in caplog.records if "has version" in record.getMessage()]
