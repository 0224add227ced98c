"""OpenAI's own client asks the gateway as it asks OpenAI."""

import pytest

from tfllm.chat import chatml

openai = pytest.importorskip("openai", reason="pip install openai")

TALK = [{"role": "user", "content": "one two"}]


@pytest.fixture
def asks(running):
    with openai.OpenAI(base_url=f"{running.url}/v1", api_key="none", max_retries=0) as asks:
        yield asks


def test_completions(asks, client):
    right = client.generate("one", max_new_tokens=8, temperature=1.0, seed=3)
    settings = {"model": "gpt", "prompt": "one", "max_tokens": 8, "temperature": 1.0, "seed": 3}
    whole = asks.completions.create(**settings, logprobs=1)
    assert whole.choices[0].text == right.text
    assert len(whole.choices[0].logprobs.tokens) == whole.usage.completion_tokens == 8
    parts = asks.completions.create(**settings, stream=True)
    assert "".join(part.choices[0].text for part in parts) == right.text


def test_chats(asks, client):
    right = client.generate(chatml().render(TALK), max_new_tokens=8, stop=list(chatml().stop))
    settings = {"model": "gpt", "messages": TALK, "max_completion_tokens": 8, "temperature": 0}
    whole = asks.chat.completions.create(**settings, logprobs=True, top_logprobs=2)
    assert whole.choices[0].message.content == right.text
    assert len(whole.choices[0].logprobs.content[0].top_logprobs) == 2
    parts = list(
        asks.chat.completions.create(
            **settings, stream=True, stream_options={"include_usage": True}
        )
    )
    deltas = [part.choices[0].delta.content or "" for part in parts[:-1]]
    assert "".join(deltas) == right.text
    assert parts[-1].usage.completion_tokens == 8


def test_penalties_of_presence_and_frequency(asks, client):
    penalties = {"presence_penalty": -2.0, "frequency_penalty": 0.6}
    right = client.generate("one", max_new_tokens=30, **penalties)
    for name, value in penalties.items():  # both count
        assert right.text != client.generate("one", max_new_tokens=30, **{name: value}).text
    settings = {"model": "gpt", "prompt": "one", "max_tokens": 30, "temperature": 0, **penalties}
    assert asks.completions.create(**settings).choices[0].text == right.text
    parts = asks.completions.create(**settings, stream=True)
    assert "".join(part.choices[0].text for part in parts) == right.text


def test_our_own_fields_go_as_extra_ones(asks, client):
    right = client.generate("one", max_new_tokens=8, temperature=1.0, seed=3, top_k=2)
    answer = asks.completions.create(
        model="gpt", prompt="one", max_tokens=8, temperature=1, seed=3, extra_body={"top_k": 2}
    )
    assert answer.choices[0].text == right.text


def test_models_and_embeddings(asks, start_gateway, server):
    assert [model.id for model in asks.models.list()] == ["gpt"]
    plain = start_gateway((f"127.0.0.1:{server.port}", "plain"))
    other = asks.with_options(base_url=f"{plain.url}/v1")
    answer = other.embeddings.create(model="plain", input=["abc"])  # asks for base64
    assert answer.data[0].embedding == [3.0, -3.0]


def test_errors_have_the_classes_of_openai(asks):
    with pytest.raises(openai.NotFoundError, match="There is no model 'other' here, but gpt"):
        asks.completions.create(model="other", prompt="x")
    with pytest.raises(openai.BadRequestError) as told:
        asks.completions.create(model="gpt", prompt="x", n=0)
    assert told.value.param == "n"
