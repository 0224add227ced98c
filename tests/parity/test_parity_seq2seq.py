"""T5 and Marian checkpoints made on the spot, against `transformers`."""

import json
from pathlib import Path

import pytest

pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")

import numpy as np  # noqa: E402
import torch  # noqa: E402
from make_seq2seq import CHECKPOINTS, NEW_TOKENS, expected, load, make_marian, make_t5  # noqa: E402
from prompts import prompts  # noqa: E402

import tfllm  # noqa: E402
from tfllm.export import for_serving  # noqa: E402
from tfllm.serving import Client, Server  # noqa: E402

FIXTURES = Path(__file__).parents[1] / "huggingface" / "fixtures"

VARIANTS = {
    "t5, relu": (make_t5, {"num_layers": 3, "num_decoder_layers": 2, "num_heads": 3}),
    "t5, gated, few buckets": (
        make_t5,
        {
            "feed_forward_proj": "gated-gelu",
            "relative_attention_num_buckets": 8,
            "relative_attention_max_distance": 20,
        },
    ),
    "t5, gated, untied": (
        make_t5,
        {"feed_forward_proj": "gated-gelu", "tie_word_embeddings": False, "untied": True},
    ),
    "t5, gated silu, tied, not scaled": (
        make_t5,
        {"feed_forward_proj": "gated-silu", "tie_word_embeddings": False},
    ),
    "marian, swish, shared": (make_marian, {"activation_function": "swish"}),
    "marian, gelu, shared, not scaled": (
        make_marian,
        {"activation_function": "gelu", "decoder_layers": 1},
    ),
    "marian, relu, shared, untied": (
        make_marian,
        {"activation_function": "relu", "tie_word_embeddings": False},
    ),
    "marian, swish, separate, untied": (
        make_marian,
        {"activation_function": "swish", "separate": True, "tie_word_embeddings": False},
    ),
    "marian, relu, separate, tied": (
        make_marian,
        {"activation_function": "relu", "separate": True, "encoder_layers": 3},
    ),
}


@pytest.fixture(scope="module", params=VARIANTS)
def checkpoint(request, tmp_path_factory):
    """A folder; its model, its tokenizer and what gives token ids in `transformers`."""
    torch.set_num_threads(1)
    make, config = VARIANTS[request.param]
    folder = tmp_path_factory.mktemp("seq2seq") / "checkpoint"
    return folder, *make(folder, list(VARIANTS).index(request.param) + 1, **config)


@pytest.fixture(scope="module")
def ours(checkpoint):
    return tfllm.from_huggingface(checkpoint[0])


def random_ids(config):
    random = np.random.default_rng(0)
    source = random.integers(0, config.vocab_size, (3, 200))
    present = (np.arange(200) < np.array([[200], [90], [1]])).astype("int32")
    target_size = getattr(config, "decoder_vocab_size", None) or config.vocab_size
    return source, present, random.integers(0, target_size, (3, 60))


def logits_of(model, source, present, target):
    with torch.no_grad():
        return model(
            input_ids=torch.tensor(source),
            attention_mask=torch.tensor(present),
            decoder_input_ids=torch.tensor(target),
        ).logits.numpy()


def test_logits_are_the_same(checkpoint, ours):
    _, model, _, _ = checkpoint
    source, present, target = random_ids(model.config)
    found = ours(
        {
            "encoder_token_ids": source,
            "encoder_padding_mask": present,
            "decoder_token_ids": target,
            "decoder_padding_mask": np.ones_like(target),
        }
    )
    np.testing.assert_allclose(found, logits_of(model, source, present, target), atol=2e-4)


def test_tokens_texts_and_scores_are_the_same(checkpoint, ours):
    _, model, tokenizer, token_ids = checkpoint
    rows = expected(model, tokenizer, token_ids, prompts())
    ids = ours.preprocessor.source_ids(prompts()).to_list()
    assert ids == [row["token_ids"] for row in rows]
    found = ours.generate(prompts(), max_new_tokens=NEW_TOKENS)
    assert [answer.text for answer in found] == [row["text"] for row in rows]
    assert [answer.num_tokens for answer in found] == [row["num_tokens"] for row in rows]
    beams = ours.beam_search(prompts(), max_new_tokens=NEW_TOKENS)
    assert [each.text for each in beams] == [row["beams"] for row in rows]
    scores = [row["scores"] for row in rows]
    np.testing.assert_allclose([each.score for each in beams], scores, atol=1e-4)


