"""Saving and loading: folders, bare files, presets of KerasHub and .keras archives."""

import json
import os

import keras
import keras_hub
import pytest

from tfllm.errors import UserError
from tfllm.tokenizers import SentencePieceTokenizer, Tokenizer, load_tokenizer


def test_a_saved_tokenizer_is_loaded_as_it_was(tokenizer, tmp_path):
    tokenizer.save(tmp_path / "new" / "tokenizer")

    loaded = load_tokenizer(tmp_path / "new" / "tokenizer")

    assert loaded.proto == tokenizer.proto
    assert loaded.encode("x y") == tokenizer.encode("x y")
    assert os.listdir(tmp_path / "new") == ["tokenizer"]


def test_a_bare_file_is_loaded(tokenizer, tmp_path):
    path = tmp_path / "bare.model"
    path.write_bytes(tokenizer.proto)

    assert load_tokenizer(path).proto == tokenizer.proto


def test_an_existing_folder_is_not_overwritten(tokenizer, tmp_path):
    with pytest.raises(UserError, match="exists: remove it"):
        tokenizer.save(tmp_path)

    assert os.listdir(tmp_path) == []


def test_a_failed_save_leaves_nothing(tmp_path):
    with pytest.raises(UserError, match="has no model yet"):
        SentencePieceTokenizer().save(tmp_path / "tokenizer")

    assert os.listdir(tmp_path) == []


def test_the_configuration_and_the_assets_together_are_the_tokenizer(tokenizer, tmp_path):
    config = tokenizer.get_config()
    tokenizer.save_assets(tmp_path)

    copy = SentencePieceTokenizer.from_config(json.loads(json.dumps(config)))
    copy.load_assets(tmp_path)

    assert copy.get_config() == config
    assert copy.proto == tokenizer.proto
    assert os.listdir(tmp_path) == tokenizer.file_assets


@keras.saving.register_keras_serializable("test")
class TinyBackbone(keras_hub.models.Backbone):
    def __init__(self, vocabulary_size, dtype=None, **kwargs):
        token_ids = keras.Input([None], dtype="int32", name="token_ids")
        embedding = keras.layers.Embedding(vocabulary_size, 2, dtype=dtype)
        super().__init__(inputs=token_ids, outputs=embedding(token_ids), dtype=dtype, **kwargs)
        self.vocabulary_size = vocabulary_size

    def get_config(self):
        return {**super().get_config(), "vocabulary_size": self.vocabulary_size}


@keras.saving.register_keras_serializable("test")
class TinyPreprocessor(keras_hub.models.CausalLMPreprocessor):
    backbone_cls = TinyBackbone
    tokenizer_cls = SentencePieceTokenizer


@keras.saving.register_keras_serializable("test")
class TinyCausalLM(keras_hub.models.CausalLM):
    backbone_cls = TinyBackbone
    preprocessor_cls = TinyPreprocessor

    def __init__(self, backbone, preprocessor=None, **kwargs):
        self.backbone = backbone
        self.preprocessor = preprocessor
        super().__init__(inputs=backbone.input, outputs=backbone.output, **kwargs)


@pytest.fixture
def model(tokenizer):
    backbone = TinyBackbone(tokenizer.vocabulary_size())
    return TinyCausalLM(backbone, TinyPreprocessor(tokenizer, sequence_length=6), compile=False)


def test_it_lives_in_a_preset_of_kerashub(model, tokenizer, tmp_path):
    model.save_to_preset(str(tmp_path))

    loaded = TinyCausalLM.from_preset(str(tmp_path)).preprocessor

    assert loaded.tokenizer.proto == tokenizer.proto
    packed = loaded(["x y"])[0]["token_ids"][0]
    assert packed.numpy().tolist()[:5] == [2, *tokenizer.encode("x y"), 3][:5]
    assert load_tokenizer(tmp_path).proto == tokenizer.proto
    assert SentencePieceTokenizer.from_preset(str(tmp_path)).proto == tokenizer.proto
    assert "proto" not in (tmp_path / "tokenizer.json").read_text()


@pytest.mark.filterwarnings("ignore:Skipping variable loading for optimizer")
def test_it_lives_in_a_keras_archive(model, tokenizer, tmp_path):
    model.save(tmp_path / "model.keras")

    loaded = keras.saving.load_model(tmp_path / "model.keras")

    assert loaded.preprocessor.tokenizer.proto == tokenizer.proto


@pytest.mark.parametrize("content", [b"", b"no model", b"\x00" * 100])
def test_a_file_that_is_no_model_is_refused_by_name(content, tmp_path):
    path = tmp_path / "broken.spm"
    path.write_bytes(content)

    with pytest.raises(UserError, match="broken.spm is not a SentencePiece model"):
        load_tokenizer(path)


def test_a_missing_file_is_refused_by_name(tmp_path):
    with pytest.raises(UserError, match="Cannot read .*none.spm .*No such file"):
        load_tokenizer(tmp_path / "none.spm")


def test_a_folder_without_a_tokenizer_is_refused_by_name(tmp_path):
    with pytest.raises(UserError, match=f"{tmp_path} holds no tokenizer: cannot read .*No such"):
        load_tokenizer(tmp_path)


@pytest.mark.parametrize("content", ["{", "[]", "{}", "\x00"])
def test_a_broken_configuration_is_refused_by_name(content, tmp_path):
    (tmp_path / "tokenizer.json").write_text(content)

    with pytest.raises(UserError, match="tokenizer.json is not the configuration of a tokenizer"):
        load_tokenizer(tmp_path)


def test_a_configuration_of_something_else_is_refused(tmp_path):
    (tmp_path / "tokenizer.json").write_text(
        json.dumps({"registered_name": "keras>Dense", "config": {}})
    )

    with pytest.raises(UserError, match="describes a keras>Dense; expected a Tokenizer"):
        Tokenizer.from_preset(str(tmp_path))


def test_a_tokenizer_without_its_model_says_so():
    with pytest.raises(UserError, match="has no model yet: give `proto`, or call load_assets"):
        SentencePieceTokenizer().encode("x")
