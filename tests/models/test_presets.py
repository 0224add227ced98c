"""Models as folders and files: what is saved comes back, and nothing else is touched."""

import json
import warnings

import keras
import keras_hub
import numpy as np
import pytest
import tensorflow as tf

import tfllm
from tfllm.errors import UserError
from tfllm.models import CausalLM, GPTCausalLM, LSTMCausalLM
from tfllm.models.presets import save_aside

PROMPTS, COMPLETIONS = ["one two", "", "smile 🙂"], [" three", "你好", " wave"]


@pytest.fixture(scope="module")
def preset(model, tmp_path_factory):
    folder = tmp_path_factory.mktemp("presets") / "preset"
    model.save_to_preset(folder)
    return folder


def test_a_preset_generates_as_the_model_did(model, preset):
    again = tfllm.CausalLM.from_preset(preset)
    assert type(again) is type(model) in (GPTCausalLM, LSTMCausalLM)
    assert again.generate(PROMPTS, max_new_tokens=12) == model.generate(PROMPTS, max_new_tokens=12)


def test_kerashub_s_own_from_preset_finds_the_same_model(model, preset):
    again = keras_hub.models.CausalLM.from_preset(str(preset))
    assert type(again) is type(model)
    assert again.score(PROMPTS, COMPLETIONS) == model.score(PROMPTS, COMPLETIONS)


def test_kerashub_finds_the_backbone_in_a_preset(model, preset, pack):
    backbone = keras_hub.models.Backbone.from_preset(str(preset))
    assert type(backbone) is type(model.backbone)
    x, *_ = pack([["one two", "a cat"]], 20)
    np.testing.assert_array_equal(backbone(x), model.backbone(x))


def test_kerashub_finds_the_preprocessor_in_a_preset(model, preset, texts):
    reads = keras_hub.models.CausalLMPreprocessor.from_preset(str(preset))
    assert type(reads) is type(model.preprocessor)
    assert reads.get_config() == model.preprocessor.get_config()
    for ours, theirs in zip(
        tf.nest.flatten(reads(texts)), tf.nest.flatten(model.preprocessor(texts)), strict=True
    ):
        np.testing.assert_array_equal(ours, theirs)


def test_a_preset_can_be_loaded_in_another_precision_or_without_its_weights(model, preset):
    low = CausalLM.from_preset(preset, dtype="bfloat16")
    assert low.variables[0].dtype == "bfloat16"
    assert np.abs(low.score(["one"], [" two"])[0].logprob) < 1
    fresh = CausalLM.from_preset(preset, load_weights=False)
    assert np.abs(fresh.trainable_variables[0] - model.trainable_variables[0]).max() > 0.1


@pytest.mark.parametrize("policy", ["mixed_bfloat16", "mixed_float16"])
def test_a_preset_of_mixed_training_loads_as_float32(new_model, policy, tmp_path):
    model = new_model("gpt", num_layers=1, hidden_dim=8, dtype=policy)
    model.save_to_preset(tmp_path / "lm")
    for load in (CausalLM.from_preset, keras_hub.models.CausalLM.from_preset):
        again = load(str(tmp_path / "lm"))
        assert again.backbone.dtype_policy.name == "float32"
        for ours, theirs in zip(model.get_weights(), again.get_weights(), strict=True):
            np.testing.assert_array_equal(ours, theirs)


def test_a_newer_preset_replaces_the_older_one(new_model, tmp_path):
    for vocabulary in (400, 500):
        model = new_model("gpt", num_layers=1, hidden_dim=8, vocabulary_size=vocabulary)
        model.save_to_preset(tmp_path / "preset")
    again = CausalLM.from_preset(tmp_path / "preset")
    assert again.backbone.vocabulary_size == 500
    assert [entry.name for entry in tmp_path.iterdir()] == ["preset"]


