"""Small T5s of Hugging Face against the answers that `transformers` recorded for them."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf

import tfllm
from tfllm.errors import UserError
from tfllm.huggingface.checkpoint import Checkpoint
from tfllm.models import T5Seq2SeqLM

FIXTURES = Path(__file__).parent / "fixtures"
SHARED = "shared.weight"


@pytest.fixture(scope="module", params=["t5-relu", "t5-gated"])
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
    assert isinstance(imported, T5Seq2SeqLM)
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
    assert again.preprocessor.start_id == imported.preprocessor.start_id
    assert again.tokenize("a <extra_id_0>") == imported.tokenize("a <extra_id_0>")


@pytest.fixture
def shared(arrays):
    return arrays(FIXTURES / "t5-relu")[SHARED]


def test_an_old_file_holds_the_same_table_under_every_name(altered, shared, caplog):
    names = ("encoder.embed_tokens.weight", "decoder.embed_tokens.weight", "lm_head.weight")
    useless = "decoder.block.0.layer.1.EncDecAttention.relative_attention_bias.weight"
    more = dict.fromkeys(names, shared) | {useless: np.zeros((32, 2), np.float32)}
    found = tfllm.from_huggingface(altered("t5-relu", more))
    assert found.backbone.tie_embeddings
    assert caplog.text == ""


def test_the_table_may_have_one_of_its_other_names_alone(altered, shared):
    folder = altered("t5-relu", {SHARED: None, "decoder.embed_tokens.weight": shared})
    found = tfllm.from_huggingface(folder)
    np.testing.assert_array_equal(found.backbone.token_embedding.embeddings, shared)


def test_two_tables_of_one_model_are_refused(altered, shared):
    other = {"decoder.embed_tokens.weight": shared + 1}
    with pytest.raises(UserError, match=r"shared\.weight and decoder\.embed_tokens\.weight: only"):
        tfllm.from_huggingface(altered("t5-relu", other))


@pytest.mark.parametrize(
    ("config", "words"),
    [
        ({"feed_forward_proj": "gated-mish"}, "is 'gated-mish'; known are relu, .*gated-gelu"),
        ({"d_kv": 7}, r"q\.weight .* has the shape \[12, 16\], expected \[14, 16\]"),
        ({"num_decoder_layers": 2}, r"has no tensor decoder\.block\.1\.layer\.0\.SelfAttention"),
        ({"num_heads": 0}, "num_heads must be a whole number of at least 1, got 0"),
        ({"architectures": ["UMT5ForConditionalGeneration"]}, "architecture UMT5For"),
    ],
)
def test_what_does_not_fit_is_refused_by_name(altered, config, words):
    with pytest.raises(UserError, match=words):
        tfllm.from_huggingface(altered("t5-relu", **config))


@pytest.mark.parametrize(
    ("config", "scales"),
    [
        ({}, True),
        ({"scale_decoder_outputs": None, "tie_word_embeddings": False}, False),
        ({"scale_decoder_outputs": False, "tie_word_embeddings": True}, False),
        ({"model_type": "mt5", "architectures": ["MT5ForConditionalGeneration"]}, False),
    ],
)
def test_logits_are_scaled_as_the_version_of_t5_has_it(altered, config, scales):
    assert tfllm.from_huggingface(altered("t5-relu", **config)).backbone.scale_logits is scales


def test_what_is_tied_and_not_scaled_is_written_for_both_versions_of_transformers(
    altered, tmp_path
):
    folder = altered("t5-relu", scale_decoder_outputs=False)
    tfllm.to_huggingface(tfllm.from_huggingface(folder), tmp_path / "back")
    back = Checkpoint(tmp_path / "back")
    assert back.config["tie_word_embeddings"] is False  # 4 does not scale
    assert "lm_head.weight" in back
    assert tfllm.from_huggingface(tmp_path / "back").backbone.tie_embeddings


@pytest.mark.parametrize(
    ("stated", "context"), [({}, 2048), ({"model_max_length": 4000}, 4000), ({}, 3000)]
)
def test_the_context_is_the_largest_that_is_stated(altered, stated, context):
    config = {"n_positions": 3000} if context == 3000 else {}
    folder = altered("t5-relu", **config)
    path = folder / "tokenizer_config.json"
    told = json.loads(path.read_text()) | {"model_max_length": 10**30} | stated
    path.write_text(json.dumps(told))
    assert tfllm.from_huggingface(folder).backbone.max_sequence_length == context


def test_a_start_token_that_is_none_is_refused(tmp_path):
    folder = tmp_path / "checkpoint"
    shutil.copytree(FIXTURES / "t5-relu", folder)
    (folder / "generation_config.json").write_text('{"decoder_start_token_id": "x"}')
    with pytest.raises(UserError, match="decoder_start_token_id must be a token id, got 'x'"):
        tfllm.from_huggingface(folder)
