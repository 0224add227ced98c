"""A small GPT-2 of Hugging Face against the answers that `transformers` recorded for it."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf

import tfllm
from tfllm.errors import UserError
from tfllm.huggingface.checkpoint import Checkpoint
from tfllm.huggingface.generation_settings import written
from tfllm.models import GPTCausalLM

FIXTURE = Path(__file__).parent / "fixtures" / "gpt2"
EXPECTED = json.loads((FIXTURE / "expected.json").read_text())
PROMPTS = [row["prompt"] for row in EXPECTED]


@pytest.fixture(scope="module")
def imported():
    return tfllm.from_huggingface(FIXTURE)


def test_logits_are_those_of_transformers(imported):
    assert isinstance(imported, GPTCausalLM)
    end = imported.preprocessor.tokenizer.eos_id
    for row in EXPECTED:
        ids = tf.constant([row["token_ids"] or [end]], tf.int32)
        logits = imported.logits(imported.hidden_states(ids))[0, -1, :8].numpy()
        np.testing.assert_allclose(logits, row["logits"], atol=2e-4)


def test_greedy_texts_are_those_of_transformers(imported):
    found = imported.generate(PROMPTS, max_new_tokens=12)
    assert [answer.text for answer in found] == [row["text"] for row in EXPECTED]


def test_beams_and_their_scores_are_those_of_transformers(imported):
    found = imported.beam_search(PROMPTS, max_new_tokens=12)
    assert [beams.text for beams in found] == [row["beams"] for row in EXPECTED]
    scores = np.array([beams.score for beams in found])
    np.testing.assert_allclose(scores, [row["scores"] for row in EXPECTED], atol=1e-4)


def test_a_preset_of_it_answers_alike(imported, tmp_path):
    imported.save_to_preset(tmp_path / "preset")
    again = tfllm.CausalLM.from_preset(tmp_path / "preset")
    assert again.generate(PROMPTS[:8]) == imported.generate(PROMPTS[:8])
    assert again.generation == imported.generation


def test_the_way_back_gives_the_same_tensors_to_the_bit(imported, tmp_path):
    tfllm.to_huggingface(imported, tmp_path / "back")
    first, second = Checkpoint(FIXTURE), Checkpoint(tmp_path / "back")
    assert sorted(first.names()) == sorted(second.names())
    for name in first.names():
        shape = first.stored(name).shape
        assert first.take(name, shape).tobytes() == second.take(name, shape).tobytes()
    again = tfllm.from_huggingface(tmp_path / "back")
    assert again.generate(PROMPTS[:8]) == imported.generate(PROMPTS[:8])
    assert again.generation == imported.generation


def changed(tmp_path, **config):
    folder = tmp_path / "changed"
    shutil.copytree(FIXTURE, folder)
    path = folder / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | config))
    return folder


@pytest.mark.parametrize(
    ("config", "words"),
    [
        (
            {"architectures": ["XLNetLMHeadModel"]},
            "architecture XLNetLMHeadModel; known are GPT2LM",
        ),
        ({"architectures": None}, "names no architecture; known are GPT2LMHeadModel, BertModel"),
        ({"n_embd": 32}, r"wte.weight in .* has the shape \[\d+, 16\], expected \[\d+, 32\]"),
        ({"n_layer": 3}, r"has no tensor h.2.ln_1.weight \(it has h.1.ln_1.weight"),
        ({"n_layer": "2"}, "n_layer must be a whole number of at least 1, got '2'"),
        ({"resid_pdrop": 1.5}, "resid_pdrop must be from 0 to below 1, got 1.5"),
        ({"activation_function": "mish"}, "activation_function is 'mish'; known are relu, gelu"),
        ({"scale_attn_weights": False}, "scale_attn_weights is False, only True is supported"),
    ],
)
def test_what_does_not_fit_is_refused_by_name(tmp_path, config, words):
    with pytest.raises(UserError, match=words):
        tfllm.from_huggingface(changed(tmp_path, **config))


def test_what_is_left_over_is_told(tmp_path, caplog):
    tfllm.from_huggingface(changed(tmp_path, n_layer=1))
    assert "Not used from" in caplog.text
    assert "transformer.h.*.ln_1.weight" in caplog.text


def test_the_settings_of_generation_config_become_those_of_the_model(tmp_path, caplog):
    folder = changed(tmp_path)
    said = {
        "do_sample": True,
        "temperature": 0.7,
        "top_p": 0.9,
        "max_new_tokens": 5,
        "repetition_penalty": 1.2,
        "presence_penalty": 0.5,
        "frequency_penalty": 0.25,
        "bad_words_ids": [[7], [8, 9], [3]],
        "eos_token_id": [0, 3],
        "no_repeat_ngram_size": 3,
        "typical_p": 0.9,
    }
    (folder / "generation_config.json").write_text(json.dumps(said))
    model = tfllm.from_huggingface(folder)
    settings = model.generation
    assert (settings.temperature, settings.top_k, settings.top_p) == (0.7, 50, 0.9)
    assert settings.suppressed_token_ids == (7,)  # an end of a text is no bad word
    assert settings.end_token_ids == (0, 3)
    assert settings.no_repeat_ngram_size == 3
    assert "typical_p, bad_words_ids of several tokens (1)" in caplog.text
    plain = model.generate(PROMPTS[3])
    assert plain == model.generate(
        PROMPTS[3], temperature=0.7, top_k=50, top_p=0.9, max_new_tokens=5, repetition_penalty=1.2,
        presence_penalty=0.5, frequency_penalty=0.25,
    )  # fmt: skip
    again = written(settings, encoder_decoder=False)
    assert (again["presence_penalty"], again["frequency_penalty"]) == (0.5, 0.25)


def test_several_answers_to_a_prompt_are_those_of_the_following_seeds(imported):
    several = imported.generate(PROMPTS[3:5], temperature=1.0, seed=[4, 9], num_return_sequences=5)
    for prompt, seed, answers in zip(PROMPTS[3:5], (4, 9), several, strict=True):
        alone = [imported.generate(prompt, temperature=1.0, seed=seed + i) for i in range(5)]
        assert [answer.text for answer in answers] == [answer.text for answer in alone]
    one = imported.generate(PROMPTS[3], temperature=1.0, seed=4, num_return_sequences=2)
    assert [answer.text for answer in one] == [answer.text for answer in several[0][:2]]
    with pytest.raises(UserError, match="num_return_sequences must be at least 1, got 0"):
        imported.generate("a", num_return_sequences=0)


@pytest.mark.parametrize(
    ("config", "words"),
    [
        ({"n_head": 3}, "describes no model that can be made: num_heads must divide"),
        ({"layer_norm_epsilon": "small"}, "layer_norm_epsilon must be a number above 0, got 'sm"),
        ({"layer_norm_epsilon": 0}, "layer_norm_epsilon must be a number above 0, got 0"),
        ({"architectures": 5}, "names the architecture 5; known are GPT2LMHeadModel"),
    ],
)
def test_a_configuration_of_no_model_is_refused(tmp_path, config, words):
    with pytest.raises(UserError, match=words):
        tfllm.from_huggingface(changed(tmp_path, **config))
