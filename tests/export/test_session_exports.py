"""An export with sessions, loaded as servers load it, asked by several threads at once."""

import json
import threading

import numpy as np
import pytest

from tfllm import contract
from tfllm.errors import UserError
from tfllm.export import for_serving
from tfllm.rows import plain
from tfllm.serving.servables import Servable
from tfllm.serving.warmup import replay_warmup

NUM_SLOTS = 3


@pytest.fixture(scope="module")
def exported(gpt, tmp_path_factory):
    base = tmp_path_factory.mktemp("sessions") / "gpt"
    return for_serving(gpt, base, sessions=NUM_SLOTS, warm_up=[*contract.SESSION_SIGNATURES])


@pytest.fixture
def ask(exported):
    servable = Servable(exported)
    replay_warmup(servable, exported, 1)

    def ask(name, **columns):
        signature = servable.signatures[name]
        num_rows = len(next(iter(columns.values())))
        feeds = [
            (
                signature.inputs[field.name].name,
                np.array(
                    columns.get(field.name, [field.default] * num_rows),
                    object if field.dtype == "string" else field.dtype,
                ),
            )
            for field in contract.SIGNATURES[name].inputs
        ]
        values = servable.run(feeds, [info.name for info in signature.outputs.values()])
        return {
            output: plain(value.tolist())
            for output, value in zip(signature.outputs, values, strict=True)
        }

    yield ask
    servable.close()


def written(ask, prompt, lease):
    """A text, begun again while there is no slot; and the slot that it had."""
    while (begun := ask("prefill", prompt=[prompt], lease=[lease]))["error"][0]:
        assert begun["error"] == ["no slot is free"]
    (slot,) = begun["slot"]
    text, position, reason = "", 0, ""
    while not reason:
        some = ask("decode", slot=[slot], lease=[lease], position=[position], max_tokens=[3])
        text += some["text"][0]
        (position,), (reason,) = some["position"], some["finish_reason"]
    assert ask("release", slot=[slot], lease=[lease])["error"] == [""]
    return text


def test_texts_of_several_threads_do_not_meet(ask, gpt, texts):
    prompts = [text[:6] for text in texts] * 2
    found = [""] * len(prompts)

    def write(numbers):
        for i in numbers:
            found[i] = written(ask, prompts[i], f"text {i}")

    threads = [threading.Thread(target=write, args=(range(n, len(prompts), 4),)) for n in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == [answer.text for answer in gpt.generate(prompts)]


def test_warming_up_leaves_every_slot_free(ask):
    told = ask("slots", slot=[*range(NUM_SLOTS)])
    assert told["is_free"] == [True] * NUM_SLOTS
    assert told["num_slots"] == [NUM_SLOTS] * NUM_SLOTS


def test_no_rows_are_no_texts(ask):
    for name in contract.SESSION_SIGNATURES:
        empty = {
            field.name: np.zeros(
                [0, *(size or 1 for size in field.shape)],
                object if field.dtype == "string" else field.dtype,
            )
            for field in contract.SIGNATURES[name].inputs
        }
        answer = ask(name, **empty)
        assert set(answer) == {field.name for field in contract.SIGNATURES[name].outputs}
        assert all(value == [] for value in answer.values())


def test_an_export_says_what_its_sessions_take(exported):
    known = json.loads((exported / contract.METADATA_FILE).read_text())
    assert (known["sessions"], known["session_timeout_s"]) == (NUM_SLOTS, 60.0)
    # Keys and values of two layers, 64 positions and 32 numbers each, in float32; a slot to spare.
    assert known["session_bytes"] == (NUM_SLOTS + 1) * 2 * 2 * 64 * 32 * 4


def test_what_cannot_be_is_refused_before_anything_is_written(gpt, tmp_path):
    with pytest.raises(UserError, match="sessions must be at least 1"):
        for_serving(gpt, tmp_path / "gpt", sessions=-1)
    assert not (tmp_path / "gpt").exists()
