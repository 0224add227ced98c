"""Chat, live and served: what is rendered is what the model reads, trains on and is told to end."""

import dataclasses
import json

import keras
import numpy as np
import pytest
import tensorflow as tf

from tfllm import cli, contract
from tfllm.chat import ChatTemplate, chatml
from tfllm.data.conversations import weighted_documents
from tfllm.errors import UserError
from tfllm.models import GPTBackbone, GPTCausalLM, GPTCausalLMPreprocessor, build
from tfllm.serving import Client, Server

TALK = [
    {"role": "user", "content": "one two"},
    {"role": "assistant", "content": "three"},
    {"role": "user", "content": "four"},
]
OTHER = [{"role": "user", "content": "a cat"}]


def new_chat_model(tokenizer, **generation):
    keras.utils.set_random_seed(1)
    backbone = GPTBackbone(
        vocabulary_size=tokenizer.vocabulary_size(),
        num_layers=1,
        num_heads=2,
        hidden_dim=16,
        max_sequence_length=160,
    )
    reads = GPTCausalLMPreprocessor(tokenizer, sequence_length=160)
    return GPTCausalLM(backbone, reads, generation={"max_new_tokens": 6} | generation)


@pytest.fixture(scope="module")
def with_turns(tokenizer):
    made = tokenizer.with_added_tokens(chatml().special_tokens)
    made.chat_template = chatml()
    return made


@pytest.fixture(scope="module")
def chat_model(with_turns):
    """An untrained one; tests share it and do not change it."""
    return new_chat_model(with_turns)


@pytest.fixture(scope="module")
def client(chat_model, tmp_path_factory):
    """Of a server that has the two signatures that a conversation takes."""
    base = tmp_path_factory.mktemp("exports") / "chat"
    functions = build(chat_model.text())
    module = tf.Module()
    module.weights = [variable.value for variable in chat_model.variables]
    asked = {name: functions[name] for name in (contract.GENERATE, contract.DESCRIBE)}
    tf.saved_model.save(module, str(base / "1"), signatures=asked)
    with Server({"chat": str(base)}, port=0) as server:
        server.wait_until_available(60)
        with Client(f"127.0.0.1:{server.port}", "chat") as client:
            yield client


def test_a_conversation_is_answered_as_its_rendered_text_is_continued(chat_model):
    one = chat_model.chat(TALK, temperature=1.0, seed=3)
    rendered = chatml().render(TALK)
    assert one == chat_model.generate(rendered, temperature=1.0, seed=3)
    assert chat_model.chat(tuple(TALK), temperature=1.0, seed=3) == one
    both = chat_model.chat([TALK, OTHER], temperature=1.0, seed=[3, 4])
    other = chat_model.generate(chatml().render(OTHER), temperature=1.0, seed=4)
    for found, alone in zip(both, (one, other), strict=True):
        # Two rows are multiplied in another order than one.
        assert found.logprob == pytest.approx(alone.logprob, abs=1e-3)
        assert found._replace(logprob=alone.logprob) == alone
    assert len(chat_model.chat([TALK], num_return_sequences=2)[0]) == 2


def test_what_is_no_conversation_is_refused(chat_model):
    for wrong in ([], "Hi", [[]]):
        with pytest.raises(UserError, match="A conversation is a list of messages"):
            chat_model.chat(wrong)
    with pytest.raises(UserError, match="The content of message 1"):
        chat_model.chat([TALK, [{"role": "user"}]])


def test_where_it_is_text_the_text_that_ends_a_turn_ends_the_answer(tokenizer):
    """A model that always writes one letter, which is what ends a turn."""
    (letter,) = tokenizer.encode("z")
    others = [i for i in range(tokenizer.vocabulary_size()) if i != letter]
    tokenizer = tokenizer.with_added_tokens(())
    model = new_chat_model(tokenizer, suppressed_token_ids=others)
    tokenizer.chat_template = dataclasses.replace(chatml(), stop=("zzz",))
    assert model.chat(OTHER)[:3] == ("", contract.STOP, 3)
    assert model.chat(OTHER, stop="zz")[:3] == ("", contract.STOP, 2)
    assert model.chat(OTHER, stop=["x", "zz"])[:3] == ("", contract.STOP, 2)
    assert model.generate("x").text == "zzzzzz"
    with pytest.raises(UserError, match="At most 4 stop strings, got 5"):
        model.chat(OTHER, stop=list("abcd"))


def test_the_token_that_ends_a_turn_ends_the_answer_from_when_there_is_a_template(tokenizer):
    tokenizer = tokenizer.with_added_tokens(["<end>"])
    (end,) = (token.id for token in tokenizer.added_tokens)
    others = [i for i in range(tokenizer.vocabulary_size()) if i != end]
    model = new_chat_model(tokenizer, suppressed_token_ids=others)
    assert model.generate("x").num_tokens == 6
    with pytest.raises(UserError, match=r"has no chat template.*tokenizer.chat_template = Chat"):
        model.chat(OTHER)
    tokenizer.chat_template = ChatTemplate("{{ messages[0].content }}", stop=("<end>",))
    assert model.chat(OTHER)[:3] == ("", contract.STOP, 1)