def test_an_empty_folder_becomes_the_preset(tmp_path):
    (tmp_path / "preset").mkdir()
    save_aside(tmp_path / "preset", lambda aside: open(f"{aside}/config.json", "w").close())
    assert (tmp_path / "preset" / "config.json").exists()


def test_a_folder_that_is_no_preset_is_not_replaced(model, tmp_path):
    (tmp_path / "thesis.tex").write_text("years of work")
    with pytest.raises(UserError, match=r"exists and is no preset \(it has no config.json of one"):
        model.save_to_preset(tmp_path)
    assert [entry.name for entry in tmp_path.iterdir()] == ["thesis.tex"]
    with pytest.raises(UserError, match="thesis.tex exists and is no preset"):
        model.save_to_preset(tmp_path / "thesis.tex")
    (tmp_path / "config.json").write_text('{"model_type": "gpt2"}')  # of Hugging Face
    with pytest.raises(UserError, match="exists and is no preset"):
        model.save_to_preset(tmp_path)


def test_a_write_that_fails_leaves_the_old_preset_and_nothing_else(tmp_path):
    def write(text):
        def into(aside):
            with open(f"{aside}/config.json", "w") as file:
                file.write(text)
            if text == "new":
                raise OSError("No space left on device")

        return into

    old = '{"registered_name": "old"}'
    save_aside(tmp_path / "preset", write(old))
    with pytest.raises(OSError, match="No space left"):
        save_aside(tmp_path / "preset", write("new"))
    assert [entry.name for entry in tmp_path.iterdir()] == ["preset"]
    assert (tmp_path / "preset" / "config.json").read_text() == old


@pytest.mark.parametrize("name", ["nowhere/preset", "gpt2", "hf://openai-community/gpt2"])
def test_what_is_not_on_this_disk_is_refused_and_not_downloaded(name):
    with pytest.raises(UserError, match=f"No preset at {name}: .* never downloaded"):
        CausalLM.from_preset(name)


def test_a_folder_of_another_kind_of_model_is_refused(tmp_path):
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "gpt2"}))
    with pytest.raises(UserError, match="describes no Keras model: it has no `registered_name`"):
        CausalLM.from_preset(tmp_path)
    (tmp_path / "config.json").write_text("{")
    with pytest.raises(UserError, match="config.json is damaged: "):
        CausalLM.from_preset(tmp_path)


@pytest.mark.parametrize("kind", ["gpt", "lstm"])
def test_a_keras_file_goes_on_training_where_the_model_was(new_model, texts, tmp_path, kind):
    model = new_model(kind, num_layers=1, hidden_dim=16, dropout=0.2)
    model.compile(keras.optimizers.Adam(1e-2), weighted_metrics=["accuracy"])
    dataset = tf.data.Dataset.from_tensors(tf.constant(texts)).repeat(2)
    model.fit(dataset, verbose=0)
    model.save(tmp_path / "model.keras")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        again = keras.models.load_model(tmp_path / "model.keras")
    assert again.optimizer.iterations == 2
    histories = [m.fit(dataset, verbose=0).history for m in (model, again)]
    assert histories[1] == histories[0]
    assert set(histories[1]) == {"loss", "accuracy"}
    for one, other in zip(model.trainable_variables, again.trainable_variables, strict=True):
        np.testing.assert_array_equal(one, other)


def test_a_keras_file_keeps_a_loss_of_the_user_s_own(new_model, tmp_path):
    model = new_model("gpt", num_layers=1, hidden_dim=8)
    model.compile(
        keras.optimizers.SGD(0.5), loss=keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    )
    model.save(tmp_path / "model.keras")
    again = keras.models.load_model(tmp_path / "model.keras")
    assert type(again.loss) is keras.losses.SparseCategoricalCrossentropy
    assert type(again.optimizer) is keras.optimizers.SGD


def test_a_seed_of_dropout_is_saved(new_model):
    model = new_model("gpt", num_layers=1, hidden_dim=8)
    model.seed = 7
    assert GPTCausalLM.from_config(model.get_config()).seed == 7
