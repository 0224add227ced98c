"""Small Marians of Hugging Face against the answers that `transformers` recorded for them."""

import json
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf

import tfllm
from tfllm.errors import UserError
from tfllm.models import MarianSeq2SeqLM

FIXTURES = Path(__file__).parent / "fixtures"
SHARED, SOURCE = "model.shared.weight", "model.encoder.embed_tokens.weight"
TARGET, HEAD = "model.decoder.embed_tokens.weight", "lm_head.weight"


@pytest.fixture(scope="module", params=["marian-shared", "marian-separate"])
def folder(request):
    return FIXTURES / request.param


@pytest.fixture(scope="module")
def expected(folder):
    return json.loads((folder / "expected.json").read_text())


@pytest.fixture(scope="module")
def prompts(expected):
    return [row["prompt"] for row in expected]


@pytest.fixture(scope="module")
def imported(folder):
    return tfllm.from_huggingface(folder)


def test_token_ids_and_logits_are_those_of_transformers(imported, expected, prompts):
    assert isinstance(imported, MarianSeq2SeqLM)
    ids = imported.preprocessor.source_ids(prompts)
    assert ids.to_list() == [row["token_ids"] for row in expected]
    reading = imported.reading(ids.to_tensor(), tf.cast(ids.row_lengths(), tf.int32))
    start = tf.fill([len(prompts), 1], imported.preprocessor.start_id)
    logits = reading.logits(reading.hidden_states(start))[:, 0, :4].numpy()
    np.testing.assert_allclose(logits, [row["logits"][:4] for row in expected], atol=2e-4)


def test_greedy_texts_are_those_of_transformers(imported, expected, prompts):
    found = imported.generate(prompts)
    assert [answer.text for answer in found] == [row["text"] for row in expected]
    assert [answer.num_tokens for answer in found] == [row["num_tokens"] for row in expected]


def test_beams_and_their_scores_are_those_of_transformers(imported, expected, prompts):
    found = imported.beam_search(prompts)
    assert [beams.text for beams in found] == [row["beams"] for row in expected]
    scores = np.array([beams.score for beams in found])
    np.testing.assert_allclose(scores, [row["scores"] for row in expected], atol=1e-4)


def test_the_settings_of_the_checkpoint_are_those_of_the_model(imported):
    settings, tokenizer = imported.generation, imported.preprocessor.tokenizer
    assert (settings.max_new_tokens, settings.num_beams) == (12, 4)  # max_length counts the start
    assert settings.suppressed_token_ids == (tokenizer.pad_id,)
    assert settings.forced_eos_token_id == tokenizer.eos_id == 0
    assert imported.preprocessor.start_id == tokenizer.pad_id


def test_targets_have_the_token_ids_of_their_own_language(imported, prompts):
    targets = imported.preprocessor.target_ids(prompts).to_list()
    tokenizer = imported.preprocessor.tokenizer
    assert targets == [[*ids, 0] for ids in tokenizer.encode_target(prompts)]
    assert targets != imported.preprocessor.source_ids(prompts).to_list()


def test_the_way_back_gives_the_same_tensors_to_the_bit(imported, folder, tmp_path, arrays):
    tfllm.to_huggingface(imported, tmp_path / "back")
    written = arrays(tmp_path / "back")
    assert {n: a.tobytes() for n, a in written.items()} == {
        n: a.tobytes() for n, a in arrays(folder).items()
    }
    again = tfllm.from_huggingface(tmp_path / "back")
    config = again.backbone.get_config()
    assert config == {**imported.backbone.get_config(), "name": config["name"]}
    assert again.generation == imported.generation
    assert again.tokenize(">>fra<< a b") == imported.tokenize(">>fra<< a b")


@pytest.fixture
def shared(arrays):
    return arrays(FIXTURES / "marian-shared")[SHARED]


def test_an_old_file_holds_the_same_table_under_every_name_and_the_positions(
    altered, shared, caplog
):
    more = dict.fromkeys((SOURCE, TARGET, HEAD), shared)
    for stack in ("encoder", "decoder"):
        more[f"model.{stack}.embed_positions.weight"] = np.ones((512, 16), np.float32)
    backbone = tfllm.from_huggingface(altered("marian-shared", more)).backbone
    assert backbone.shares_vocabulary
    assert backbone.tie_embeddings
    assert caplog.text == ""


def test_one_vocabulary_may_have_two_tables_and_an_output_of_its_own(altered, shared):
    more = {SOURCE: shared, TARGET: shared + 1, HEAD: shared + 2}
    folder = altered("marian-shared", more, tie_word_embeddings=False)
    backbone = tfllm.from_huggingface(folder).backbone
    assert not backbone.shares_vocabulary
    np.testing.assert_array_equal(backbone.source_embedding.embeddings, shared)
    np.testing.assert_array_equal(backbone.token_embedding.embeddings, shared + 1)
    np.testing.assert_array_equal(backbone.token_embedding.output_embeddings, shared + 2)


def test_a_shared_table_with_another_output_is_written_under_every_name(
    altered, shared, arrays, tmp_path
):
    folder = altered("marian-shared", {HEAD: shared + 2}, tie_word_embeddings=False)
    model = tfllm.from_huggingface(folder)
    assert model.backbone.shares_vocabulary
    tfllm.to_huggingface(model, tmp_path / "back")
    back = arrays(tmp_path / "back")
    for name in (SHARED, SOURCE, TARGET):
        np.testing.assert_array_equal(back[name], shared)
    np.testing.assert_array_equal(back[HEAD], shared + 2)


def test_the_bias_of_the_logits_may_be_missing(altered):
    folder = altered("marian-shared", {"final_logits_bias": None})
    assert not tfllm.from_huggingface(folder).backbone.logits_bias.bias.numpy().any()


def test_an_old_folder_has_its_settings_in_config_json(altered):
    folder = altered(
        "marian-shared",
        num_beams=6, max_length=512, bad_words_ids=[[144]], length_penalty=0.6,
        forced_eos_token_id=0,
    )  # fmt: skip
    (folder / "generation_config.json").unlink()
    settings = tfllm.from_huggingface(folder).generation
    assert (settings.num_beams, settings.max_new_tokens) == (6, 511)
    assert (settings.suppressed_token_ids, settings.length_penalty) == ((144,), 0.6)
    assert settings.forced_eos_token_id == 0


@pytest.mark.parametrize(
    ("config", "words"),
    [
        ({"activation_function": "mish"}, "activation_function is 'mish'; known are"),
        ({"decoder_ffn_dim": 24}, r"fc1\.weight .* has the shape \[20, 16\], expected \[24, 16\]"),
        ({"encoder_layers": 3}, r"has no tensor model\.encoder\.layers\.2\.self_attn\.q_proj"),
        ({"vocab_size": 9}, r"shape \[\d+, 16\], expected \[9, 16\]"),
    ],
)
def test_what_does_not_fit_is_refused_by_name(altered, config, words):
    with pytest.raises(UserError, match=words):
        tfllm.from_huggingface(altered("marian-shared", **config))
