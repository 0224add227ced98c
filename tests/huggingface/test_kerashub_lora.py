"""LoRA by KerasHub's own method, merged by ours."""

import pytest
import tensorflow as tf
from tiny_kerashub import byte_pairs, gpt2, hub, with_clear_preferences

from tfllm.huggingface.kerashub import from_keras_hub
from tfllm.models.lora_merging import merged


def test_an_adapter_answers_alike_while_its_model_is_merged():
    tokenizer = byte_pairs(hub.GPT2Tokenizer, "<|endoftext|>")
    model = with_clear_preferences(
        gpt2(num_layers=1, vocabulary_size=tokenizer.vocabulary_size(), max_sequence_length=24)
    )
    model.preprocessor = hub.GPT2CausalLMPreprocessor(tokenizer, sequence_length=24)
    adapter = from_keras_hub(model)
    before = adapter.score(["one"], [" two"])[0].logprob
    model.backbone.enable_lora(2)
    for variable in model.trainable_variables:
        if "lora" in variable.path:
            variable.assign(tf.ones(variable.shape))
    names = [variable.path for variable in adapter.variables]
    live = adapter.score(["one"], [" two"])[0].logprob
    assert abs(live - before) > 0.01
    with merged(adapter):
        assert not any("lora" in variable.path for variable in adapter.variables)
        assert adapter.score(["one"], [" two"])[0].logprob == pytest.approx(live, abs=1e-5)
    assert [variable.path for variable in adapter.variables] == names
    assert adapter.score(["one"], [" two"])[0].logprob == live