def test_what_we_write_is_read_by_transformers_with_the_same_tensors_and_texts(
    checkpoint, ours, tmp_path
):
    _, model, tokenizer, _ = checkpoint
    tfllm.to_huggingface(ours, tmp_path / "back")
    back, told = transformers.AutoModelForSeq2SeqLM.from_pretrained(
        tmp_path / "back", output_loading_info=True
    )
    assert type(back) is type(model)
    assert not any(told.values())
    theirs = model.state_dict()
    for name, tensor in back.state_dict().items():
        assert torch.equal(tensor, theirs[name]), name
    some = random_ids(model.config)
    np.testing.assert_array_equal(logits_of(back.eval(), *some), logits_of(model, *some))
    words = transformers.AutoTokenizer.from_pretrained(tmp_path / "back")
    for prompt in prompts():
        ids = tokenizer(prompt).input_ids
        assert words(prompt).input_ids == ids
        assert words.decode(ids) == tokenizer.decode(ids)
    settings = back.generation_config
    assert (settings.num_beams or 1) == (model.generation_config.num_beams or 1)
    assert settings.bad_words_ids == model.generation_config.bad_words_ids
    assert settings.forced_eos_token_id == model.generation_config.forced_eos_token_id


def test_a_file_of_torch_with_all_names_of_tied_tensors_is_read_alike(checkpoint, ours, tmp_path):
    folder, model, _, _ = checkpoint
    for path in folder.iterdir():
        if path.suffix != ".safetensors":
            (tmp_path / path.name).write_bytes(path.read_bytes())
    torch.save(model.state_dict(), tmp_path / "pytorch_model.bin")
    again = tfllm.from_huggingface(tmp_path)
    for one, other in zip(again.weights, ours.weights, strict=True):
        np.testing.assert_array_equal(one, other)


def test_an_mt5_is_read_alike(tmp_path):
    folder = tmp_path / "mt5"
    make_t5(folder, untied=True, feed_forward_proj="gated-gelu")
    config = json.loads((folder / "config.json").read_text())
    config |= {"architectures": ["MT5ForConditionalGeneration"], "model_type": "mt5"}
    del config["scale_decoder_outputs"]
    (folder / "config.json").write_text(json.dumps(config))
    model = transformers.MT5ForConditionalGeneration.from_pretrained(folder, dtype=torch.float32)
    source, present, target = random_ids(model.config)
    found = tfllm.from_huggingface(folder)(
        {
            "encoder_token_ids": source,
            "encoder_padding_mask": present,
            "decoder_token_ids": target,
            "decoder_padding_mask": np.ones_like(target),
        }
    )
    expected_logits = logits_of(model.eval(), source, present, target)
    np.testing.assert_allclose(found, expected_logits, atol=2e-4)


@pytest.mark.parametrize("name", CHECKPOINTS)
def test_the_recorded_answers_are_those_of_this_transformers(name):
    recorded = json.loads((FIXTURES / name / "expected.json").read_text())
    found = expected(*load(FIXTURES / name), prompts())
    for row, again in zip(recorded, found, strict=True):
        assert row["token_ids"] == again["token_ids"]
        assert (row["text"], row["beams"]) == (again["text"], again["beams"])
        np.testing.assert_allclose(row["scores"], again["scores"], atol=2e-5)


def test_a_served_t5_answers_alike(tmp_path):
    folder = FIXTURES / "t5-gated"
    recorded = json.loads((folder / "expected.json").read_text())
    for_serving(tfllm.from_huggingface(folder), tmp_path / "t5")
    with Server([str(tmp_path / "t5")], port=0) as server:
        server.wait_until_available()
        with Client(f"127.0.0.1:{server.port}", "t5") as client:
            found = client.generate([row["prompt"] for row in recorded])
            beams = client.beam_search([row["prompt"] for row in recorded])
    assert [answer.text for answer in found] == [row["text"] for row in recorded]
    assert [each.text for each in beams] == [row["beams"] for row in recorded]