def test_the_loss_of_a_conversation_is_the_score_of_its_answers(chat_model, with_turns):
    talk = [*TALK[:1], {"role": "assistant", "content": "three four"}]
    (found,) = weighted_documents([{"messages": talk}], with_turns)
    score = chat_model.score(chatml().render(talk[:1]), "three four<|im_end|>")
    assert score.num_tokens == sum(found.is_target) == len(with_turns.encode("three four")) + 1
    ids = np.array([found.token_ids], "int32")
    x = {
        "token_ids": ids[:, :-1],
        "segment_ids": np.ones_like(ids[:, :-1]),
        "positions": np.arange(ids.shape[1] - 1, dtype="int32")[None],
    }
    weight = np.array([found.is_target[1:]], "float32")
    model = new_chat_model(with_turns)
    model.compile(keras.optimizers.SGD(0.0))
    data = tf.data.Dataset.from_tensors((x, ids[:, 1:], weight))
    loss = model.evaluate(data, verbose=0)
    np.testing.assert_allclose(loss, -score.logprob / score.num_tokens, rtol=1e-5)


def test_a_served_model_answers_a_conversation_as_the_live_one_does(chat_model, client):
    assert client.chat_template() == chat_model.chat_template()
    (row,) = client.chat([TALK], temperature=0.7, seed=5)
    (live,) = chat_model.chat([TALK], temperature=0.7, seed=5)
    assert row[:3] == live[:3]
    assert client.chat(TALK).text == chat_model.chat(TALK).text


def test_nobody_can_write_a_special_token_that_only_the_tokenizer_has(tokenizer):
    tokenizer = tokenizer.with_added_tokens(["<end>"])
    tokenizer.chat_template = chatml()
    rendered = tokenizer.chat_template.render([{"role": "user", "content": "a<en<end>d>b"}])
    assert rendered == chatml().render([{"role": "user", "content": "ab"}])
    again = type(tokenizer).from_config(tokenizer.get_config())
    assert again.chat_template == tokenizer.chat_template


def test_stop_strings_of_a_conversation_are_texts(chat_model):
    assert chat_model.chat(TALK, stop=None) == chat_model.chat(TALK)
    with pytest.raises(UserError, match="stop must hold str: number 0 is list"):
        chat_model.chat(TALK, stop=[["x"]])


def test_a_served_model_says_what_it_is_and_nothing_of_what_it_is_not(client, chat_model):
    metadata = chat_model.text().metadata()
    assert ChatTemplate.of(metadata["chat_template"]) == client.chat_template()
    assert client.describe("context_length") == metadata["context_length"] == 160
    assert client.describe("task") == "causal_lm"
    assert client.describe("") is client.describe("chat") is None
    out = client.predict({"key": ["task", "nothing", "beams"]}, contract.DESCRIBE)
    assert out["value"].tolist() == [b'"causal_lm"', b"", b"4"]


def test_only_a_model_with_a_template_describes_itself(chat_model, tokenizer):
    plain = new_chat_model(tokenizer).text()
    assert plain.signatures.keys() == contract.GENERATOR_SIGNATURES.keys()
    assert contract.DESCRIBE not in dict(plain.requests())
    assert chat_model.text().signatures.keys() == contract.CHAT_SIGNATURES.keys()
    assert contract.DESCRIBE in dict(chat_model.text().requests())


def test_a_served_model_without_a_template_says_so(client):
    class Untold(Client):
        async def _describe(self, key, timeout_s=None):
            return await super()._describe(f"no {key}", timeout_s)

    with Untold(client.address, "chat") as untold, pytest.raises(UserError, match="chat has no ch"):
        untold.chat(TALK)


@pytest.mark.parametrize("several", [False, True])
def test_the_command_line_answers_a_file_of_messages(several, client, chat_model, tmp_path, capsys):
    path = tmp_path / "talk.json"
    path.write_text(json.dumps([TALK, OTHER] if several else {"messages": TALK}))
    assert cli.main(["call", f"{client.address}/chat", "--messages", str(path)]) == 0
    found = json.loads(capsys.readouterr().out)["generations"]
    live = chat_model.chat([TALK, OTHER] if several else [TALK])
    assert [row["text"] for row in found] == [row.text for row in live]
    assert [row["num_tokens"] for row in found] == [row.num_tokens for row in live]


def test_a_preset_keeps_the_template_and_answers_on_the_command_line(chat_model, tmp_path, capsys):
    chat_model.save_to_preset(tmp_path / "preset")
    path = tmp_path / "talk.json"
    path.write_text(json.dumps(TALK))
    assert cli.main(["generate", str(tmp_path / "preset"), "--messages", str(path)]) == 0
    (row,) = json.loads(capsys.readouterr().out)["generations"]
    assert row["text"] == chat_model.chat(TALK).text


def test_a_preset_is_not_asked_for_nothing(chat_model, tmp_path, capsys):
    chat_model.save_to_preset(tmp_path / "preset")
    assert cli.main(["generate", str(tmp_path / "preset")]) == 2
    assert "Give --prompt TEXT or --messages FILE." in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--messages", "none.json"], "Cannot read none.json: No such file"),
        (["--messages", "broken.json"], "broken.json is no JSON"),
        (["--messages", "other.json"], "A conversation is a list of messages"),
        (["--messages", "other.json", "--prompt", "x"], "--prompt or --messages, not both"),
        (["/score", "--messages", "other.json"], "score takes no --messages, generate does"),
        ([], "Give --prompt TEXT or --messages FILE, or --inputs"),
    ],
)
def test_a_wrong_call_is_told_in_one_line(arguments, words, client, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "broken.json").write_text("{")
    (tmp_path / "other.json").write_text('{"prompt": "x"}')
    signature = arguments.pop(0) if arguments and arguments[0].startswith("/") else ""
    assert cli.main(["call", f"{client.address}/chat{signature}", *arguments]) == 2
    assert words in capsys.readouterr().err
