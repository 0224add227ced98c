"""GPT-2 checkpoints made on the spot, against `transformers`."""

import json
from pathlib import Path

import pytest

pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")

import numpy as np  # noqa: E402
import tensorflow as tf  # noqa: E402
import torch  # noqa: E402
from make_gpt2 import expected, make  # noqa: E402
from prompts import prompts  # noqa: E402

import tfllm  # noqa: E402

FIXTURE = Path(__file__).parents[1] / "huggingface" / "fixtures" / "gpt2"

VARIANTS = {
    "plain": {},
    "wide": {"n_embd": 48, "n_head": 6, "n_layer": 3, "n_inner": 40},
    "exact gelu, untied": {"activation_function": "gelu", "tie_word_embeddings": False},
    "relu, other norm": {"activation_function": "relu", "layer_norm_epsilon": 1e-3},
}


@pytest.fixture(scope="module", params=VARIANTS)
def checkpoint(request, tmp_path_factory):
    """A folder, its model and its tokenizer in `transformers`."""
    folder = tmp_path_factory.mktemp("gpt2")
    seed = list(VARIANTS).index(request.param) + 1
    return folder, *make(folder, seed, tokenizer_json=True, **VARIANTS[request.param])


def test_logits_tokens_and_texts_are_the_same(checkpoint):
    folder, model, tokenizer = checkpoint
    ours = tfllm.from_huggingface(folder)
    rows = expected(model, tokenizer)
    assert ours.tokenize(prompts()) == [row["token_ids"] for row in rows]
    ids = np.random.default_rng(0).integers(0, model.config.vocab_size, (3, 60))
    with torch.no_grad():
        theirs = model(torch.tensor(ids)).logits.numpy()
    logits = ours.logits(ours.hidden_states(tf.constant(ids, tf.int32))).numpy()
    np.testing.assert_allclose(logits, theirs, atol=2e-4)
    found = ours.generate(prompts(), max_new_tokens=12)
    assert [answer.text for answer in found] == [row["text"] for row in rows]
    beams = ours.beam_search(prompts(), max_new_tokens=12)
    assert [each.text for each in beams] == [row["beams"] for row in rows]
    scores = [row["scores"] for row in rows]
    np.testing.assert_allclose([each.score for each in beams], scores, atol=1e-4)


def test_what_we_write_is_read_by_transformers_with_the_same_tensors_and_texts(
    checkpoint, tmp_path
):
    folder, model, tokenizer = checkpoint
    tfllm.to_huggingface(tfllm.from_huggingface(folder), tmp_path / "back")
    back = transformers.AutoModelForCausalLM.from_pretrained(tmp_path / "back")
    assert type(back) is type(model)
    theirs = model.state_dict()
    assert back.state_dict().keys() == theirs.keys()
    for name, tensor in back.state_dict().items():
        assert torch.equal(tensor, theirs[name]), name
    words = transformers.AutoTokenizer.from_pretrained(tmp_path / "back")
    for prompt in prompts():
        ids = tokenizer(prompt).input_ids
        assert words(prompt).input_ids == ids
        assert words.decode(ids) == tokenizer.decode(ids)


def test_the_recorded_answers_are_those_of_this_transformers():
    model = transformers.GPT2LMHeadModel.from_pretrained(FIXTURE).eval()
    tokenizer = transformers.GPT2Tokenizer(
        vocab=str(FIXTURE / "vocab.json"), merges=str(FIXTURE / "merges.txt")
    )
    recorded = json.loads((FIXTURE / "expected.json").read_text())
    for row, again in zip(recorded, expected(model, tokenizer), strict=True):
        assert row["token_ids"] == again["token_ids"]
        assert (row["text"], row["beams"]) == (again["text"], again["beams"])
        np.testing.assert_allclose(row["scores"], again["scores"], atol=2e-5)
